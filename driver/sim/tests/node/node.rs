// SPDX-License-Identifier: Apache-2.0
//! A tree in a temporary directory and the programs that run on it.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use dra_sim::State;
use dra_sim::store::Store;

/// A node made by `gpu-sim init`.
pub(crate) struct Node {
    dir: tempfile::TempDir,
}

/// The result of a program.
#[derive(Debug)]
pub(crate) struct ProgramResult {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

impl ProgramResult {
    pub(crate) fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Self { code: output.status.code(), text }
    }

    /// The text of a program that succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.text);
        self.text
    }
}

impl Node {
    /// A node with these boards, seeded so that all identities are the same in every run.
    pub(crate) fn new(gpus: &str) -> Self {
        Self::with(gpus, &[])
    }

    /// A node with more arguments for `gpu-sim init`.
    pub(crate) fn with(gpus: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let node = Self { dir };
        let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-sim"));
        command.arg("init").arg(node.dir()).args(["--gpus", gpus, "--seed", "test"]);
        command.arg("--library").arg(library()).arg("--nvidia-smi").arg(nvidia_programs()).args(more);
        ProgramResult::of(&command.output().unwrap()).ok();
        node
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir().join(below)
    }

    /// The shared state, read by this process.
    pub(crate) fn state(&self) -> State {
        State::clone(&Store::new(self.dir()).read().unwrap())
    }

    /// Runs `gpu-sim COMMAND DIR ARGUMENTS`.
    pub(crate) fn gpu_sim(&self, command: &str, arguments: &[&str]) -> ProgramResult {
        let mut program = Command::new(env!("CARGO_BIN_EXE_gpu-sim"));
        ProgramResult::of(&program.arg(command).arg(self.dir()).args(arguments).output().unwrap())
    }

    /// Runs NVIDIA's nvidia-smi on the node.
    pub(crate) fn smi(&self, arguments: &[&str]) -> ProgramResult {
        ProgramResult::of(&self.program(self.path("usr/bin/nvidia-smi")).args(arguments).output().unwrap())
    }

    /// Runs NVIDIA's nvidia-smi as a user other than root.
    pub(crate) fn smi_unprivileged(&self, arguments: &[&str]) -> ProgramResult {
        let mut program = self.program("setpriv");
        program.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        ProgramResult::of(&program.arg(self.path("usr/bin/nvidia-smi")).args(arguments).output().unwrap())
    }

    /// Runs a Python script that has NVIDIA's binding.
    pub(crate) fn python(&self, script: &str) -> ProgramResult {
        let mut program = self.program("python3");
        ProgramResult::of(&program.env("PYTHONPATH", python_binding()).arg("-c").arg(script).output().unwrap())
    }

    /// A program that finds the node's libraries before any other.
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", self.path("usr/lib/x86_64-linux-gnu")).env_remove("GPU_SIM_ROOT");
        command
    }
}

/// Copies a program to a directory where every user may run it. Another process copies: a test that starts a program at that moment would
/// hold the copy open for writing, and it could not be run.
pub(crate) fn install(from: &Path, to: &Path) {
    let status = Command::new("install").arg("--mode=755").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "{} cannot be installed", from.display());
}

/// The simulated library, built beside `gpu-sim` at its first use.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let program_dir = Path::new(env!("CARGO_BIN_EXE_gpu-sim")).parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "dra-sim-library"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if program_dir.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "dra-sim-library does not build");
        program_dir.join("libnvidia_ml.so")
    })
}

pub(crate) fn nvidia_programs() -> PathBuf {
    let dir = cache_dir().join("nvidia");
    let found = ["usr/lib/nvidia/current/nvidia-smi", "usr/bin/nvidia-smi"].iter().any(|path| dir.join(path).is_file());
    assert!(found, "NVIDIA's nvidia-smi is not in {}; run tests/cluster/setup.sh as root", dir.display());
    dir
}

fn python_binding() -> PathBuf {
    let dirs = ["python", "nvidia-ml-py"].map(|name| cache_dir().join(name));
    let found = dirs.iter().find(|dir| dir.join("pynvml.py").is_file());
    found.cloned().unwrap_or_else(|| {
        panic!("NVIDIA's pynvml.py is not in {}; run tests/cluster/setup.sh as root", dirs[0].display())
    })
}

fn cache_dir() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
    base.unwrap_or_else(home).join("gpu-dra-cluster")
}
