// SPDX-License-Identifier: Apache-2.0
//! The programs of the product, of the same profile as the tests.
//!
//! `cargo test --workspace` makes them beside the tests; for `cargo test -p dra-tests` alone they are built here, when one
//! is missing or older than a source file that went into it. `GPU_DRA_PROGRAM_DIR` names programs built elsewhere.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::source::root_dir;

/// What the harness runs: packages and the file each one makes.
const PROGRAMS: [(&str, &str); 6] = [
    ("dra-kubelet-plugin", "gpu-kubelet-plugin"),
    ("dra-cdi-hook", "gpu-cdi-hook"),
    ("dra-mps-host", "gpu-mps-host"),
    ("dra-controller", "gpu-controller"),
    ("dra-sim", "gpu-sim"),
    ("dra-sim-library", "libnvidia_ml.so"),
];

/// The path of a program or library that cargo builds in this repository.
pub fn built(file_name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let path = BUILT.get_or_init(build).join(file_name);
    assert!(path.is_file(), "cargo did not make {}", path.display());
    path
}

fn build() -> PathBuf {
    if let Some(elsewhere) = std::env::var_os("GPU_DRA_PROGRAM_DIR") {
        return PathBuf::from(elsewhere);
    }
    let own_path = std::env::current_exe().expect("a running program has a path");
    let profile_dir = own_path.ancestors().nth(2).expect("tests lie in <target>/<profile>/deps").to_owned();
    if PROGRAMS.iter().all(|(_, file_name)| is_fresh(&profile_dir.join(file_name))) {
        return profile_dir;
    }
    let done = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline"])
        .args(PROGRAMS.iter().flat_map(|(package, _)| ["--package", package]))
        .args(profile_dir.ends_with("release").then_some("--release"))
        .arg("--target-dir")
        .arg(profile_dir.parent().unwrap_or_else(|| Path::new("target")))
        .current_dir(root_dir())
        .status()
        .expect("cargo runs");
    assert!(done.success(), "the programs under test do not build");
    profile_dir
}

/// Whether no source file is newer; cargo lists them in a file beside the program.
fn is_fresh(path: &Path) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
    let Some(built_at) = modified(path) else { return false };
    let sources = std::fs::read_to_string(path.with_extension("d")).unwrap_or_default();
    let mut sources = sources.split_whitespace().skip(1).peekable();
    sources.peek().is_some()
        && sources.all(|source| modified(Path::new(source)).unwrap_or(SystemTime::UNIX_EPOCH) < built_at)
}
