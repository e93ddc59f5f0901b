// SPDX-License-Identifier: Apache-2.0
//! A container before its first process: a bundle with a root filesystem, and a directory beside it that stands for the host.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::listing::{self, Listing};

/// The longest that the hook may take, whatever the image is.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(1);

/// The arguments for [`Image::new`].
pub(crate) const ARGUMENTS: [&str; 5] = [
    "--library-dir=/usr/lib/x86_64-linux-gnu",
    "--library-dir=/usr/lib64",
    "--library=libcuda.so.1",
    "--symlink=libcuda.so.1::/usr/lib64/libcuda.so",
    "--symlink=../libcuda.so.1::/usr/lib64/deep/dir/libcuda.so",
];

pub(crate) struct Image {
    pub(crate) dir: TempDir,
}

/// How a hook ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` if it was killed.
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
    pub(crate) stdout: String,
    pub(crate) elapsed: Duration,
}

impl Image {
    /// With the cache of this machine, and a library in `/usr/lib64`. The same files lie in the directory of the host.
    pub(crate) fn new() -> Self {
        let image = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(image.bundle()).unwrap();
        fs::write(image.bundle().join("config.json"), r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"}}"#).unwrap();
        for dir in [image.root(), image.host()] {
            for below in ["etc", "usr/lib64", "proc", "dev", "data"] {
                fs::create_dir_all(dir.join(below)).unwrap();
            }
            fs::copy("/etc/ld.so.cache", dir.join("etc/ld.so.cache")).unwrap();
            fs::write(dir.join("usr/lib64/libcuda.so.1"), "a library").unwrap();
        }
        image
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    pub(crate) fn host(&self) -> PathBuf {
        self.dir.path().join("host")
    }

    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub(crate) fn cache(&self) -> Vec<u8> {
        fs::read(self.file("etc/ld.so.cache")).unwrap()
    }

    /// Removes what has the path and makes a symbolic link instead.
    pub(crate) fn link(&self, path: &str, target: impl AsRef<Path>) {
        self.remove(path);
        symlink(target, self.file(path)).unwrap();
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        self.remove(path);
        fs::create_dir_all(self.file(path).parent().unwrap()).unwrap();
        fs::write(self.file(path), content).unwrap();
    }

    pub(crate) fn remove(&self, path: &str) {
        let path = self.file(path);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&path).unwrap(),
            Ok(_) => fs::remove_file(&path).unwrap(),
            Err(_) => {}
        }
    }

    /// What the hook must never change.
    pub(crate) fn outside(&self) -> Listing {
        let mut found = listing::of(&self.host());
        found.extend(listing::of(Path::new("/etc/ld.so.cache")));
        found
    }

    pub(crate) fn state(&self) -> String {
        let bundle = self.bundle().display().to_string();
        format!(r#"{{"ociVersion":"1.0.2","id":"c","status":"created","pid":1,"bundle":"{bundle}"}}"#)
    }

    /// Runs the hook in a mount namespace of its own, as runc does: in the root directory, with a procfs of the container.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.run_after("", arguments)
    }

    /// The same after commands of a shell, with `$ROOT` and `$HOST`; and `$PROGRAM` with its arguments last.
    pub(crate) fn run_after(&self, setup: &str, arguments: &[&str]) -> Ended {
        let script = format!("mount -t proc proc \"$ROOT/proc\"\n{setup}\ncd \"$ROOT\"; exec \"$PROGRAM\" \"$@\"");
        self.shell(&["--mount", "--uts"], &script, arguments)
    }

    /// A shell in new namespaces, which is killed at the time limit.
    pub(crate) fn shell(&self, namespaces: &[&str], script: &str, arguments: &[&str]) -> Ended {
        let limit = format!("{}", TIME_LIMIT.as_secs_f64());
        let program = env!("CARGO_BIN_EXE_gpu-cdi-hook");
        let script = script.replace("exec \"$PROGRAM\"", "exec timeout --signal=KILL \"$LIMIT\" \"$PROGRAM\"");
        let mut command = Command::new("unshare");
        command.args(namespaces).args(["--", "sh", "-ec", &script, "sh"]).args(arguments);
        command.env("ROOT", self.root()).env("HOST", self.host()).env("PROGRAM", program).env("LIMIT", limit);
        run(&mut command, self.state().as_bytes())
    }
}

/// Runs a command with something on its standard input.
pub(crate) fn run(command: &mut Command, stdin: &[u8]) -> Ended {
    let started = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A hook with a wrong command line exits without reading.
    child.stdin.take().unwrap().write_all(stdin).ok();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended {
        code: status.code().filter(|code| *code != 137),
        stderr: text(stderr),
        stdout: text(stdout),
        elapsed: started.elapsed(),
    }
}

/// A file of many gigabytes that needs no space.
pub(crate) fn sparse(path: &Path, bytes: u64) {
    File::create(path).unwrap().set_len(bytes).unwrap();
}
