// SPDX-License-Identifier: Apache-2.0
//! The programs of the image, as `make build` makes them.

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
