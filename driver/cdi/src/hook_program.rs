// SPDX-License-Identifier: Apache-2.0
//! The hook program on the host, where container runtimes start it: a copy of the one in the image of this driver.
//!
//! A copy has the checksum of its content in its name and is never changed, so that a runtime which has read a spec finds the
//! program that the spec names. It is compared at each use, because without it no container of a spec that names it starts.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crc::{CRC_64_XZ, Crc};
use dra_files::{FileVersion, Files, NewFile, TEMP_SUFFIX};
use dra_model::Advice;
use parking_lot::Mutex;

/// Every user may execute it: in a user namespace a runtime starts hooks as a mapped one.
const PROGRAM_FILE: NewFile = NewFile { mode: 0o755, durable: true };

const PREFIX: &str = "gpu-cdi-hook-";

/// The program has less than 1 MiB.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A full disk or a directory that forbids execution stays so for a while, and to try takes a megabyte to read and write.
const RETRY_INTERVAL: Duration = Duration::from_mins(1);

const CHECKSUM: Crc<u64> = Crc::<u64>::new(&CRC_64_XZ);

/// Where the program comes from and goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookSettings {
    /// In the image of this driver.
    pub program: PathBuf,
    /// On the host, at the same path in the mount namespace of this process.
    pub dir: PathBuf,
    /// Of this process, unique on the node: two instances may install at the same time.
    pub instance: String,
}

/// The copies of the program in a directory of the host.
#[derive(Debug)]
pub struct HookProgram {
    files: Arc<dyn Files>,
    settings: HookSettings,
    installed: Mutex<Option<Installed>>,
    /// When [`HookProgram::usable`] failed last.
    failed: Mutex<Option<Instant>>,
    /// Copies that no spec named when [`HookProgram::remove_unused`] looked last.
    unused: Mutex<BTreeSet<PathBuf>>,
}

#[derive(Debug)]
struct Installed {
    path: PathBuf,
    /// Unknown if the file was changed just now.
    version: Option<FileVersion>,
}

/// The hook program cannot be used, or an unused copy is left.
#[derive(Debug, thiserror::Error)]
pub enum HookProgramError {
    #[error("the image of this driver has no program {}", path.display())]
    Absent { path: PathBuf },
    #[error("failed to read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to start {}", path.display())]
    Start {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} fails on this node: {status}", path.display())]
    Fails { path: PathBuf, status: ExitStatus },
    #[error("failed to list {}", path.display())]
    List {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to remove {}", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Advice for HookProgramError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Absent { .. } => Some("build the image with gpu-cdi-hook, or set cdiHook.enabled=false".into()),
            Self::Read { .. } | Self::List { .. } => Some("make it readable".into()),
            Self::Write { .. } => Some("free space there, or set cdiHook.directory to a writable directory".into()),
            Self::Start { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("set cdiHook.directory to a directory whose file system is not mounted with noexec".into())
            }
            Self::Start { .. } | Self::Fails { .. } => {
                Some("check that the image is for the architecture of the node".into())
            }
            Self::Remove { .. } => Some("make its directory writable".into()),
        }
    }
}

impl HookProgram {
    pub fn new(files: Arc<dyn Files>, settings: HookSettings) -> Self {
        Self { files, settings, installed: Mutex::default(), failed: Mutex::default(), unused: Mutex::default() }
    }

    /// The path of a copy that works on this node. It is made where it is missing or differs.
    pub fn ensure(&self) -> Result<PathBuf, HookProgramError> {
        let mut installed = self.installed.lock();
        if let Some(Installed { path, version: Some(version) }) = installed.as_ref()
            && self.files.version(path).is_ok_and(|now| now == Some(*version))
        {
            return Ok(path.clone());
        }
        *installed = None;
        let path = self.install()?;
        let version = self.files.version(&path).unwrap_or_default();
        *installed = Some(Installed { path: path.clone(), version });
        *self.failed.lock() = None;
        Ok(path)
    }

    /// An equal copy that does not work is made again: its mode may have been changed.
    fn install(&self) -> Result<PathBuf, HookProgramError> {
        let (path, bytes) = self.wanted()?;
        if self.read(&path).is_ok_and(|there| there.as_ref() == Some(&bytes)) && start(&path).is_ok() {
            return Ok(path);
        }
        self.write(&path, &bytes)?;
        start(&path)?;
        Ok(path)
    }

