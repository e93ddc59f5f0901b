// SPDX-License-Identifier: Apache-2.0
//! A release: the programs of the image, as `make build` makes them, and the versions that its files name.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};

use dra_tests::source::root_dir;

const PROGRAMS: [&str; 6] =
    ["gpu-kubelet-plugin", "gpu-mps-host", "gpu-controller", "gpu-explain", "gpu-import", "gpu-cdi-hook"];

/// With one in it a program has other bytes on another machine, and shows where it was built.
#[test]
fn no_path_of_the_machine_that_built_them_is_in_the_programs() {
    let home = std::env::var_os("HOME").map(PathBuf::from).expect("a home directory");
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    for program in PROGRAMS {
        let path = root_dir().join("target/release").join(program);
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}: run make build", path.display()));
        // One name alone, such as /src, is in the paths that stand for them as well.
        let is_private = |dir: &&Path| dir.components().count() > 2;
        for dir in [root_dir(), &cargo_home].into_iter().filter(is_private) {
            let dir = dir.as_os_str().as_encoded_bytes();
            let at = bytes.windows(dir.len()).position(|window| window == dir);
            assert_eq!(at, None, "{program} has a path of this machine in it: was it built by make build?");
        }
    }
}

/// A file with another version names a chart, an image or a program that the release does not have.
#[test]
fn all_files_name_the_version_of_the_programs() {
    let version = env!("CARGO_PKG_VERSION");
    let expected: [(&str, String); 10] = [
        ("deploy/chart/Chart.yaml", format!("\nversion: {version}\n")),
        ("deploy/chart/Chart.yaml", format!("\nappVersion: {version}\n")),
        ("deploy/tenants-chart/Chart.yaml", format!("\nversion: {version}\n")),
        ("deploy/tenants-chart/Chart.yaml", format!("\nappVersion: {version}\n")),
        ("deploy/Containerfile", format!("\nARG VERSION={version}\n")),
        ("CHANGELOG.md", format!("\n## [{version}]")),
        ("CHANGELOG.md", "\n### Upgrade notes\n".to_owned()),
        ("README.md", format!("/gpu-dra-driver:{version} ")),
        ("deploy/chart/README.md", format!("/gpu-dra-driver:{version} ")),
        ("docs/release.md", format!("gpu-dra-driver-{version}-image.tar")),
    ];
    for (path, text) in expected {
        assert!(read(path).contains(&text), "{path} lacks {text:?}, which the version in Cargo.toml needs");
    }
}

/// An image of another version than the one of these files is not what a reader of them wants.
#[test]
fn documents_name_no_image_of_another_version() {
    let tag = format!("gpu-dra-driver:{}", env!("CARGO_PKG_VERSION"));
    for path in ["README.md", "deploy/chart/README.md", "deploy/Containerfile"] {
        for line in read(path).lines().filter(|line| line.contains("/gpu-dra-driver:")) {
            assert!(line.contains(&tag), "{path}: {line:?} does not name {tag}");
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(root_dir().join(path)).unwrap()
}
