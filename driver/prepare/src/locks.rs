// SPDX-License-Identifier: Apache-2.0
//! Locks that hold between threads and between the two plugin processes of a rolling upgrade.
//!
//! One file per lock, taken with flock(2), so that the kernel frees it when its holder dies. The file names its last
//! holder. That of a GPU stays until the next sweep, since making and removing files is what a journalling file system
//! does slowest. That of a claim is removed before it is freed; who opened it meanwhile notices that it is no longer the
//! file of that name and starts over. Waiting ends at a deadline. Take the claim first, then its GPUs in order, and
//! nothing can deadlock.
//!
//! What is taken away must be free of a disk that takes no new file: such calls keep each other out in memory.
//!
//! Files and folders of locks are root's alone: whoever can open a file can lock it and keep this driver waiting.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dra_files::make_private_dir;
use parking_lot::{Condvar, Mutex};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

/// How often a lock held by another process is tried; one held by this process is tried when it is freed.
const OTHER_PROCESS: Duration = Duration::from_millis(20);

const SUFFIX: &str = ".lock";

/// A folder of locks.
#[derive(Debug)]
pub struct Locks {
    dir: PathBuf,
    /// What this process holds or waits for another process to free, each with its holder.
    here: Mutex<BTreeMap<String, String>>,
    freed: Condvar,
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock<'a> {
    path: PathBuf,
    /// Closing it frees the lock for other processes. Absent where the disk takes no new file.
    file: Option<File>,
    /// Dropped last.
    _place: Place<'a>,
}

/// A lock whose file goes with it.
#[derive(Debug)]
pub struct Passing<'a>(Lock<'a>);

/// Whom a lock keeps out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Everybody: something new is promised under it.
    Everyone,
    /// Everybody, or where the disk takes no new file, so that nobody can promise anything new, the calls of this process.
    AtLeastHere,
}

/// A lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Held until the deadline.
    #[error("held {holder}")]
    Held {
        /// As the holder calls itself: `by …` or `for …`.
        holder: String,
    },
    /// The file could not be made or locked.
    #[error("unable to lock {}: free space and inodes in its folder and make it writable (will retry)", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Locks {
    /// In a folder that is made if it is missing and closed to other users if it is open to them.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        make_private_dir(&dir)?;
        Ok(Self { dir, here: Mutex::default(), freed: Condvar::new() })
    }

    /// Takes a lock in the name of `holder`, waiting until `deadline`.
    pub fn take(&self, name: &str, holder: &str, deadline: Instant, reach: Reach) -> Result<Lock<'_>, LockError> {
        let place = self.place(name, holder, deadline)?;
        let path = self.dir.join(format!("{name}{SUFFIX}"));
        let file = loop {
            match try_lock(&path, holder) {
                Ok(Some(file)) => break Some(file),
                Ok(None) if Instant::now() >= deadline => return Err(LockError::Held { holder: holder_of(&path) }),
                Ok(None) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    self.freed.wait_for(&mut self.here.lock(), left.min(OTHER_PROCESS));
                }
                Err(error) if reach == Reach::AtLeastHere && takes_no_file(&error) => break None,
                Err(source) => return Err(LockError::File { path, source }),
            }
        };
        Ok(Lock { path, file, _place: place })
    }

    /// Removes the files of locks that nobody holds: those of holders that died, and those that stay for the next call. One
    /// that cannot be removed keeps no other; the first error is told.
    pub fn sweep(&self) -> Result<(), LockError> {
        let failed = |source| LockError::File { path: self.dir.clone(), source };
        let mut outcome = Ok(());
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
            match self.take(name, "by the sweep of old locks", Instant::now(), Reach::Everyone) {
                Ok(lock) => drop(lock.passing()),
                // One that is held is not left over.
                Err(LockError::Held { .. }) => {}
                Err(error @ LockError::File { .. }) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    /// Removes the folder and all in it, when nobody will take a lock any more.
    pub fn remove(&self) -> Result<(), LockError> {
        self.sweep()?;
        std::fs::remove_dir(&self.dir).map_err(|source| LockError::File { path: self.dir.clone(), source })
    }

    /// The turn of one call of this process.
    fn place(&self, name: &str, holder: &str, deadline: Instant) -> Result<Place<'_>, LockError> {
        let mut here = self.here.lock();
        while let Some(holder) = here.get(name).cloned() {
            if self.freed.wait_until(&mut here, deadline).timed_out() && here.contains_key(name) {
                return Err(LockError::Held { holder });
            }
        }
        here.insert(name.to_owned(), holder.to_owned());
        Ok(Place { locks: self, name: name.to_owned() })
    }
}

/// A name that no other call of this process has meanwhile.
#[derive(Debug)]
struct Place<'a> {
    locks: &'a Locks,
    name: String,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.locks.here.lock().remove(&self.name);
        self.locks.freed.notify_all();
    }
}

impl<'a> Lock<'a> {
    /// The same for something that does not last.
    pub fn passing(self) -> Passing<'a> {
        Passing(self)
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        if self.0.file.is_some() {
            // A file that stays is not held by anybody and is removed by the next sweep.
            std::fs::remove_file(&self.0.path).ok();
        }
    }
}

