// SPDX-License-Identifier: Apache-2.0
//! Threads for queries that may hang. A thread that has finished a query waits a moment for the next one: on busy cores a new
//! thread starts later than one that waits.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SendError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

/// Enough for a burst of claims. Idle threads use memory.
const IDLE_TIME: Duration = Duration::from_millis(500);

type Query = Box<dyn FnOnce() + Send>;

/// The threads that wait for a query. One that ended stays until the next query finds it.
#[derive(Debug)]
pub(crate) struct QueryThreads {
    waiting: Arc<Mutex<Vec<SyncSender<Query>>>>,
    idle_time: Duration,
}

impl Default for QueryThreads {
    fn default() -> Self {
        Self::of(IDLE_TIME)
    }
}

impl QueryThreads {
    fn of(idle_time: Duration) -> Self {
        Self { waiting: Arc::default(), idle_time }
    }

    /// Runs a query on a thread that does nothing else meanwhile.
    pub(crate) fn run(&self, query: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut query: Query = Box::new(query);
        loop {
            let Some(thread) = self.waiting.lock().pop() else { return self.start(query) };
            match thread.send(query) {
                Ok(()) => return Ok(()),
                Err(SendError(unsent)) => query = unsent,
            }
        }
    }

    fn start(&self, query: Query) -> io::Result<()> {
        let (waiting, idle_time) = (Arc::clone(&self.waiting), self.idle_time);
        let work = move || {
            let mut query = query;
            loop {
                query();
                // Without a buffer: a thread that ends has not accepted a query.
                let (sender, receiver) = sync_channel(0);
                waiting.lock().push(sender);
                match receiver.recv_timeout(idle_time) {
                    Ok(next) => query = next,
                    Err(_nothing_to_do) => return,
                }
            }
        };
        thread::Builder::new().name("nvml".to_owned()).spawn(work).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread::ThreadId;

    use super::*;

    /// The thread that a query ran on.
    fn thread_of_a_query(threads: &QueryThreads) -> ThreadId {
        let (sender, receiver) = channel();
        threads.run(move || sender.send(thread::current().id()).unwrap()).unwrap();
        receiver.recv().unwrap()
    }

    #[test]
    fn a_thread_is_used_again() {
        let threads = QueryThreads::of(Duration::from_mins(1));
        let first = thread_of_a_query(&threads);
        for _ in 0..3 {
            while threads.waiting.lock().is_empty() {
                thread::yield_now();
            }
            assert_eq!(thread_of_a_query(&threads), first);
        }
    }

    #[test]
    fn a_thread_without_a_query_ends_and_another_is_started() {
        let threads = QueryThreads::of(Duration::from_millis(1));
        let first = thread_of_a_query(&threads);
        while Arc::strong_count(&threads.waiting) > 1 {
            thread::yield_now();
        }
        assert_ne!(thread_of_a_query(&threads), first);
        assert!(threads.waiting.lock().len() <= 1, "the one that ended is not remembered");
    }

    #[test]
    fn a_query_that_hangs_delays_no_other() {
        let threads = QueryThreads::default();
        let (resume, resumed) = channel::<()>();
        let (sender, ended) = channel();
        threads.run(move || sender.send(resumed.recv()).unwrap()).unwrap();
        let other = thread_of_a_query(&threads);
        resume.send(()).unwrap();
        ended.recv().unwrap().unwrap();
        assert_ne!(other, thread::current().id());
    }
}
