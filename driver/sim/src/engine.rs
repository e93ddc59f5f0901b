// SPDX-License-Identifier: Apache-2.0
//! The rules of the machine: what NVML answers and what it changes.
//!
//! In: a [`State`] and a call in plain values. Out: an answer, a changed state, or the [`Code`] real NVML returns.
//! It never blocks, sleeps, prints or touches a file; both interfaces run exactly this code.

use crate::Code;
use crate::catalog::{self, Model};
use crate::state::{ComputeMode, Driver, Event, Gpu, MAX_EVENTS, State};

pub mod compute;
pub mod faults;
pub mod lifecycle;
pub mod mig;
pub mod mode;

pub use compute::ComputeRef;
pub use mig::InstanceRef;

impl State {
    /// The GPU with this index, lost or not.
    pub fn gpu(&self, index: usize) -> Result<&Gpu, Code> {
        self.gpus.get(index).ok_or(Code::INVALID_ARGUMENT)
    }

    /// The GPU with this index, unless it is lost.
    pub fn live_gpu(&self, index: usize) -> Result<&Gpu, Code> {
        let gpu = self.gpu(index)?;
        if gpu.lost { Err(Code::GPU_IS_LOST) } else { Ok(gpu) }
    }

    pub(crate) fn live_gpu_mut(&mut self, index: usize) -> Result<&mut Gpu, Code> {
        let gpu = self.gpus.get_mut(index).ok_or(Code::INVALID_ARGUMENT)?;
        if gpu.lost { Err(Code::GPU_IS_LOST) } else { Ok(gpu) }
    }

    /// The index of the GPU with this UUID.
    pub fn gpu_by_uuid(&self, uuid: &str) -> Option<usize> {
        self.gpus.iter().position(|gpu| gpu.uuid == uuid)
    }

    /// Whether NVML can be initialised.
    pub fn driver_loaded(&self) -> Result<(), Code> {
        match self.driver {
            Driver::Loaded => Ok(()),
            Driver::Unloaded => Err(Code::DRIVER_NOT_LOADED),
        }
    }

    /// `nvmlDeviceSetComputeMode`: refused while MIG mode is on (open-gpu-kernel-modules, subdevice control of compute mode).
    pub fn set_compute_mode(&mut self, gpu: usize, mode: ComputeMode) -> Result<(), Code> {
        let gpu = self.live_gpu_mut(gpu)?;
        if gpu.mig.is_some_and(|mig| mig.current) {
            return Err(Code::NOT_SUPPORTED);
        }
        gpu.compute_mode = mode;
        self.effects += 1;
        Ok(())
    }

    /// `nvmlDeviceSetPersistenceMode`.
    pub fn set_persistence(&mut self, gpu: usize, on: bool) -> Result<(), Code> {
        self.live_gpu_mut(gpu)?.persistence = on;
        self.effects += 1;
        Ok(())
    }

    /// What `nvidia-smi compute-policy --set-timeslice` does: 0 default, 1 short, 2 medium, 3 long.
    pub fn set_time_slice(&mut self, gpu: usize, slice: u32) -> Result<(), Code> {
        if slice > 3 {
            return Err(Code::INVALID_ARGUMENT);
        }
        self.live_gpu_mut(gpu)?.time_slice = slice;
        self.effects += 1;
        Ok(())
    }

    /// Events after `sequence` about one of `gpus` and of one of the kinds in `mask`, oldest first.
    pub fn events_after<'a>(
        &'a self,
        sequence: u64,
        wanted: impl Fn(&Event) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.sequence > sequence && wanted(event))
    }

    pub(crate) fn report(&mut self, event: Event) {
        let sequence = self.next_event;
        self.next_event += 1;
        self.events.push(Event { sequence, ..event });
        let surplus = self.events.len().saturating_sub(MAX_EVENTS);
        self.events.drain(..surplus);
    }
}

impl Gpu {
    /// The board's model. A state that names an unknown model was written by another build.
    pub fn model(&self) -> Result<&'static Model, Code> {
        catalog::model(&self.model).ok_or(Code::UNKNOWN)
    }
}
