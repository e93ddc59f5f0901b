// SPDX-License-Identifier: Apache-2.0
//! A thread per GPU that waits for its events. NVML may hang in a wait for a GPU that fell off the bus, which then blinds no other.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dra_hardware::{GpuCondition, GpuError, GpuEvent, GpuEvents, Host, NvmlCode};
use dra_health::xid::{self, XidAction};
use dra_model::{GpuUuid, Placement};
use tokio::sync::mpsc::Sender;
use tracing::debug;

/// One wait. NVML returns earlier when there is an event.
const WAIT: Duration = Duration::from_secs(1);
/// After a failure; it doubles up to the second.
const DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The thread needs little of its stack.
const STACK_BYTES: usize = 256 * 1024;

/// What was learned about a GPU.
#[derive(Debug)]
pub struct Observation {
    pub gpu: GpuUuid,
    pub kind: Observed,
}

#[derive(Debug)]
pub enum Observed {
    Xid {
        xid: u64,
        /// Where the GPU instance is that the driver blames, if it does.
        scope: Option<Placement>,
        /// Absent for a fault of an application soon after another one.
        condition: Option<Result<GpuCondition, GpuError>>,
    },
    /// The condition was asked for: after another event, or by a poll.
    Condition(Result<GpuCondition, GpuError>),
}

/// A running thread. It ends after this is dropped, unless NVML holds it.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Watch {
    /// Sends what is observed on a GPU. Faults of applications that do not fit in the channel are dropped.
    pub fn start(host: Arc<Host>, gpu: GpuUuid, observations: Sender<Observation>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = Thread { host, gpu, observations, stop: Arc::clone(&stop) };
        thread::Builder::new().name("gpu-events".to_owned()).stack_size(STACK_BYTES).spawn(move || thread.run())?;
        Ok(Self { stop })
    }
}

struct Thread {
    host: Arc<Host>,
    gpu: GpuUuid,
    observations: Sender<Observation>,
    stop: Arc<AtomicBool>,
}

impl Thread {
    fn run(&self) {
        let (mut delay, longest) = DELAYS;
        while !self.is_stopped() {
            let failed = match self.host.events(&self.gpu) {
                Ok(events) => {
                    delay = DELAYS.0;
                    self.follow(events)
                }
                Err(error) => Some(error),
            };
            match failed {
                Some(error) if is_unsupported(&error) => {
                    debug!(gpu = %self.gpu, "the GPU reports no events, its condition is polled");
                    return;
                }
                Some(error) => self.send(Observed::Condition(Err(error))),
                None => return,
            }
            thread::park_timeout(delay);
            delay = (delay * 2).min(longest);
        }
    }

    /// Returns the error that ended the events; nothing if the thread is to end.
    fn follow(&self, mut events: Box<dyn GpuEvents>) -> Option<GpuError> {
        let mut asked = None;
        while !self.is_stopped() {
            match events.wait(WAIT) {
                Ok(None) => {}
                Ok(Some(event)) => self.send(self.observed(event, &mut asked)),
                Err(error) => return Some(error),
            }
        }
        None
    }

    /// The recovery action belongs to the event, so it is read at once, and the GPU instance is looked up before it may be gone. Faults
    /// of applications come in storms, which must not delay a graver one: the driver reports a change of the action as well.
    fn observed(&self, event: GpuEvent, asked: &mut Option<Instant>) -> Observed {
        let GpuEvent::Xid { xid, gpu_instance } = event else {
            return Observed::Condition(self.host.condition(&self.gpu));
        };
        let is_grave = xid::action(xid) != XidAction::Application;
        let is_due = is_grave || asked.is_none_or(|at| at.elapsed() >= WAIT);
        let condition = is_due.then(|| {
            *asked = Some(Instant::now());
            self.host.condition(&self.gpu)
        });
        let scope = gpu_instance.filter(|_| is_grave).and_then(|id| self.placement(id));
        Observed::Xid { xid, scope, condition }
    }

    fn placement(&self, gpu_instance: u32) -> Option<Placement> {
        let gpu = self.host.gpu(&self.gpu).ok()?;
        gpu.gpu_instances().iter().find(|instance| instance.id == gpu_instance).map(|instance| instance.placement)
    }

    /// What no poll would find is never dropped.
    fn send(&self, kind: Observed) {
        let is_grave = matches!(&kind, Observed::Xid { xid, .. } if xid::action(*xid) != XidAction::Application);
        let observation = Observation { gpu: self.gpu.clone(), kind };
        if is_grave {
            self.observations.blocking_send(observation).ok();
        } else {
            self.observations.try_send(observation).ok();
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.observations.is_closed()
    }
}

fn is_unsupported(error: &GpuError) -> bool {
    // Not supported, function not found.
    const CODES: [NvmlCode; 2] = [NvmlCode(3), NvmlCode(13)];
    matches!(error, GpuError::Failed { code, .. } if CODES.contains(code))
}
