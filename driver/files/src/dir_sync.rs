// SPDX-License-Identifier: Apache-2.0
//! Syncs of one directory, shared by callers that come together: a disk makes the names of eight files durable as fast as one.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::{Condvar, Mutex};

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
    pub fn sync(&self, sync_dir: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
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
        sync_dir(&self.dir)?;
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

    use super::*;

    const CALLERS: usize = 8;

    /// A disk whose first sync waits until all callers have come, and whose first syncs fail.
    struct Disk {
        claims: DirSync,
        begun: AtomicUsize,
        failing: usize,
        is_syncing: AtomicBool,
    }

    impl Disk {
        fn new(begun: usize, failing: usize) -> Self {
            let claims = DirSync::new(Path::new("/claims"));
            Self { claims, begun: AtomicUsize::new(begun), failing, is_syncing: AtomicBool::new(false) }
        }

        fn callers(&self) -> usize {
            self.claims.progress.lock().last_caller.try_into().unwrap()
        }

        fn sync(&self) -> io::Result<()> {
            self.claims.sync(|dir| self.sync_dir(dir))
        }

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
    }

    /// The outcomes of callers that come together, and how many syncs there were.
    fn together(failing: usize) -> (usize, usize) {
        let disk = Disk::new(0, failing);
        let succeeded = thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(|| disk.sync().is_ok())).collect();
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
        let disk = Disk::new(1, 0);
        for syncs in 2..4 {
            disk.sync().unwrap();
            assert_eq!(disk.begun.load(Ordering::SeqCst), syncs);
        }
    }
}
