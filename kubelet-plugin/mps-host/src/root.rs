// SPDX-License-Identifier: Apache-2.0
//! The directory of all daemons, locked by one process at a time.
//!
//! No other user of the machine can enter it. Containers and daemons reach the directories of a daemon below it by mounts: see
//! [`crate::child`].

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dra_files::{make_private_dir, try_lock};
use dra_model::{Advice, DaemonId};
use dra_mps_api::is_ours;
use dra_serve::remove_if_there;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

/// Interval of the attempts to take the lock.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// The locked file in the root.
const LOCK_FILE: &str = "host.lock";

/// A root directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("failed to use {} as root directory", path.display())]
    Use {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Two MPS hosts would terminate each other's daemons.
    #[error("another MPS host still used {} after {timeout:?}", path.display())]
    Locked { path: PathBuf, timeout: Duration },
}

impl Advice for RootError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Use { .. } => Some("make --root a directory that this process can write".into()),
            Self::Locked { .. } => Some("wait until its pod terminates, or choose another --root".into()),
        }
    }
}

/// The directory of all daemons, locked until this is dropped.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    /// Closed in the child process that becomes a daemon.
    _lock: File,
    /// Locked too where that is possible, for an MPS host of an earlier version.
    _dir: File,
}

impl Root {
    /// Makes the directory if it is missing, and waits for the lock: while a pod is replaced, the old one may still terminate
    /// its daemons.
    pub async fn lock(path: &Path, timeout: Duration) -> Result<Self, RootError> {
        let failed = |source| RootError::Use { path: path.to_owned(), source };
        make_private_dir(path).map_err(failed)?;
        let dir = File::open(path).map_err(failed)?;
        let (lock_path, end) = (path.join(LOCK_FILE), Instant::now() + timeout);
        let lock = attempt_until(end, path, || try_lock(&lock_path, "")).await.map_err(failed)?;
        let Some(lock) = lock else { return Err(RootError::Locked { path: path.to_owned(), timeout }) };
        // An MPS host of an earlier version locks the directory. So can a process that opened it before its mode was 0700.
        if attempt_until(end, path, || lock_dir(&dir)).await.map_err(failed)?.is_none() {
            warn!(root = %path.display(), "another process than an MPS host locks the root directory, continuing without that lock");
        }
        Ok(Self { path: path.to_owned(), _lock: lock, _dir: dir })
    }

    /// Removes the lock file, for an uninstall.
    pub fn remove_lock(self) {
        remove_if_there(&self.path.join(LOCK_FILE));
    }

    /// The daemons with a directory here. Other entries do not belong to this driver.
    pub fn daemons(&self) -> io::Result<Vec<DaemonId>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok()).filter(is_ours);
            if entry.file_type()?.is_dir() {
                found.extend(id);
            }
        }
        Ok(found)
    }
}

/// Repeats an attempt until it succeeds, fails, or the time is over.
async fn attempt_until<T>(
    end: Instant,
    root: &Path,
    mut attempt: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let mut is_logged = false;
    loop {
        if let Some(value) = attempt()? {
            return Ok(Some(value));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        if !std::mem::replace(&mut is_logged, true) {
            info!(root = %root.display(), "waiting for another MPS host to end");
        }
        sleep(LOCK_INTERVAL).await;
    }
}

fn lock_dir(dir: &File) -> io::Result<Option<()>> {
    match flock(dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(())),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const GPU: &str = "gpu-00112233445566778899aabbccddeeff";
    const CLAIM: &str = "claim-3f1b2c4d-0000-4000-8000-123456789abc-0";

    #[tokio::test]
    async fn only_directories_named_like_our_daemons_are_ours() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::lock(&dir.path().join("mps"), Duration::ZERO).await.unwrap();
        for name in [GPU, CLAIM, "backups", "gpu-0", "gpu-zz112233445566778899aabbccddeeff", "claim-x", "claim-x-y"] {
            fs::create_dir(root.path.join(name)).unwrap();
        }
        fs::write(root.path.join("claim-y-0"), "").unwrap();
        let mut found = root.daemons().unwrap();
        found.sort();
        assert_eq!(found.iter().map(DaemonId::as_str).collect::<Vec<_>>(), [CLAIM, GPU]);
    }

    #[tokio::test]
    async fn two_hosts_do_not_share_a_root() {
        let dir = tempfile::tempdir().unwrap();
        let first = Root::lock(dir.path(), Duration::ZERO).await.unwrap();
        let second = Root::lock(dir.path(), LOCK_INTERVAL / 2).await;
        assert!(matches!(second, Err(RootError::Locked { .. })), "{second:?}");
        drop(first);
        Root::lock(dir.path(), Duration::ZERO).await.unwrap().remove_lock();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn only_root_can_lock_a_root_and_a_lock_of_the_directory_does_not_block_a_host() {
        let dir = tempfile::tempdir().unwrap();
        let other = File::open(dir.path()).unwrap();
        flock(&other, FlockOperation::LockShared).unwrap();
        let _root = Root::lock(dir.path(), LOCK_INTERVAL / 2).await.unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(dir.path().to_owned()), mode(dir.path().join(LOCK_FILE))), (0o700, 0o600));
    }
}
