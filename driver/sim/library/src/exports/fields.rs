// SPDX-License-Identifier: Apache-2.0
//! Field values. Each field has a return code of its own; only the recovery action is simulated.

use std::ffi::c_int;

use dra_sim::Code;
use nvml_wrapper_sys::bindings as nvml;

use crate::call::exports;
use crate::ffi::ListInOut;
use crate::handle::Handle;

/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`.
const RECOVERY_ACTION: u32 = 230;
/// `NVML_VALUE_TYPE_UNSIGNED_INT`.
const TYPE_UNSIGNED: u32 = 1;

exports! {
    nvmlDeviceGetFieldValues: (device: Handle, count: c_int, values: ListInOut<nvml::nvmlFieldValue_t>) |call| {
        let gpu = call.device(device)?.gpu();
        let count = usize::try_from(count).ok().filter(|&count| count > 0).ok_or(Code::INVALID_ARGUMENT)?;
        let action = call.state.gpu(gpu)?.recovery_action;
        let mut values = values;
        for value in values.items(count)? {
            value.timestamp = 0;
            value.latencyUsec = 0;
            value.valueType = TYPE_UNSIGNED;
            if value.fieldId == RECOVERY_ACTION {
                value.nvmlReturn = 0;
                value.value.uiVal = action;
            } else {
                value.nvmlReturn = Code::NOT_SUPPORTED.0;
            }
        }
        Ok(())
    };

    nvmlDeviceClearFieldValues: (device: Handle, count: c_int, values: ListInOut<nvml::nvmlFieldValue_t>) |call| {
        call.gpu(device)?;
        let count = usize::try_from(count).ok().filter(|&count| count > 0).ok_or(Code::INVALID_ARGUMENT)?;
        let mut values = values;
        for value in values.items(count)? {
            value.nvmlReturn = Code::NOT_SUPPORTED.0;
        }
        Ok(())
    };
}
