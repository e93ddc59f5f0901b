// SPDX-License-Identifier: Apache-2.0
//! Processes on a device: none ever runs on a simulated GPU.

use std::ffi::{c_uint, c_void};

use dra_sim::Code;

use crate::call::exports;
use crate::ffi::InOut;
use crate::handle::Handle;

exports! {
    nvmlDeviceGetComputeRunningProcesses_v3
        + nvmlDeviceGetComputeRunningProcesses_v2
        + nvmlDeviceGetComputeRunningProcesses
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
