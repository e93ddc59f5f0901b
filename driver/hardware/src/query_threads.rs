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
#[derive(Debug, Default)]
pub(crate) struct QueryThreads(Arc<Mutex<Vec<SyncSender<Query>>>>);

impl QueryThreads {
    /// Runs a query on a thread of its own.
    pub(crate) fn run(&self, query: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut query: Query = Box::new(query);
        loop {
            let Some(thread) = self.0.lock().pop() else { return self.start(query) };
            match thread.send(query) {
                Ok(()) => return Ok(()),
                Err(SendError(unsent)) => query = unsent,
            }
        }
    }

    fn start(&self, query: Query) -> io::Result<()> {
        let waiting = Arc::clone(&self.0);
        let work = move || {
            let mut query = query;
            loop {
                query();
                // Without a buffer: a thread that ends has not accepted a query.
                let (sender, receiver) = sync_channel(0);
                waiting.lock().push(sender);
                match receiver.recv_timeout(IDLE_TIME) {
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
    fn a_thread_is_used_again_and_ends_when_there_is_nothing_to_do() {
        let threads = QueryThreads::default();
        let first = thread_of_a_query(&threads);
        for _ in 0..3 {
            while threads.0.lock().is_empty() {
                thread::yield_now();
            }
            assert_eq!(thread_of_a_query(&threads), first);
        }
        while Arc::strong_count(&threads.0) > 1 {
            thread::yield_now();
        }
        assert_ne!(thread_of_a_query(&threads), first);
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
