// SPDX-License-Identifier: Apache-2.0
//! Field values. Each field has a return code of its own; the recovery action and the remapped rows are simulated.

use std::ffi::c_int;

use dra_sim::Code;
use nvml_wrapper_sys::bindings as nvml;

use crate::call::exports;
use crate::ffi::ListInOut;
use crate::handle::Handle;

/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`.
const RECOVERY_ACTION: u32 = 230;
/// `NVML_FI_DEV_REMAPPED_*`.
const REMAPPED_CORRECTED: u32 = 142;
const REMAPPED_UNCORRECTED: u32 = 143;
const REMAP_PENDING: u32 = 144;
const REMAP_FAILED: u32 = 145;
/// `NVML_VALUE_TYPE_UNSIGNED_INT`.
const TYPE_UNSIGNED: u32 = 1;

exports! {
    nvmlDeviceGetFieldValues: (device: Handle, count: c_int, values: ListInOut<nvml::nvmlFieldValue_t>) |call| {
        let gpu = call.device(device)?.gpu();
        let count = usize::try_from(count).ok().filter(|&count| count > 0).ok_or(Code::INVALID_ARGUMENT)?;
        let gpu = call.state.gpu(gpu)?;
        let has_rows = gpu.model()?.has_row_remapping();
        let mut values = values;
        for value in values.items(count)? {
            value.timestamp = 0;
            value.latencyUsec = 0;
            value.valueType = TYPE_UNSIGNED;
            let errors = gpu.memory_errors;
            let known = match value.fieldId {
                RECOVERY_ACTION => Some(gpu.recovery_action),
                REMAPPED_CORRECTED if has_rows => Some(errors.rows_corrected),
                REMAPPED_UNCORRECTED if has_rows => Some(errors.rows_uncorrected),
                REMAP_PENDING if has_rows => Some(errors.remap_pending.into()),
                REMAP_FAILED if has_rows => Some(errors.remap_failed.into()),
                _ => None,
            };
            value.nvmlReturn = if known.is_some() { 0 } else { Code::NOT_SUPPORTED.0 };
            value.value.uiVal = known.unwrap_or_default();
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
