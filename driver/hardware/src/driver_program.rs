// SPDX-License-Identifier: Apache-2.0
//! Finds a program of the driver below the driver root, and runs it with a timeout.
//!
//! The program runs in place and not with the driver root as its root directory, because a driver root need not have `/proc`
//! and `/dev`. Its environment has two variables. `PATH` has the program directories of the driver. `LD_PRELOAD` has the
//! libraries of the driver that the program opens by name. Their directory is not searched, because it may contain the C
//! library of another system, which the loader of this system cannot use.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dra_model::Advice;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::driver_dirs::{library_dirs, listed, program_dirs};
use crate::driver_files::versioned;
use crate::driver_root::{self, Found, Root};

/// A program of the driver is missing or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    #[error("failed to open the driver root {}: {why}", root.display())]
    Root { root: PathBuf, why: String },
    /// `name` is a program, or the SONAME of a library that the program opens.
    #[error("no {name} of the NVIDIA driver below {} in {searched}", root.display())]
    Missing { name: String, root: PathBuf, searched: String },
    #[error("failed to run {}: {why}", path.display())]
    NotRun { path: PathBuf, why: String },
    /// Its child processes were killed with it.
    #[error("{} did not exit within {timeout:?} and was killed", path.display())]
    Hung { path: PathBuf, timeout: Duration },
    /// The exit code is nonzero, or the output has another form than expected.
    #[error("{} failed with {status} and printed `{output}`", path.display())]
    Failed {
        path: PathBuf,
        /// Exit code or signal.
        status: ExitStatus,
        /// Standard output and error in one line.
        output: String,
    },
}

impl Advice for ProgramError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Root { .. } => Some(driver_root::ADVICE.into()),
            Self::Missing { .. } => Some("install it there or correct the driver root".into()),
            Self::NotRun { .. } | Self::Hung { .. } | Self::Failed { .. } => None,
        }
    }
}

/// A program of the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverProgram {
    path: PathBuf,
    search_path: OsString,
    preload: OsString,
}

/// The result of a program that exited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Standard output and error in order of arrival, the first 64 KiB.
    pub text: String,
}

/// Longer than the output of any command that is used here.
const MAX_OUTPUT_BYTES: usize = 64 << 10;

/// How long a killed program may take to exit. A program that is in the kernel because of a hanging GPU may never exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

impl DriverProgram {
    /// A program in one of the usual directories, and the libraries of the driver, by SONAME, that it opens itself: those of the loaded
    /// version if there are several.
    pub fn find(root: &Path, name: &str, libraries: &[&str], loaded: Option<&str>) -> Result<Self, ProgramError> {
        let unusable = |error: io::Error| ProgramError::Root { root: root.to_owned(), why: error.to_string() };
        let opened = Root::open(root).map_err(unusable)?;
        let missing = |dirs: &[PathBuf], name: &str| ProgramError::Missing {
            name: name.to_owned(),
            root: root.to_owned(),
            searched: listed(dirs),
        };
        let file = |dirs: &[PathBuf], name: &str| {
            let found = dirs.iter().find_map(|dir| opened.find(dir.join(name)).ok().filter(is_file));
            found.map(|found| opened.outside(&found.path)).ok_or_else(|| missing(dirs, name))
        };
        let path = file(&program_dirs(), name)?;
        let libraries = libraries.iter().map(|library| {
            let of_version = loaded.and_then(|version| file(&library_dirs(), &versioned(library, version)).ok());
            of_version.map_or_else(|| file(&library_dirs(), library), Ok)
        });
        let libraries = libraries.collect::<Result<Vec<_>, _>>()?;
        let dirs =
            program_dirs().into_iter().filter_map(|dir| opened.find(dir).ok()).map(|dir| opened.outside(&dir.path));
        Ok(Self { search_path: joined(dirs), preload: joined(libraries), path })
    }

