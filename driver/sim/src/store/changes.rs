// SPDX-License-Identifier: Apache-2.0
//! Waits for a change of the shared state, as a driver blocks in the kernel until a GPU has an event.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

/// A wait where the kernel has no more inotify instances for this user (`fs.inotify.max_user_instances`, 128 by default).
const POLL: Duration = Duration::from_millis(50);

/// The changes of the state from now on.
#[derive(Debug)]
pub struct Changes {
    queue: Option<OwnedFd>,
}

impl Changes {
    pub(super) fn of(dir: &Path) -> Self {
        let queue = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).ok();
        let is_watched = |queue: &OwnedFd| inotify::add_watch(queue, dir, inotify::WatchFlags::MOVED_TO).is_ok();
        Self { queue: queue.filter(is_watched) }
    }

    /// Returns after the next change, at the latest after the timeout. It may return without a change.
    pub fn wait(&mut self, timeout: Duration) {
        let Some(queue) = &self.queue else { return sleep(timeout.min(POLL)) };
        let timeout = Timespec::try_from(timeout).ok();
        poll(&mut [PollFd::new(queue, PollFlags::IN)], timeout.as_ref()).ok();
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(queue, &mut space);
        let mut is_watched = true;
        while let Ok(event) = events.next() {
            is_watched &= !event.events().contains(inotify::ReadFlags::IGNORED);
        }
        if !is_watched {
            self.queue = None;
        }
    }

    /// Whether the kernel reports the changes. The removal of the directory ends that.
    pub fn are_reported(&self) -> bool {
        self.queue.is_some()
    }
}

fn sleep(delay: Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "other processes signal changes through the file only; NVML blocks here too"
    )]
    std::thread::sleep(delay);
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_change_ends_the_wait_and_the_end_of_the_directory_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        std::fs::create_dir(&dir).unwrap();
        let mut changes = Changes::of(&dir);
        for _ in 0..2 {
            std::fs::write(root.path().join("new"), "").unwrap();
            std::fs::rename(root.path().join("new"), dir.join("state.json")).unwrap();
            changes.wait(HOUR);
            assert!(changes.are_reported());
        }
        std::fs::remove_dir_all(&dir).unwrap();
        changes.wait(HOUR);
        assert!(!changes.are_reported());
    }
}
