// SPDX-License-Identifier: Apache-2.0
//! Locks that hold between the threads of this process and between the plugin processes of a rolling upgrade.
//!
//! One file per lock, see `dra_files::lock_file`. The file of a GPU stays until the next sweep, because creating and removing
//! files is the slowest operation of a journalling file system. The file of a claim is removed before the lock is released;
//! a process that opened it meanwhile notices that the path leads to another file and starts over. Waiting ends at a
//! deadline. Every call takes the claim first and then its GPUs in order, so calls cannot deadlock.
//!
//! Unprepare works on a disk that takes no new file: there its locks hold between the calls of this process only.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dra_files::{lock_holder, make_private_dir, takes_no_file, try_lock};

use crate::state::lock_queue::{Entry, LockQueues};

/// How often a lock held by another process is tried.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

const SUFFIX: &str = ".lock";

/// A directory of locks.
#[derive(Debug)]
pub struct Locks {
    dir: PathBuf,
    /// The locks that this process holds or waits to get from another process.
    here: LockQueues,
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock<'a> {
    path: PathBuf,
    /// Closing the file releases the lock for other processes. Absent where the disk takes no new file.
    file: Option<File>,
    /// Dropped last.
    _entry: Entry<'a>,
}

/// A lock whose file is removed when it is released.
#[derive(Debug)]
pub struct EphemeralLock<'a>(Lock<'a>);

/// What a lock guarantees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// No other instance holds the lock. Needed to reserve devices.
    AllInstances,
    /// As `AllInstances`; where the disk takes no new file, so that no instance can reserve devices, no other call of this
    /// process holds the lock.
    ProcessOnly,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Held until the deadline.
    #[error("held by {holder}")]
    Held { holder: String },
    #[error("failed to lock {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Locks {
    /// Creates the directory if it is missing and closes it to other users.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        make_private_dir(&dir)?;
        Ok(Self { dir, here: LockQueues::default() })
    }

    /// Takes a lock in the name of `holder`, waiting until `deadline`.
    pub fn take(
        &self,
        name: &str,
        holder: &str,
        deadline: Instant,
        guarantee: Guarantee,
    ) -> Result<Lock<'_>, LockError> {
        let entry = self.here.take(name, holder, deadline).map_err(|holder| LockError::Held { holder })?;
        let path = self.dir.join(format!("{name}{SUFFIX}"));
        let file = loop {
            match try_lock(&path, holder) {
                Ok(Some(file)) => break Some(file),
                Ok(None) if Instant::now() >= deadline => {
                    let holder = lock_holder(&path).unwrap_or_else(|| "another process".to_owned());
                    return Err(LockError::Held { holder });
                }
                Ok(None) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    wait_for_another_process(left.min(RETRY_INTERVAL));
                }
                Err(error) if guarantee == Guarantee::ProcessOnly && takes_no_file(&error) => break None,
                Err(source) => return Err(LockError::File { path, source }),
            }
        };
        Ok(Lock { path, file, _entry: entry })
    }

    /// Removes the files of locks that no call holds. Continues past failures and returns the first.
    pub fn sweep(&self) -> Result<(), LockError> {
        let failed = |source| LockError::File { path: self.dir.clone(), source };
        let mut outcome = Ok(());
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
            match self.take(name, "the removal of unused lock files", Instant::now(), Guarantee::AllInstances) {
                Ok(lock) => drop(lock.ephemeral()),
                Err(LockError::Held { .. }) => {}
                Err(error @ LockError::File { .. }) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    /// Removes the directory, when no call will take a lock any more.
    pub fn remove(&self) -> Result<(), LockError> {
        self.sweep()?;
        std::fs::remove_dir(&self.dir).map_err(|source| LockError::File { path: self.dir.clone(), source })
    }
}

#[expect(clippy::disallowed_methods, reason = "a process gives no notice when it releases a lock")]
fn wait_for_another_process(time: Duration) {
    std::thread::sleep(time);
}

impl<'a> Lock<'a> {
    /// The lock of an object that does not last, such as a claim.
    pub fn ephemeral(self) -> EphemeralLock<'a> {
        EphemeralLock(self)
    }
}

