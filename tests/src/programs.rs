// SPDX-License-Identifier: Apache-2.0
//! The programs of the product, built once per test process with the profile of the tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::source::root_dir;

/// What the harness runs.
const PACKAGES: [&str; 4] = ["dra-kubelet-plugin", "dra-controller", "dra-sim", "dra-sim-library"];

/// The path of a program or library that cargo builds in this repository.
pub fn built(file_name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let path = BUILT.get_or_init(build).join(file_name);
    assert!(path.is_file(), "cargo did not make {}", path.display());
    path
}

fn build() -> PathBuf {
    let own_path = std::env::current_exe().expect("a running program has a path");
    let profile_dir = own_path.ancestors().nth(2).expect("tests lie in <target>/<profile>/deps").to_owned();
    let release = profile_dir.ends_with("release");
    let done = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline"])
        .args(PACKAGES.iter().flat_map(|package| ["--package", package]))
        .args(release.then_some("--release"))
        .arg("--target-dir")
        .arg(profile_dir.parent().unwrap_or_else(|| Path::new("target")))
        .current_dir(root_dir())
        .status()
        .expect("cargo runs");
    assert!(done.success(), "the programs under test do not build");
    profile_dir
}
