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
        while events.next().is_ok() {}
    }
}

fn sleep(delay: Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "other processes signal changes through the file only; NVML blocks here too"
    )]
    std::thread::sleep(delay);
}
