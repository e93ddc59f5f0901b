// SPDX-License-Identifier: Apache-2.0
//! The machine inside one process: the same engine as behind the library, with switches for tests.
//!
//! In: calls by their NVML name. Out: the answer of the engine, unless a fault rule applies. Clones share one machine.
//! A test can stop the process after n effects: then nothing changes and every call fails, until [`Simulator::restart`].

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Code;
use crate::state::{Event, Setup, State};

/// A shared handle on a machine.
#[derive(Clone, Debug)]
pub struct Simulator {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner {
    state: State,
    calls: BTreeMap<&'static str, u64>,
    cut_at: Option<u64>,
}

impl Simulator {
    /// A machine that has just booted.
    pub fn new(setup: &Setup) -> Self {
        let inner = Inner { state: State::new(setup), calls: BTreeMap::new(), cut_at: None };
        Self { shared: Arc::new(Shared { inner: Mutex::new(inner), changed: Condvar::new() }) }
    }

    /// One NVML call, about one GPU or none. Counts it, waits for its delay, applies fault rules, then calls the engine. After
    /// the stop a call changes nothing.
    pub fn call<T>(
        &self,
        name: &'static str,
        gpu: Option<usize>,
        answer: impl FnOnce(&mut State) -> Result<T, Code>,
    ) -> Result<T, Code> {
        let mut inner = self.lock();
        *inner.calls.entry(name).or_insert(0) += 1;
        let delay = inner.state.delay_of(name, None);
        let delay = delay + gpu.map(|_| inner.state.delay_of(name, gpu)).unwrap_or_default();
        if !delay.is_zero() {
            drop(inner);
            self.wait(delay);
            inner = self.lock();
        }
        inner.state.driver_loaded()?;
        let struck = inner.state.strike(name, None).or_else(|| gpu.and_then(|_| inner.state.strike(name, gpu)));
        if let Some(code) = struck {
            return Err(code);
        }
        if inner.is_cut() {
            return Err(Code::UNKNOWN);
        }
        let result = answer(&mut inner.state);
        self.shared.changed.notify_all();
        result
    }

    /// Reads the state past all rules, for assertions.
    pub fn peek<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock().state)
    }

    /// Changes the state from outside, as an administrator or a fault would: XIDs, lost GPUs, reboots, fault rules.
    pub fn poke<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock().state);
        self.shared.changed.notify_all();
        result
    }

    /// How often each NVML function was called.
    pub fn calls(&self) -> BTreeMap<&'static str, u64> {
        self.lock().calls.clone()
    }

    /// Number of changes made so far.
    pub fn effects(&self) -> u64 {
        self.lock().state.effects
    }

    /// Allows `effects` more changes, then fails every call.
    pub fn cut_after(&self, effects: u64) {
        let mut inner = self.lock();
        inner.cut_at = Some(inner.state.effects + effects);
    }

    /// Whether the cut has come.
    pub fn is_cut(&self) -> bool {
        self.lock().is_cut()
    }

    /// Lifts the cut, as for a process that starts again. The machine keeps its state.
    pub fn restart(&self) {
        self.lock().cut_at = None;
    }

    /// Waits for the first event after `sequence` that is `wanted`.
    pub fn wait_event(&self, sequence: u64, timeout: Duration, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        let find = |state: &State| state.events_after(sequence, &wanted).next().copied();
        let inner = self.lock();
        let outcome = self.shared.changed.wait_timeout_while(inner, timeout, |inner| find(&inner.state).is_none());
        let (inner, _) = outcome.unwrap_or_else(PoisonError::into_inner);
        find(&inner.state)
    }

    /// Waits for a delay without the lock of the machine, so that other calls continue.
    fn wait(&self, delay: Duration) {
        let inner = self.lock();
        // Nothing ends the wait early: the delay is the answer time of a slow driver.
        drop(self.shared.changed.wait_timeout_while(inner, delay, |_| true));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_cut(&self) -> bool {
        self.cut_at.is_some_and(|at| self.state.effects >= at)
    }
}
