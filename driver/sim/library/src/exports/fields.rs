// SPDX-License-Identifier: Apache-2.0
//! Field values. Each field has a return code of its own, and its type.
//!
//! In: field ids and scopes. Out: recovery action, errors, counters, power and temperature, each as the calls with names of their own
//! report it; `NOT_SUPPORTED` for any other field.

use std::ffi::{c_int, c_uint, c_ulonglong};

use dra_sim::Code;
use dra_sim::catalog::Architecture;
use dra_sim::catalog::observed::{Limits, Observed};
use dra_sim::state::Gpu;
use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::field_id as field;

use crate::call::exports;
use crate::ffi::ListInOut;
use crate::handle::Handle;

use super::condition::{power_draw, temperature_of};

/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`.
const RECOVERY_ACTION: u32 = 230;

/// A value and its `nvmlValueType_t`.
#[derive(Clone, Copy)]
enum Value {
    Unsigned(c_uint),
    Signed(c_int),
    Long(c_ulonglong),
}

exports! {
    nvmlDeviceGetFieldValues: (device: Handle, count: c_int, values: ListInOut<nvml::nvmlFieldValue_t>) |call| {
        let gpu = call.device(device)?.gpu();
        let count = usize::try_from(count).ok().filter(|&count| count > 0).ok_or(Code::INVALID_ARGUMENT)?;
        let gpu = call.state.gpu(gpu)?;
        let mut values = values;
        for value in values.items(count)? {
            value.timestamp = 0;
            value.latencyUsec = 0;
            let known = value_of(gpu, value.fieldId, value.scopeId);
            value.nvmlReturn = known.map_or_else(|code| code.0, |_| 0);
            // The widest member first: the others do not cover it.
            value.value.ullVal = 0;
            match known.unwrap_or(Value::Unsigned(0)) {
                Value::Unsigned(number) => {
                    value.valueType = nvml::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
                    value.value.uiVal = number;
                }
                Value::Signed(number) => {
                    value.valueType = nvml::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT;
                    value.value.siVal = number;
                }
                Value::Long(number) => {
                    value.valueType = nvml::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
                    value.value.ullVal = number;
                }
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

fn value_of(gpu: &Gpu, id: u32, scope: u32) -> Result<Value, Code> {
    let model = gpu.model()?;
    let observed = model.observed.as_ref();
    match id {
        RECOVERY_ACTION => Ok(Value::Unsigned(gpu.recovery_action)),
        field::NVML_FI_DEV_REMAPPED_COR..=field::NVML_FI_DEV_REMAPPED_FAILURE if model.has_row_remapping() => {
            Ok(remapped_rows(gpu, id))
        }
        field::NVML_FI_DEV_PCIE_REPLAY_COUNTER | field::NVML_FI_DEV_PCIE_REPLAY_ROLLOVER_COUNTER => {
            Ok(Value::Unsigned(0))
        }
        field::NVML_FI_DEV_PCIE_OUTBOUND_ATOMICS_MASK => {
            observed.and_then(|observed| observed.atomics.outbound).map(Value::Unsigned).ok_or(Code::NOT_SUPPORTED)
        }
        field::NVML_FI_DEV_PCIE_INBOUND_ATOMICS_MASK => {
            observed.and_then(|observed| observed.atomics.inbound).map(Value::Unsigned).ok_or(Code::NOT_SUPPORTED)
        }
        field::NVML_FI_DEV_MEMORY_TEMP => {
            let has_sensor = observed.is_some_and(|observed| observed.temperature.memory_sensor);
            if has_sensor { Ok(Value::Unsigned(temperature_of(gpu))) } else { Err(Code::NOT_SUPPORTED) }
        }
        field::NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT..=field::NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT => {
            limit(observed.ok_or(Code::NOT_SUPPORTED)?, id)
        }
        field::NVML_FI_DEV_POWER_AVERAGE..=field::NVML_FI_DEV_POWER_REQUESTED_LIMIT => power(gpu, id, scope),
        field::NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP
        | field::NVML_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST
        | field::NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN
        | field::NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN
        | field::NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN => Ok(Value::Long(0)),
        field::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL
        | field::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL
        | field::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL
            if model.nvlinks() > 0 =>
        {
            Ok(nvlink_errors(gpu, id))
        }
        _ => Err(Code::NOT_SUPPORTED),
    }
}

fn nvlink_errors(gpu: &Gpu, id: u32) -> Value {
    let faults = gpu.nvlink_faults;
    Value::Long(match id {
        field::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL => faults.crc_errors,
        field::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL => faults.replays,
        _ => faults.recoveries,
    })
}

fn remapped_rows(gpu: &Gpu, id: u32) -> Value {
    let errors = gpu.memory_errors;
    Value::Unsigned(match id {
        field::NVML_FI_DEV_REMAPPED_COR => errors.rows_corrected,
        field::NVML_FI_DEV_REMAPPED_UNC => errors.rows_uncorrected,
        field::NVML_FI_DEV_REMAPPED_PENDING => errors.remap_pending.into(),
        _ => errors.remap_failed.into(),
    })
}

fn limit(observed: &Observed, id: u32) -> Result<Value, Code> {
    let Limits::Relative { shutdown, slowdown, gpu_max, memory_max, .. } = observed.temperature.limits else {
        return Err(Code::NOT_SUPPORTED);
    };
    Ok(Value::Signed(match id {
        field::NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT => shutdown,
        field::NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT => slowdown,
        field::NVML_FI_DEV_TEMPERATURE_MEM_MAX_TLIMIT => memory_max.ok_or(Code::NOT_SUPPORTED)?,
        _ => gpu_max,
    }))
}

/// Draw and limits of the GPU and of its module, and the average draw of its memory.
fn power(gpu: &Gpu, id: u32, scope: u32) -> Result<Value, Code> {
    let model = gpu.model()?;
    let observed = model.observed.as_ref().map(|observed| &observed.power);
    let module = observed.and_then(|power| power.module);
    let has_average = matches!(model.architecture, Architecture::Ada | Architecture::Hopper | Architecture::Blackwell);
    let watts = match (scope, id) {
        (nvml::NVML_POWER_SCOPE_GPU, field::NVML_FI_DEV_POWER_AVERAGE) if has_average => {
            return power_draw(gpu).map(Value::Unsigned);
        }
        (nvml::NVML_POWER_SCOPE_GPU, field::NVML_FI_DEV_POWER_INSTANT) => return power_draw(gpu).map(Value::Unsigned),
        (nvml::NVML_POWER_SCOPE_GPU, field::NVML_FI_DEV_POWER_MIN_LIMIT) => observed.map(|power| power.min_watts),
        (
            nvml::NVML_POWER_SCOPE_GPU,
            field::NVML_FI_DEV_POWER_MAX_LIMIT
            | field::NVML_FI_DEV_POWER_DEFAULT_LIMIT
            | field::NVML_FI_DEV_POWER_CURRENT_LIMIT
            | field::NVML_FI_DEV_POWER_REQUESTED_LIMIT,
        ) => Some(model.power.limit_watts),
        (nvml::NVML_POWER_SCOPE_MEMORY, field::NVML_FI_DEV_POWER_AVERAGE) => {
            observed.and_then(|power| power.memory_idle_watts)
        }
        (nvml::NVML_POWER_SCOPE_MODULE, field::NVML_FI_DEV_POWER_AVERAGE | field::NVML_FI_DEV_POWER_INSTANT) => {
            module.map(|power| power.idle_watts)
        }
        (nvml::NVML_POWER_SCOPE_MODULE, field::NVML_FI_DEV_POWER_MIN_LIMIT) => module.map(|power| power.min_watts),
        (
            nvml::NVML_POWER_SCOPE_MODULE,
            field::NVML_FI_DEV_POWER_MAX_LIMIT
            | field::NVML_FI_DEV_POWER_DEFAULT_LIMIT
            | field::NVML_FI_DEV_POWER_CURRENT_LIMIT
            | field::NVML_FI_DEV_POWER_REQUESTED_LIMIT,
        ) => module.map(|power| power.limit_watts),
        _ => None,
    };
    watts.map(|watts| Value::Unsigned(watts * 1000)).ok_or(Code::NOT_SUPPORTED)
}