    /// The path without symlinks, for this process.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole environment of the program.
    pub fn environment(&self) -> [(&'static str, &OsStr); 2] {
        [("PATH", &self.search_path), ("LD_PRELOAD", &self.preload)]
    }

    /// Runs the program without input. After the timeout it is killed together with its child processes.
    pub fn run<I: AsRef<OsStr>>(&self, arguments: &[I], timeout: Duration) -> Result<Ended, ProgramError> {
        let end = Instant::now() + timeout;
        let not_run = |error: io::Error| ProgramError::NotRun { path: self.path.clone(), why: error.to_string() };
        let (output, mut child) = self.spawn(arguments).map_err(not_run)?;
        let text = text_until(output, end).map(|text| text.filter(|_complete| ends_before(&child, end)));
        if let Ok(Some(text)) = text {
            let status = child.wait().map_err(not_run)?;
            return Ok(Ended { status, text });
        }
        end_it(child);
        let hung = || ProgramError::Hung { path: self.path.clone(), timeout };
        Err(text.err().map_or_else(hung, not_run))
    }

    /// The error for unexpected output.
    pub fn failed(&self, ended: &Ended) -> ProgramError {
        let output = ended.text.split_whitespace().collect::<Vec<_>>().join(" ");
        ProgramError::Failed { path: self.path.clone(), status: ended.status, output }
    }

    /// Dropping the command closes the copies of the writing end of the pipe in this process.
    fn spawn<I: AsRef<OsStr>>(&self, arguments: &[I]) -> io::Result<(PipeReader, Child)> {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(&self.path);
        command.args(arguments).env_clear().envs(self.environment()).process_group(0);
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        Ok((reader, command.spawn()?))
    }
}

fn is_file(found: &Found) -> bool {
    FileType::from_raw_mode(found.stat.st_mode).is_file()
}

fn joined(paths: impl IntoIterator<Item = PathBuf>) -> OsString {
    paths.into_iter().map(PathBuf::into_os_string).collect::<Vec<_>>().join(OsStr::new(":"))
}

/// The output until every process has closed the pipe; nothing if that takes too long.
fn text_until(mut output: impl Read + AsFd, end: Instant) -> io::Result<Option<String>> {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    while is_ready_before(&output, end) {
        match output.read(&mut part) {
            Ok(0) => return Ok(Some(String::from_utf8_lossy(&text).into_owned())),
            Ok(size) => text.extend(part.iter().take(size.min(MAX_OUTPUT_BYTES - text.len()))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn ends_before(child: &Child, end: Instant) -> bool {
    pidfd_open(Pid::from_child(child), PidfdFlags::empty()).is_ok_and(|process| is_ready_before(&process, end))
}

fn is_ready_before(file: &impl AsFd, end: Instant) -> bool {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(file, PollFlags::IN)], left.as_ref()) {
            Err(Errno::INTR) => {}
            answer => return answer.is_ok_and(|ready| ready > 0),
        }
    }
}

/// The child is reaped after the kill, so that the id of its process group cannot be reused before.
fn end_it(mut child: Child) {
    kill_process_group(Pid::from_child(&child), Signal::KILL).ok();
    if ends_before(&child, Instant::now() + KILL_TIMEOUT) {
        child.wait().ok();
    } else {
        thread::spawn(move || child.wait());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A driver root whose nvidia-smi is a script, reached through an absolute link as on Debian.
    fn root(script: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for dir in ["usr/bin", "usr/lib64", "etc/alternatives"] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let text_path = root.path().join("script");
        std::fs::write(&text_path, format!("#!/bin/sh\n{script}\n")).unwrap();
        // Another process writes the file: a program that another test starts at this moment would inherit the file open for
        // writing, and the script could not be run.
        let mut install = Command::new("install");
        install.arg("--mode=755").arg(text_path).arg(root.path().join("etc/alternatives/smi"));
        assert!(install.status().unwrap().success());
        symlink("/etc/alternatives/smi", root.path().join("usr/bin/nvidia-smi")).unwrap();
        root
    }

    fn run(script: &str, timeout: Duration) -> (tempfile::TempDir, Result<Ended, ProgramError>) {
        let root = root(script);
        let program = DriverProgram::find(root.path(), "nvidia-smi", &[], None).unwrap();
        (root, program.run(&["-L"], timeout))
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn output_and_exit_code_are_returned() {
        let (root, ended) = run("echo out $1 $HOME; echo err >&2; exit 6", LONG);
        let ended = ended.unwrap();
        assert_eq!((ended.status.code(), ended.text.as_str()), (Some(6), "out -L\nerr\n"));
        let program = DriverProgram::find(root.path(), "nvidia-smi", &[], None).unwrap();
        let path = root.path().join("etc/alternatives/smi");
        let failed = format!("{} failed with exit status: 6 and printed `out -L err`", path.display());
        assert_eq!(program.failed(&ended).to_string(), failed);
    }

    #[test]
    fn long_output_does_not_block() {
        let (_root, ended) = run("i=0; while [ $i -lt 9000 ]; do echo 0123456789abcdef; i=$((i+1)); done", LONG);
        assert_eq!(ended.unwrap().text.len(), MAX_OUTPUT_BYTES);
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        for script in ["/bin/sleep 1000", "/bin/sleep 1000 & exec /bin/sleep 1000", "exec >&- 2>&-; /bin/sleep 1000"] {
            let mark = format!("{script}\n#");
            let (root, ended) = run(&mark, Duration::from_millis(200));
            let path = root.path().join("etc/alternatives/smi");
            assert_eq!(ended, Err(ProgramError::Hung { path, timeout: Duration::from_millis(200) }), "{script}");
        }
    }

    #[test]
    fn a_missing_file_is_named_with_the_directories_searched() {
        let root = root("");
        let error = |name, libraries: &[&str]| {
            dra_model::explain(&DriverProgram::find(root.path(), name, libraries, None).unwrap_err())
        };
        let below = format!("of the NVIDIA driver below {} in ", root.path().display());
        assert!(
            error("nvidia-cuda-mps-control", &[]).starts_with(&format!("no nvidia-cuda-mps-control {below}usr/bin, "))
        );
        assert!(error("nvidia-smi", &["libcuda.so.1"]).starts_with(&format!("no libcuda.so.1 {below}usr/lib64, ")));
        let nowhere = DriverProgram::find(Path::new("/nonexistent"), "nvidia-smi", &[], None).unwrap_err();
        assert!(nowhere.to_string().starts_with("failed to open the driver root /nonexistent: "), "{nowhere}");
    }

    /// A pipe whose first reads fail.
    struct Failing(PipeReader, Vec<io::ErrorKind>);

    impl Read for Failing {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1.pop().map_or_else(|| self.0.read(into), |kind| Err(kind.into()))
        }
    }

    impl AsFd for Failing {
        fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    #[test]
    fn an_interrupted_read_is_repeated_and_a_failed_read_is_returned() {
        for (faults, expect) in [
            (vec![io::ErrorKind::Interrupted, io::ErrorKind::Interrupted], Ok(Some("output".to_owned()))),
            (vec![io::ErrorKind::Other], Err(io::ErrorKind::Other)),
        ] {
            let (reader, mut writer) = io::pipe().unwrap();
            io::Write::write_all(&mut writer, b"output").unwrap();
            drop(writer);
            let text = text_until(Failing(reader, faults), Instant::now() + LONG);
            assert_eq!(text.map_err(|error| error.kind()), expect);
        }
    }

    #[test]
    fn a_file_that_cannot_be_executed_is_an_error() {
        let root = root("");
        std::fs::write(root.path().join("etc/alternatives/smi"), "not a program").unwrap();
        let program = DriverProgram::find(root.path(), "nvidia-smi", &[], None).unwrap();
        let error = program.run(&["-L"], LONG).unwrap_err().to_string();
        assert!(error.contains("etc/alternatives/smi: ") && error.starts_with("failed to run "), "{error}");
    }
}
