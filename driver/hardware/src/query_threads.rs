// SPDX-License-Identifier: Apache-2.0
//! Threads for queries that may hang: as many as there are processor cores, and one more whenever all of them are busy for long.
//!
//! A query takes less time than the start of a thread, so a burst of claims waits for the threads that there are. A thread that
//! has finished a query waits a moment for the next one.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Enough for a burst of claims. Idle threads use memory.
const IDLE_TIME: Duration = Duration::from_millis(500);

/// How long a query waits for a thread. A thread that is busy for longer may hang.
const MAX_WAIT: Duration = Duration::from_millis(5);

type Query = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
pub(crate) struct QueryThreads {
    shared: Arc<Shared>,
    /// Threads that are started without a wait.
    cores: usize,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// A query came.
    came: Condvar,
    /// A thread has accepted a query.
    accepted: Condvar,
    idle_time: Duration,
    max_wait: Duration,
}

#[derive(Default)]
struct State {
    /// Numbered in the order in which they came.
    waiting: VecDeque<(u64, Query)>,
    last: u64,
    threads: usize,
    idle: usize,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { waiting, threads, idle, last: _ } = self;
        f.debug_struct("State").field("waiting", &waiting.len()).field("threads", threads).field("idle", idle).finish()
    }
}

impl Default for QueryThreads {
    fn default() -> Self {
        Self::of(available_parallelism().map_or(1, usize::from), IDLE_TIME, MAX_WAIT)
    }
}

impl QueryThreads {
    fn of(cores: usize, idle_time: Duration, max_wait: Duration) -> Self {
        let (state, came, accepted) = Default::default();
        let shared = Shared { state, came, accepted, idle_time, max_wait };
        Self { shared: Arc::new(shared), cores }
    }

    /// Runs a query on a thread that does nothing else meanwhile, and returns when it has begun.
    pub(crate) fn run(&self, query: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let query: Query = Box::new(query);
        let mut state = self.shared.state.lock();
        if state.idle <= state.waiting.len() && state.threads < self.cores {
            return self.start(state, query);
        }
        state.last += 1;
        let number = state.last;
        state.waiting.push_back((number, query));
        self.shared.came.notify_one();
        let end = Instant::now() + self.shared.max_wait;
        let is_waiting = |state: &State| state.waiting.iter().position(|(waiting, _)| *waiting == number);
        while is_waiting(&state).is_some() {
            if self.shared.accepted.wait_until(&mut state, end).timed_out() {
                let unaccepted = is_waiting(&state).and_then(|at| state.waiting.remove(at));
                return unaccepted.map_or(Ok(()), |(_, query)| self.start(state, query));
            }
        }
        Ok(())
    }

    fn start(&self, mut state: MutexGuard<'_, State>, query: Query) -> io::Result<()> {
        state.threads += 1;
        drop(state);
        let counted = Counted(Arc::clone(&self.shared));
        thread::Builder::new().name("nvml".to_owned()).spawn(move || counted.0.work(query)).map(drop)
    }
}

impl Shared {
    fn work(&self, first: Query) {
        let mut next = Some(first);
        while let Some(query) = next {
            query();
            next = self.next();
        }
    }

    /// The query that came first, or none when there is none for long.
    fn next(&self) -> Option<Query> {
        let mut state = self.state.lock();
        if state.waiting.is_empty() {
            state.idle += 1;
            self.came.wait_while_for(&mut state, |state| state.waiting.is_empty(), self.idle_time);
            state.idle -= 1;
        }
        let (_, query) = state.waiting.pop_front()?;
        self.accepted.notify_all();
        Some(query)
    }
}

/// A thread that is counted until it ends, also by a panic.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.state.lock().threads -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread::{ThreadId, yield_now};

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    /// The thread that a query runs on.
    fn query(threads: &QueryThreads) -> Receiver<ThreadId> {
        let (sender, receiver) = channel();
        threads.run(move || sender.send(thread::current().id()).unwrap()).unwrap();
        receiver
    }

    fn until(threads: &QueryThreads, holds: impl Fn(&State) -> bool) {
        while !holds(&threads.shared.state.lock()) {
            yield_now();
        }
    }

    #[test]
    fn a_thread_is_used_again() {
        let threads = QueryThreads::of(8, LONG, LONG);
        let first = query(&threads).recv().unwrap();
        for _ in 0..3 {
            until(&threads, |state| state.idle == 1);
            assert_eq!(query(&threads).recv().unwrap(), first);
        }
    }

    #[test]
    fn a_thread_without_a_query_ends_and_another_is_started() {
        let threads = QueryThreads::of(8, Duration::from_millis(1), LONG);
        let first = query(&threads).recv().unwrap();
        until(&threads, |state| state.threads == 0);
        assert_ne!(query(&threads).recv().unwrap(), first);
    }

    #[test]
    fn a_burst_waits_for_the_threads_that_there_are() {
        let threads = QueryThreads::of(2, LONG, LONG);
        let used: BTreeSet<String> = thread::scope(|scope| {
            let callers: Vec<_> = (0..100).map(|_| scope.spawn(|| query(&threads).recv().unwrap())).collect();
            callers.into_iter().map(|caller| format!("{:?}", caller.join().unwrap())).collect()
        });
        let count = threads.shared.state.lock().threads;
        assert!(used.len() <= 2 && count <= 2, "{count} threads");
    }

    #[test]
    fn queries_that_hang_delay_no_other() {
        let threads = QueryThreads::of(2, LONG, MAX_WAIT);
        let hang = || {
            let (resume, resumed) = channel::<()>();
            threads.run(move || resumed.recv().unwrap()).unwrap();
            resume
        };
        let hanging: Vec<_> = (0..4).map(|_| hang()).collect();
        query(&threads).recv().unwrap();
        until(&threads, |state| (state.threads, state.idle) == (5, 1));
        for resume in hanging {
            resume.send(()).unwrap();
        }
    }

    #[test]
    fn a_query_that_panics_takes_its_thread_along() {
        let threads = QueryThreads::of(1, LONG, LONG);
        threads.run(|| panic!("a bug")).unwrap();
        until(&threads, |state| state.threads == 0);
        query(&threads).recv().unwrap();
    }
}
