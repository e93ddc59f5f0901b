// SPDX-License-Identifier: Apache-2.0
//! Processes on a device: those that were declared, with a compute context. None has a graphics context or uses MPS.

use std::ffi::{c_uint, c_void};

use dra_sim::Code;
use nvml_wrapper_sys::bindings::nvmlProcessInfo_t;

use crate::call::{Call, exports};
use crate::ffi::{InOut, ListOut, narrow, size};
use crate::handle::{Handle, Named};

/// `NVML_VALUE_NOT_AVAILABLE`.
const NOT_AVAILABLE: u64 = u64::MAX;

/// Of a process that is on no MIG device.
const NO_INSTANCE: u32 = u32::MAX;

exports! {
    // With too little room INSUFFICIENT_SIZE and the count, also without a list.
    nvmlDeviceGetComputeRunningProcesses_v3
        + nvmlDeviceGetComputeRunningProcesses_v2: (device: Handle, count: InOut<'_, c_uint>, list: ListOut<nvmlProcessInfo_t>) |call| {
        let found = processes(call, device)?;
        let count = count.ok_or(Code::INVALID_ARGUMENT)?;
        let room = size(*count);
        *count = narrow(found.len());
        if room < found.len() {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        list.fill(found)
    };

    nvmlDeviceGetComputeRunningProcesses
        + nvmlDeviceGetGraphicsRunningProcesses_v3
        + nvmlDeviceGetGraphicsRunningProcesses_v2
        + nvmlDeviceGetGraphicsRunningProcesses
        + nvmlDeviceGetMPSComputeRunningProcesses_v3
        + nvmlDeviceGetMPSComputeRunningProcesses_v2
        + nvmlDeviceGetMPSComputeRunningProcesses: (device: Handle, count: InOut<'_, c_uint>, _list: *const c_void) |call| {
        call.device(device)?;
        *count.ok_or(Code::INVALID_ARGUMENT)? = 0;
        Ok(())
    };
}

/// Of a GPU those of all its instances, of a MIG device those of its GPU instance.
fn processes(call: &Call, device: Handle) -> Result<Vec<nvmlProcessInfo_t>, Code> {
    call.device(device)?;
    let (gpu, instance) = match device.named()? {
        Named::Gpu(gpu) => (gpu, None),
        Named::MigDevice(mig) | Named::MigDeviceOf(mig) => (mig.instance.gpu, Some(mig.instance.id)),
        Named::Instance(_) | Named::Compute(_) | Named::EventSet(_) => return Err(Code::INVALID_ARGUMENT),
    };
    let all = &call.state.gpus.get(gpu).ok_or(Code::INVALID_ARGUMENT)?.processes;
    let here = all.iter().filter(|process| instance.is_none() || process.gpu_instance == instance);
    let info = |process: &dra_sim::state::Process| nvmlProcessInfo_t {
        pid: process.pid,
        usedGpuMemory: process.memory_mib.map_or(NOT_AVAILABLE, |mib| mib * 1024 * 1024),
        gpuInstanceId: process.gpu_instance.unwrap_or(NO_INSTANCE),
        computeInstanceId: if process.gpu_instance.is_some() { 0 } else { NO_INSTANCE },
    };
    Ok(here.map(info).collect())
}
