// SPDX-License-Identifier: Apache-2.0
//! Events of one GPU. A set with a lost GPU returns errors for all, so each GPU has a set of its own.

use std::ffi::c_uint;
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper_sys::bindings::{nvmlEventData_t, nvmlEventSet_t};

use crate::error::{NvmlError, code};
use crate::library::{Nvml, symbol};

/// Bits of `nvmlEventType*`.
pub mod kind {
    pub const DOUBLE_BIT_ECC: u64 = 0x2;
    pub const XID: u64 = 0x8;
    /// The MIG configuration changed.
    pub const MIG_CONFIG: u64 = 0x100;
    pub const SINGLE_BIT_ECC_STORM: u64 = 0x400;
    pub const DRAM_RETIREMENT: u64 = 0x800;
    pub const NON_FATAL_POISON: u64 = 0x1000;
    pub const FATAL_POISON: u64 = 0x2000;
    pub const GPU_UNAVAILABLE: u64 = 0x4000;
    /// Without a value: field 230 has it.
    pub const RECOVERY_ACTION: u64 = 0x8000;
}

/// One event (`nvmlEventData_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// A bit of [`kind`].
    pub kind: u64,
    /// The XID; 0 for every other kind.
    pub data: u64,
    /// Where the driver attributes the event to an instance, which it does for privileged processes only.
    pub gpu_instance: Option<u32>,
    pub compute_instance: Option<u32>,
}

/// The events of one GPU since its registration. Earlier ones are lost.
#[derive(Debug)]
pub struct EventSet {
    nvml: Arc<Nvml>,
    set: nvmlEventSet_t,
}

// SAFETY: the handle is used by the owner of the value only, and NVML is thread-safe.
unsafe impl Send for EventSet {}

impl EventSet {
    /// Registers for the wanted kinds that the GPU supports.
    pub fn of_gpu(nvml: Arc<Nvml>, uuid: &str, wanted: u64) -> Result<Self, NvmlError> {
        let call = "nvmlEventSetCreate";
        let create = symbol(call, &nvml.lib().nvmlEventSetCreate)?;
        symbol("nvmlEventSetFree", &nvml.lib().nvmlEventSetFree)?;
        let mut set: nvmlEventSet_t = null_mut();
        // SAFETY: the function writes one handle.
        let code = unsafe { create(&raw mut set) };
        nvml.check(call, code)?;
        let events = Self { nvml, set };
        events.register(uuid, wanted)?;
        Ok(events)
    }

    fn register(&self, uuid: &str, wanted: u64) -> Result<(), NvmlError> {
        let device = self.nvml.device_by_uuid(uuid)?;
        let call = "nvmlDeviceGetSupportedEventTypes";
        let function = symbol(call, &self.nvml.lib().nvmlDeviceGetSupportedEventTypes)?;
        let mut supported = 0;
        // SAFETY: the device handle is of this library and the function writes one number.
        let code = unsafe { function(device.handle(), &raw mut supported) };
        self.nvml.check(call, code)?;
        let call = "nvmlDeviceRegisterEvents";
        let function = symbol(call, &self.nvml.lib().nvmlDeviceRegisterEvents)?;
        // SAFETY: both handles are of this library.
        let code = unsafe { function(device.handle(), supported & wanted, self.set) };
        self.nvml.check(call, code)
    }

    /// The next event; nothing after the timeout, or earlier.
    pub fn wait(&self, timeout: Duration) -> Result<Option<Event>, NvmlError> {
        let call = "nvmlEventSetWait_v2";
        let function = symbol(call, &self.nvml.lib().nvmlEventSetWait_v2)?;
        let millis = c_uint::try_from(timeout.as_millis()).unwrap_or(c_uint::MAX);
        let mut data =
            nvmlEventData_t { device: null_mut(), eventType: 0, eventData: 0, gpuInstanceId: 0, computeInstanceId: 0 };
        // SAFETY: the set is of this library and alive, and the function fills one struct.
        let code = unsafe { function(self.set, &raw mut data, millis) };
        match self.nvml.check(call, code) {
            Err(error) if error.code == code::TIMEOUT => return Ok(None),
            checked => checked?,
        }
        let instance = |id: c_uint| (id != c_uint::MAX).then_some(id);
        Ok(Some(Event {
            kind: data.eventType,
            data: data.eventData,
            gpu_instance: instance(data.gpuInstanceId),
            compute_instance: instance(data.computeInstanceId),
        }))
    }
}

impl Drop for EventSet {
    fn drop(&mut self) {
        if let Ok(free) = self.nvml.lib().nvmlEventSetFree.as_ref() {
            // SAFETY: the set is of this library and freed once.
            unsafe { free(self.set) };
        }
    }
}