impl Drop for EphemeralLock<'_> {
    fn drop(&mut self) {
        if self.0.file.is_some() {
            // A file that cannot be removed is not locked any more, and the next sweep removes it.
            std::fs::remove_file(&self.0.path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn a_held_lock_names_its_holder_and_leaves_a_file_only_where_it_is_not_ephemeral() {
        let dir = tempfile::tempdir().unwrap();
        let [ours, theirs] = [(); 2].map(|()| Locks::open(dir.path().to_owned()).unwrap());
        let held = ours.take("gpu-1", "claim ns/a", soon(), Guarantee::AllInstances).unwrap();
        let refused = theirs.take("gpu-1", "claim ns/b", Instant::now(), Guarantee::AllInstances).unwrap_err();
        assert_eq!(refused.to_string(), "held by claim ns/a");
        // The rest of a longer earlier name is ignored.
        std::fs::write(dir.path().join("gpu-1.lock"), "claim ns/a\nan-earlier-one").unwrap();
        let refused = theirs.take("gpu-1", "claim ns/b", Instant::now(), Guarantee::AllInstances).unwrap_err();
        assert_eq!(refused.to_string(), "held by claim ns/a");
        theirs.sweep().unwrap();
        assert!(
            theirs.take("gpu-1", "claim ns/b", Instant::now(), Guarantee::AllInstances).is_err(),
            "a sweep leaves held locks alone"
        );
        drop(held);
        drop(theirs.take("gpu-1", "claim ns/b", Instant::now(), Guarantee::AllInstances).unwrap());
        drop(
            theirs
                .take("claim-1", "another call of the kubelet", Instant::now(), Guarantee::AllInstances)
                .unwrap()
                .ephemeral(),
        );
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["gpu-1.lock"]);
    }

    #[test]
    fn only_one_at_a_time_whether_in_this_process_or_in_another() {
        let dir = tempfile::tempdir().unwrap();
        let processes = [(); 2].map(|()| Locks::open(dir.path().to_owned()).unwrap());
        let (inside, taken) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for at in 0..8 {
                let (locks, inside, taken) = (&processes[at % 2], &inside, &taken);
                scope.spawn(move || {
                    for _ in 0..20 {
                        let held = locks.take("gpu-1", "a thread", soon(), Guarantee::AllInstances).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        taken.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(taken.load(Ordering::SeqCst), 160);
    }

    #[test]
    fn the_file_of_a_dead_holder_does_not_hold_the_lock_and_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("claim-1.lock"), "claim ns/dead").unwrap();
        let locks = Locks::open(dir.path().to_owned()).unwrap();
        drop(locks.take("claim-1", "claim ns/a", Instant::now(), Guarantee::AllInstances).unwrap().ephemeral());
        std::fs::write(dir.path().join("claim-2.lock"), "claim ns/dead").unwrap();
        locks.sweep().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_directory_is_an_error_with_its_path() {
        let dir = tempfile::tempdir().unwrap().path().join("locks");
        let locks = Locks::open(dir.clone()).unwrap();
        std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
        let error = locks.take("x", "me", soon(), Guarantee::AllInstances).unwrap_err();
        let path = dir.join("x.lock").display().to_string();
        assert_eq!(error.to_string(), format!("failed to lock {path}"));
    }

    #[test]
    fn no_other_user_can_open_a_lock_or_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        // A directory of an earlier version, and a new one.
        std::fs::create_dir(dir.path().join("old")).unwrap();
        std::fs::set_permissions(dir.path().join("old"), Permissions::from_mode(0o755)).unwrap();
        for name in ["old", "run/new"] {
            let path = dir.path().join(name);
            let locks = Locks::open(path.clone()).unwrap();
            drop(locks.take("gpu-1", "me", soon(), Guarantee::AllInstances).unwrap());
            assert_eq!((mode(&path), mode(&path.join("gpu-1.lock"))), (0o700, 0o600), "{name}");
        }
    }
}
