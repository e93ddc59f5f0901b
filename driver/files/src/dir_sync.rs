// SPDX-License-Identifier: Apache-2.0
//! Syncs of one directory, shared by callers that come together: a disk makes the names of eight files durable as fast as one.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::{Condvar, Mutex};

use crate::port::Files;

/// One directory.
#[derive(Debug)]
pub struct DirSync {
    dir: PathBuf,
    progress: Mutex<Progress>,
    ended: Condvar,
}

/// Callers are numbered in the order in which they come.
#[derive(Debug, Default)]
struct Progress {
    last_caller: u64,
    /// The changes of the callers up to this one are durable.
    synced: u64,
    is_running: bool,
}

impl DirSync {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), progress: Mutex::default(), ended: Condvar::new() }
    }

    /// Makes the renames and removals before this call survive a power cut. Waits for a sync that begins after this call, of this
    /// caller or of another. A failure is that of a sync of this caller.
    pub fn sync(&self, files: &dyn Files) -> io::Result<()> {
        let mut progress = self.progress.lock();
        progress.last_caller += 1;
        let caller = progress.last_caller;
        while progress.is_running && progress.synced < caller {
            self.ended.wait(&mut progress);
        }
        if progress.synced >= caller {
            return Ok(());
        }
        progress.is_running = true;
        let covered = progress.last_caller;
        drop(progress);
        let running = Running(self);
        files.sync_dir(&self.dir)?;
        running.0.progress.lock().synced = covered;
        Ok(())
    }
}

/// A sync that ends, also by a panic, so that no caller waits forever.
struct Running<'a>(&'a DirSync);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.progress.lock().is_running = false;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;

    use crate::port::{FileVersion, NewFile};

    use super::*;

    const CALLERS: usize = 8;

    /// A disk whose first sync waits until all callers have come, and whose first syncs fail.
    #[derive(Debug, Default)]
    struct Disk {
        sync: DirSyncOf,
        begun: AtomicUsize,
        failing: usize,
        is_syncing: AtomicBool,
    }

    #[derive(Debug)]
    struct DirSyncOf(DirSync);

    impl Default for DirSyncOf {
        fn default() -> Self {
            Self(DirSync::new(Path::new("/claims")))
        }
    }

    impl Disk {
        fn callers(&self) -> usize {
            self.sync.0.progress.lock().last_caller.try_into().unwrap()
        }
    }

    impl Files for Disk {
        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            assert_eq!(dir, Path::new("/claims"));
            assert!(!self.is_syncing.swap(true, Ordering::SeqCst), "one sync at a time");
            let number = self.begun.fetch_add(1, Ordering::SeqCst);
            while number == 0 && self.callers() < CALLERS {
                thread::yield_now();
            }
            self.is_syncing.store(false, Ordering::SeqCst);
            if number < self.failing { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        fn read(&self, _path: &Path, _limit: u64) -> io::Result<Option<Vec<u8>>> {
            unimplemented!()
        }

        fn version(&self, _path: &Path) -> io::Result<Option<FileVersion>> {
            unimplemented!()
        }

        fn list(&self, _dir: &Path) -> io::Result<Vec<String>> {
            unimplemented!()
        }

        fn make_dir(&self, _dir: &Path) -> io::Result<()> {
            unimplemented!()
        }

        fn write(&self, _path: &Path, _bytes: &[u8], _how: NewFile) -> io::Result<()> {
            unimplemented!()
        }

        fn append(&self, _path: &Path, _bytes: &[u8]) -> io::Result<()> {
            unimplemented!()
        }

        fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
            unimplemented!()
        }

        fn remove(&self, _path: &Path) -> io::Result<()> {
            unimplemented!()
        }
    }

    /// The outcomes of callers that come together, and how many syncs there were.
    fn together(failing: usize) -> (usize, usize) {
        let disk = Disk { failing, ..Disk::default() };
        let succeeded = thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(|| disk.sync.0.sync(&disk).is_ok())).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).filter(|is_ok| *is_ok).count()
        });
        (succeeded, disk.begun.load(Ordering::SeqCst))
    }

    #[test]
    fn callers_that_come_during_a_sync_share_the_next_one() {
        assert_eq!(together(0), (CALLERS, 2), "the first began before the others came");
    }

    #[test]
    fn a_failure_is_that_of_one_caller_and_the_next_one_syncs() {
        assert_eq!(together(1), (CALLERS - 1, 2));
        assert_eq!(together(CALLERS), (0, CALLERS));
    }

    #[test]
    fn a_later_caller_has_a_sync_of_its_own() {
        let disk = Disk { begun: AtomicUsize::new(1), ..Disk::default() };
        for syncs in 2..4 {
            disk.sync.0.sync(&disk).unwrap();
            assert_eq!(disk.begun.load(Ordering::SeqCst), syncs);
        }
    }
}