/// The locked file, or nothing while someone else has it. No other user can open it.
pub fn try_lock(path: &Path, holder: &str) -> io::Result<Option<File>> {
    let file = open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if is_at(&file, path)? => {
            // The name is for people; on a full disk the lock has to work without it. The file is cut after the write:
            // ext4 flushes a file that was cut to nothing and written again when it is closed, which costs a disk access.
            let line = if holder.is_empty() { String::new() } else { format!("{holder}\n") };
            let len = u64::try_from(line.len()).map_err(io::Error::other)?;
            file.write_all_at(line.as_bytes(), 0).and_then(|()| file.set_len(len)).ok();
            Ok(Some(file))
        }
        Ok(()) | Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Made if it is not there. One that is there can be locked on a read-only disk as well.
fn open(path: &Path) -> io::Result<File> {
    let made = options()?.write(true).create(true).truncate(false).mode(0o600).open(path);
    match made {
        Err(error) if takes_no_file(&error) => options()?.open(path).map_err(|_absent| error),
        made => made,
    }
}

/// For reading, not through a symlink and without waiting for the other end of a pipe.
fn options() -> io::Result<OpenOptions> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(i32::try_from(flags.bits()).map_err(io::Error::other)?);
    Ok(options)
}

/// Whether the disk is full, out of inodes or read-only, so that other processes cannot make the file either.
fn takes_no_file(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::PermissionDenied
    )
}

/// Whether the file is still the one of that name.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What lies behind the first line is of an earlier holder.
fn holder_of(path: &Path) -> String {
    let mut text = String::new();
    let read =
        options().and_then(|options| options.open(path)).and_then(|file| file.take(300).read_to_string(&mut text));
    match (read, text.lines().next()) {
        (Ok(_), Some(holder)) if !holder.is_empty() => holder.to_owned(),
        (Ok(_) | Err(_), _) => "by someone who has just begun".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn a_held_lock_names_its_holder_and_leaves_a_file_only_for_what_lasts() {
        let dir = tempfile::tempdir().unwrap();
        let [ours, theirs] = [(); 2].map(|()| Locks::open(dir.path().to_owned()).unwrap());
        let held = ours.take("gpu-1", "for claim ns/a", soon(), Reach::Everyone).unwrap();
        let refused = theirs.take("gpu-1", "claim ns/b", Instant::now(), Reach::Everyone).unwrap_err();
        assert_eq!(refused.to_string(), "held for claim ns/a");
        // As before the rest of a longer name is cut off.
        std::fs::write(dir.path().join("gpu-1.lock"), "for claim ns/a\nan-earlier-one").unwrap();
        let refused = theirs.take("gpu-1", "claim ns/b", Instant::now(), Reach::Everyone).unwrap_err();
        assert_eq!(refused.to_string(), "held for claim ns/a");
        theirs.sweep().unwrap();
        assert!(
            theirs.take("gpu-1", "claim ns/b", Instant::now(), Reach::Everyone).is_err(),
            "a sweep leaves held locks alone"
        );
        drop(held);
        drop(theirs.take("gpu-1", "claim ns/b", Instant::now(), Reach::Everyone).unwrap());
        drop(theirs.take("claim-1", "by another call", Instant::now(), Reach::Everyone).unwrap().passing());
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["gpu-1.lock"]);
    }

    #[test]
    fn only_one_at_a_time_whether_in_this_process_or_in_another() {
        let dir = tempfile::tempdir().unwrap();
        let processes = [(); 2].map(|()| Locks::open(dir.path().to_owned()).unwrap());
        let (inside, turns) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for at in 0..8 {
                let (locks, inside, turns) = (&processes[at % 2], &inside, &turns);
                scope.spawn(move || {
                    for _ in 0..20 {
                        let held = locks.take("gpu-1", "someone", soon(), Reach::Everyone).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        turns.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(turns.load(Ordering::SeqCst), 160);
    }

    #[test]
    fn the_file_of_a_dead_holder_is_no_obstacle_and_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("claim-1.lock"), "claim ns/dead").unwrap();
        let locks = Locks::open(dir.path().to_owned()).unwrap();
        drop(locks.take("claim-1", "claim ns/a", Instant::now(), Reach::Everyone).unwrap().passing());
        std::fs::write(dir.path().join("claim-2.lock"), "claim ns/dead").unwrap();
        locks.sweep().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_gone_is_an_error_with_its_path() {
        let dir = tempfile::tempdir().unwrap().path().join("locks");
        let locks = Locks::open(dir.clone()).unwrap();
        std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
        let error = locks.take("x", "me", soon(), Reach::Everyone).unwrap_err();
        let path = dir.join("x.lock").display().to_string();
        assert_eq!(
            error.to_string(),
            format!("unable to lock {path}: free space and inodes in its folder and make it writable (will retry)")
        );
    }

    #[test]
    fn no_other_user_can_open_a_lock_or_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        // One that an earlier version made, and a new one.
        std::fs::create_dir(dir.path().join("old")).unwrap();
        std::fs::set_permissions(dir.path().join("old"), Permissions::from_mode(0o755)).unwrap();
        for name in ["old", "run/new"] {
            let path = dir.path().join(name);
            let locks = Locks::open(path.clone()).unwrap();
            drop(locks.take("gpu-1", "me", soon(), Reach::Everyone).unwrap());
            assert_eq!((mode(&path), mode(&path.join("gpu-1.lock"))), (0o700, 0o600), "{name}");
        }
    }
}