    /// As [`HookProgram::ensure`], for a caller that waits: after a failure nothing is tried for a minute.
    pub fn usable(&self) -> Option<PathBuf> {
        let failed = *self.failed.lock();
        if failed.is_some_and(|failed| failed.elapsed() < RETRY_INTERVAL) {
            return None;
        }
        let ensured = self.ensure().ok();
        if ensured.is_none() {
            *self.failed.lock() = Some(Instant::now());
        }
        ensured
    }

    /// Whether the copy that was used last is no longer there.
    pub fn is_gone(&self) -> bool {
        self.installed.lock().as_ref().is_some_and(|installed| !installed.path.exists())
    }

    /// Makes copies that are missing again, of which these paths are in specs. A spec of a driver version that is not loaded is
    /// not rendered again, so it names an earlier version of the program; this one does what that one did.
    pub fn restore(&self, named: &BTreeSet<PathBuf>) -> Result<(), HookProgramError> {
        let own = |path: &&PathBuf| path.parent() == Some(&self.settings.dir) && !path.exists();
        let missing: Vec<&PathBuf> = named.iter().filter(own).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (_, bytes) = self.wanted()?;
        missing.into_iter().try_for_each(|path| self.write(path, &bytes))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), HookProgramError> {
        let write = || dra_files::replace(&*self.files, path, bytes, &self.settings.instance, PROGRAM_FILE);
        let written = self.files.make_dir(&self.settings.dir).and_then(|()| write());
        written.map_err(|source| HookProgramError::Write { path: path.to_owned(), source })
    }

    /// Where [`HookProgram::ensure`] installs the program.
    pub fn path(&self) -> Result<PathBuf, HookProgramError> {
        self.wanted().map(|(path, _)| path)
    }

    fn wanted(&self) -> Result<(PathBuf, Vec<u8>), HookProgramError> {
        let program = &self.settings.program;
        let bytes = self.read(program)?.ok_or_else(|| HookProgramError::Absent { path: program.clone() })?;
        let name = format!("{PREFIX}{}-{:016x}", env!("CARGO_PKG_VERSION"), CHECKSUM.checksum(&bytes));
        Ok((self.settings.dir.join(name), bytes))
    }

    /// Removes copies that no spec names: `named` are the paths in the specs. A copy is removed by the second call in a row that
    /// finds it unused, because a runtime may have read a spec that was replaced just now.
    pub fn remove_unused(&self, named: &BTreeSet<PathBuf>) -> Result<Vec<PathBuf>, HookProgramError> {
        let own = self.installed.lock().as_ref().map(|installed| installed.path.clone());
        let is_unused = |path: &PathBuf| !named.contains(path) && own.as_ref() != Some(path);
        let unused: BTreeSet<PathBuf> = self.copies()?.into_iter().filter(is_unused).collect();
        let mut before = self.unused.lock();
        let removed: Vec<PathBuf> = unused.intersection(&before).cloned().collect();
        *before = unused;
        removed.iter().try_for_each(|path| self.remove(path))?;
        Ok(removed)
    }

    /// Removes all copies, where no container will start with one.
    pub fn remove_all(&self) -> Result<(), HookProgramError> {
        *self.installed.lock() = None;
        self.copies()?.iter().try_for_each(|path| self.remove(path))
    }

    /// Temporary files of writes that were cut are among them.
    fn copies(&self) -> Result<Vec<PathBuf>, HookProgramError> {
        let dir = &self.settings.dir;
        let names = self.files.list(dir).map_err(|source| HookProgramError::List { path: dir.clone(), source })?;
        let is_copy = |name: &str| {
            let unfinished = name.strip_prefix('.').and_then(|name| name.strip_suffix(TEMP_SUFFIX));
            unfinished.unwrap_or(name).starts_with(PREFIX)
        };
        Ok(names.iter().filter(|name| is_copy(name)).map(|name| dir.join(name)).collect())
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, HookProgramError> {
        self.files.read(path, MAX_BYTES).map_err(|source| HookProgramError::Read { path: path.to_owned(), source })
    }

    fn remove(&self, path: &Path) -> Result<(), HookProgramError> {
        self.files.remove(path).map_err(|source| HookProgramError::Remove { path: path.to_owned(), source })
    }
}

/// Starts the program as a runtime does, but without a container, which it reports and which is no failure.
fn start(path: &Path) -> Result<(), HookProgramError> {
    let mut command = Command::new(path);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(HookProgramError::Fails { path: path.to_owned(), status }),
        // Another thread started a process while the copy was open for writing, which inherits it until its own start.
        Err(source) if source.kind() == io::ErrorKind::ExecutableFileBusy => Ok(()),
        Err(source) => Err(HookProgramError::Start { path: path.to_owned(), source }),
    }
}
