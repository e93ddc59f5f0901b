// SPDX-License-Identifier: Apache-2.0
//! Faults on demand: the k-th call of a function fails or does nothing, calls take time, a GPU raises an XID or falls off
//! the bus.
//!
//! In: rules set by a test. Out: the code that a call returns instead of its answer. The interface waits for the delay, not
//! the engine.

use std::time::Duration;

use crate::Code;
use crate::state::{EVENT_XID, Event, Fault, State};

impl State {
    /// Whether a rule can apply to a call, so that [`State::strike`] has to be called. Rules with a GPU apply to calls about that
    /// GPU, rules without apply to the call before its GPU is known.
    pub fn concerns(&self, call: &str, gpu: Option<usize>) -> bool {
        self.faults.iter().any(|fault| fault.gpu == gpu && matches(&fault.call, call))
    }

    /// Counts the call and returns the code it has to fail with.
    pub fn strike(&mut self, call: &str, gpu: Option<usize>) -> Option<Code> {
        let hit = self.faults.iter_mut().filter(|fault| fault.gpu == gpu && matches(&fault.call, call)).find_map(count);
        self.faults.retain(|fault| fault.times != Some(0));
        hit
    }

    /// The longest matching delay of a call. Delays of a GPU apply to calls about it, delays without apply to the call before its
    /// GPU is known.
    pub fn delay_of(&self, call: &str, gpu: Option<usize>) -> Duration {
        let matching = self.delays.iter().filter(|delay| delay.gpu == gpu && matches(&delay.call, call));
        Duration::from_millis(matching.map(|delay| delay.millis).max().unwrap_or(0))
    }

    /// Raises an XID, attributed to an instance if `instances` has ids.
    pub fn raise_xid(&mut self, gpu: usize, xid: u64, instances: (Option<u32>, Option<u32>)) -> Result<(), Code> {
        self.gpu(gpu)?;
        let (gpu_instance, compute_instance) = instances;
        self.report(Event { sequence: 0, gpu, kind: EVENT_XID, data: xid, gpu_instance, compute_instance });
        Ok(())
    }

    /// The GPU falls off the bus: every later call about it fails, and XID 79 is raised.
    pub fn lose_gpu(&mut self, gpu: usize) -> Result<(), Code> {
        self.live_gpu_mut(gpu)?.lost = true;
        self.raise_xid(gpu, 79, (None, None))
    }
}

fn count(fault: &mut Fault) -> Option<Code> {
    if fault.skip > 0 {
        fault.skip -= 1;
        return None;
    }
    fault.times = fault.times.map(|times| times.saturating_sub(1));
    Some(fault.code)
}

fn matches(pattern: &str, call: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == call, |prefix| call.starts_with(prefix))
}
