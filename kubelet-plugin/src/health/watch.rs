// SPDX-License-Identifier: Apache-2.0
//! A thread per GPU that waits for its events. NVML may hang in a wait for a GPU that fell off the bus, which then blinds no other.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use dra_hardware::{GpuCondition, GpuError, GpuEvent, GpuEvents, Host, NvmlCode};
use dra_model::GpuUuid;
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
        gpu_instance: Option<u32>,
        condition: Result<GpuCondition, GpuError>,
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
    /// Sends what is observed on a GPU. What does not fit in the channel is dropped: polls find a fault that lasts.
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
        while !self.is_stopped() {
            match events.wait(WAIT) {
                Ok(None) => {}
                Ok(Some(event)) => self.send(self.observed(event)),
                Err(error) => return Some(error),
            }
        }
        None
    }

    /// The recovery action belongs to the event, so it is read at once.
    fn observed(&self, event: GpuEvent) -> Observed {
        let condition = self.host.condition(&self.gpu);
        match event {
            GpuEvent::Xid { xid, gpu_instance } => Observed::Xid { xid, gpu_instance, condition },
            GpuEvent::Other => Observed::Condition(condition),
        }
    }

    fn send(&self, kind: Observed) {
        self.observations.try_send(Observation { gpu: self.gpu.clone(), kind }).ok();
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
