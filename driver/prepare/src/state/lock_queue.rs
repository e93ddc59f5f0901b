// SPDX-License-Identifier: Apache-2.0
//! The calls of this process that have or want a name. They get it in the order of their arrival, except that a call that only
//! tries may go first. A release wakes one of them: a hundred shares of a GPU that start at once want one name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// The names that are taken.
#[derive(Debug, Default)]
pub(super) struct LockQueues(Mutex<BTreeMap<String, Queue>>);

/// A name that a call has or waits for.
#[derive(Debug, Default)]
struct Queue {
    /// Absent between a release and the next call that waits.
    holder: Option<String>,
    waiting: usize,
    released: Arc<Condvar>,
}

/// A name that no other call of this process has meanwhile.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    queues: &'a LockQueues,
    name: String,
}

impl LockQueues {
    /// Takes a name, waiting until `deadline`; the error is the holder.
    pub(super) fn take(&self, name: &str, holder: &str, deadline: Instant) -> Result<Entry<'_>, String> {
        let mut queues = self.0.lock();
        let queue = queues.entry(name.to_owned()).or_default();
        if queue.holder.is_some() || queue.waiting > 0 {
            queue.waiting += 1;
            let released = Arc::clone(&queue.released);
            loop {
                let is_late = released.wait_until(&mut queues, deadline).timed_out();
                let queue = queues.entry(name.to_owned()).or_default();
                match &queue.holder {
                    Some(_) if !is_late => {}
                    Some(other) => {
                        queue.waiting -= 1;
                        return Err(other.clone());
                    }
                    None => {
                        queue.waiting -= 1;
                        break;
                    }
                }
            }
        }
        queues.entry(name.to_owned()).or_default().holder = Some(holder.to_owned());
        Ok(Entry { queues: self, name: name.to_owned() })
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut queues = self.queues.0.lock();
        let Some(queue) = queues.get_mut(&self.name) else { return };
        if queue.waiting == 0 {
            queues.remove(&self.name);
        } else {
            queue.holder = None;
            queue.released.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    /// The number of calls that wait for a name.
    fn waiting(queues: &LockQueues, name: &str) -> usize {
        queues.0.lock().get(name).map_or(0, |queue| queue.waiting)
    }

    #[test]
    fn those_that_wait_get_the_name_in_the_order_of_their_arrival() {
        let (queues, order) = (LockQueues::default(), Mutex::new(Vec::new()));
        let first = queues.take("gpu", "first", soon()).unwrap();
        std::thread::scope(|scope| {
            for number in 0..20 {
                let (queues, order) = (&queues, &order);
                scope.spawn(move || {
                    let _entry = queues.take("gpu", &number.to_string(), soon()).unwrap();
                    order.lock().push(number);
                });
                while waiting(queues, "gpu") <= number {
                    std::thread::yield_now();
                }
            }
            drop(queues.take("another", "me", Instant::now()).unwrap());
            drop(first);
        });
        assert_eq!(order.into_inner(), (0..20).collect::<Vec<_>>());
        assert!(queues.0.lock().is_empty());
    }

    #[test]
    fn a_call_that_gives_up_delays_no_call_behind_it() {
        let queues = LockQueues::default();
        let first = queues.take("gpu", "first", soon()).unwrap();
        assert_eq!(queues.take("gpu", "hasty", Instant::now()).unwrap_err(), "first");
        std::thread::scope(|scope| {
            let queues = &queues;
            let brief =
                scope.spawn(|| queues.take("gpu", "brief", Instant::now() + Duration::from_millis(50)).map(drop));
            while waiting(queues, "gpu") < 1 {
                std::thread::yield_now();
            }
            let patient = scope.spawn(|| queues.take("gpu", "patient", soon()).map(drop));
            assert_eq!(brief.join().unwrap(), Err("first".to_owned()));
            drop(first);
            assert_eq!(patient.join().unwrap(), Ok(()));
        });
        assert!(queues.0.lock().is_empty());
    }
}
