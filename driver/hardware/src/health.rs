// SPDX-License-Identifier: Apache-2.0
//! The port to what a GPU reports about its health: events as they happen, and its condition when it is asked.

use std::fmt;
use std::time::Duration;

use dra_model::{GpuUuid, Slowdown};

use crate::gpu_error::{GpuError, NvmlCode};
use crate::measurements::Measurements;

/// How the GPUs of a machine report their health. By default they report nothing.
pub trait HealthMachine {
    /// The condition of a GPU now.
    fn condition(&self, gpu: &GpuUuid) -> Result<GpuCondition, GpuError> {
        Err(unsupported("nvmlDeviceGetFieldValues", gpu))
    }

    /// The events of a GPU from now on.
    fn events(&self, gpu: &GpuUuid) -> Result<Box<dyn GpuEvents>, GpuError> {
        Err(unsupported("nvmlDeviceRegisterEvents", gpu))
    }

    /// What the GPU measures now.
    fn measurements(&self, gpu: &GpuUuid) -> Result<Measurements, GpuError> {
        Err(unsupported("nvmlDeviceGetMemoryInfo_v2", gpu))
    }
}

/// The events of one GPU. Dropped, it registers for no more.
pub trait GpuEvents: Send + fmt::Debug {
    /// The next event; nothing after the timeout, or earlier.
    fn wait(&mut self, timeout: Duration) -> Result<Option<GpuEvent>, GpuError>;
}

/// Something that happened on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuEvent {
    /// An error that the driver numbers.
    Xid {
        xid: u64,
        /// Where the driver attributes it to one.
        gpu_instance: Option<u32>,
    },
    /// Anything else: the condition of the GPU may have changed.
    Other,
}

/// What a GPU reports when it is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GpuCondition {
    /// Field 230, the cure that the driver recommends; absent before R570.
    pub recovery_action: Option<u32>,
    /// A row of its memory is replaced, or before Ampere a page retired, at the next reset.
    pub is_remap_pending: bool,
    /// A row of its memory could not be replaced.
    pub has_remap_failed: bool,
    /// The GPU has an NVLink fabric and is not registered with it. In MIG mode it needs none.
    pub is_fabric_pending: bool,
    pub slowdown: Slowdown,
}

fn unsupported(call: &'static str, gpu: &GpuUuid) -> GpuError {
    const NOT_SUPPORTED: NvmlCode = NvmlCode(3);
    GpuError::Failed { call, which: gpu.to_string(), code: NOT_SUPPORTED, uuid: Some(gpu.clone()), pci: None }
}
