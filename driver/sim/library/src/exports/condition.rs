// SPDX-License-Identifier: Apache-2.0
//! The condition of a board under its load: memory, temperature, power, clocks, ECC.

use std::ffi::{c_int, c_uint, c_ulonglong};

use dra_sim::Code;
use dra_sim::state::{Gpu, MemoryErrors};
use nvml_wrapper_sys::bindings as nvml;

use crate::call::{Call, Device, exports};
use crate::ffi::{Out, Versioned, put};
use crate::handle::Handle;

use super::identity::model;

const MIB: u64 = 1024 * 1024;
/// Degrees Celsius of an idle board, and above it at full load.
const TEMPERATURE: (u32, u32) = (32, 40);
/// `nvmlClocksEventReasonGpuIdle`.
const IDLE: c_ulonglong = 1;

exports! {
    nvmlDeviceGetMemoryInfo: (device: Handle, memory: Out<'_, nvml::nvmlMemory_t>) |call| {
        let Memory { total, reserved, used } = memory_of(call, device)?;
        put(memory, nvml::nvmlMemory_t { total, free: total - reserved - used, used: reserved + used })
    };

    nvmlDeviceGetMemoryInfo_v2: (device: Handle, memory: Versioned) |call| {
        let Memory { total, reserved, used } = memory_of(call, device)?;
        memory.put(2, |version| nvml::nvmlMemory_v2_t { version, total, reserved, free: total - reserved - used, used })
    };

    nvmlDeviceGetBAR1MemoryInfo: (device: Handle, memory: Out<'_, nvml::nvmlBAR1Memory_t>) |call| {
        let total = model(call, device)?.memory.bar1_mib * MIB;
        put(memory, nvml::nvmlBAR1Memory_t { bar1Total: total, bar1Free: total - MIB, bar1Used: MIB })
    };

    nvmlDeviceGetMemoryBusWidth: (device: Handle, bits: Out<'_, c_uint>) |call| {
        put(bits, model(call, device)?.memory.bus_width_bits)
    };

    nvmlDeviceGetTemperature: (device: Handle, sensor: c_uint, degrees: Out<'_, c_uint>) |call| {
        let now = temperature(call, device)?;
        if sensor == 0 { put(degrees, now) } else { Err(Code::INVALID_ARGUMENT) }
    };

    nvmlDeviceGetTemperatureV: (device: Handle, reading: Versioned) |call| {
        let temperature = c_int::try_from(temperature(call, device)?).map_err(|_large| Code::UNKNOWN)?;
        reading.put(1, |version| nvml::nvmlTemperature_v1_t { version, sensorType: 0, temperature })
    };

    nvmlDeviceGetTemperatureThreshold: (device: Handle, kind: c_uint, degrees: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        match kind {
            0 => put(degrees, 95),
            1 => put(degrees, 92),
            3 => put(degrees, 87),
            _ => Err(Code::NOT_SUPPORTED),
        }
    };

    nvmlDeviceGetPowerUsage: (device: Handle, milliwatts: Out<'_, c_uint>) |call| {
        let (power, load) = (&physical(call, device)?.power, gpu_of(call, device)?.load);
        let drawn = power.idle_watts + power.limit_watts.saturating_sub(power.idle_watts) * load.utilization / 100;
        put(milliwatts, load.watts.unwrap_or(drawn) * 1000)
    };

    nvmlDeviceGetEnforcedPowerLimit + nvmlDeviceGetPowerManagementLimit + nvmlDeviceGetPowerManagementDefaultLimit: (device: Handle, milliwatts: Out<'_, c_uint>) |call| {
        put(milliwatts, physical(call, device)?.power.limit_watts * 1000)
    };

    nvmlDeviceGetPowerManagementLimitConstraints: (device: Handle, low: Out<'_, c_uint>, high: Out<'_, c_uint>) |call| {
        let limit = physical(call, device)?.power.limit_watts * 1000;
        put(low, limit / 2)?;
        put(high, limit)
    };

    nvmlDeviceGetPowerManagementMode: (device: Handle, on: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        put(on, 1)
    };

    nvmlDeviceGetPerformanceState + nvmlDeviceGetPowerState: (device: Handle, state: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        put(state, 0)
    };

    nvmlDeviceGetTotalEnergyConsumption: (device: Handle, millijoules: Out<'_, c_ulonglong>) |call| {
        put(millijoules, u64::from(physical(call, device)?.power.idle_watts) * 1_000_000)
    };

    nvmlDeviceGetClockInfo: (device: Handle, kind: c_uint, megahertz: Out<'_, c_uint>) |call| {
        let model = physical(call, device)?;
        let idle = if gpu_of(call, device)?.load.utilization == 0 { 345 } else { u32::MAX };
        put(megahertz, clock(kind, model.clocks.sm_mhz.min(idle), model.clocks.memory_mhz)?)
    };

    nvmlDeviceGetMaxClockInfo + nvmlDeviceGetMaxCustomerBoostClock + nvmlDeviceGetApplicationsClock + nvmlDeviceGetDefaultApplicationsClock: (device: Handle, kind: c_uint, megahertz: Out<'_, c_uint>) |call| {
        let model = physical(call, device)?;
        put(megahertz, clock(kind, model.clocks.sm_mhz, model.clocks.memory_mhz)?)
    };

    nvmlDeviceGetCurrentClocksThrottleReasons + nvmlDeviceGetCurrentClocksEventReasons: (device: Handle, reasons: Out<'_, c_ulonglong>) |call| {
        let load = gpu_of(call, device)?.load;
        put(reasons, load.throttle | if load.utilization == 0 { IDLE } else { 0 })
    };

    nvmlDeviceGetSupportedClocksThrottleReasons + nvmlDeviceGetSupportedClocksEventReasons: (device: Handle, reasons: Out<'_, c_ulonglong>) |call| {
        call.gpu(device)?;
        put(reasons, 0x1ff)
    };

    nvmlDeviceGetUtilizationRates: (device: Handle, rates: Out<'_, nvml::nvmlUtilization_t>) |call| {
        let gpu = gpu_of(call, device)?;
        // With MIG on there is no utilisation of the whole board.
        if gpu.mig.is_some_and(|mig| mig.current) {
            return Err(Code::NOT_SUPPORTED);
        }
        put(rates, nvml::nvmlUtilization_t { gpu: gpu.load.utilization, memory: gpu.load.utilization / 2 })
    };

    nvmlDeviceGetEncoderUtilization + nvmlDeviceGetDecoderUtilization + nvmlDeviceGetJpgUtilization + nvmlDeviceGetOfaUtilization: (device: Handle, percent: Out<'_, c_uint>, period: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        put(percent, 0)?;
        put(period, 167_000)
    };

    nvmlDeviceGetEccMode: (device: Handle, current: Out<'_, c_uint>, pending: Out<'_, c_uint>) |call| {
        let on = u32::from(model(call, device)?.ecc);
        put(current, on)?;
        put(pending, on)
    };

    nvmlDeviceGetDefaultEccMode: (device: Handle, on: Out<'_, c_uint>) |call| {
        put(on, u32::from(physical(call, device)?.ecc))
    };

    nvmlDeviceGetTotalEccErrors: (device: Handle, kind: c_uint, _counter: c_uint, count: Out<'_, c_ulonglong>) |call| {
        let errors = match call.device(device)? {
            Device::Gpu(gpu) => call.state.gpu(gpu)?.memory_errors,
            Device::Mig(_) => MemoryErrors::default(),
        };
        put(count, if kind == 0 { errors.corrected } else { errors.uncorrected })
    };

    nvmlDeviceGetMemoryErrorCounter: (device: Handle, _kind: c_uint, _counter: c_uint, _location: c_uint, count: Out<'_, c_ulonglong>) |call| {
        call.device(device)?;
        put(count, 0)
    };

    nvmlDeviceGetRetiredPagesPendingStatus: (device: Handle, pending: Out<'_, c_uint>) |call| {
        let gpu = gpu_of(call, device)?;
        if gpu.model()?.has_row_remapping() {
            return Err(Code::NOT_SUPPORTED);
        }
        put(pending, gpu.memory_errors.remap_pending.into())
    };

    nvmlDeviceGetRemappedRows: (device: Handle, corrected: Out<'_, c_uint>, uncorrected: Out<'_, c_uint>, pending: Out<'_, c_uint>, failed: Out<'_, c_uint>) |call| {
        let gpu = gpu_of(call, device)?;
        if gpu.mig.is_some_and(|mig| mig.current) || !gpu.model()?.has_row_remapping() {
            return Err(Code::NOT_SUPPORTED);
        }
        let errors = gpu.memory_errors;
        put(corrected, errors.rows_corrected)?;
        put(uncorrected, errors.rows_uncorrected)?;
        put(pending, errors.remap_pending.into())?;
        put(failed, errors.remap_failed.into())
    };

    nvmlDeviceGetRepairStatus: (device: Handle, status: Versioned) |call| {
        call.gpu(device)?;
        status.put(1, |version| nvml::nvmlRepairStatus_v1_t { version, bChannelRepairPending: 0, bTpcRepairPending: 0 })
    };

    nvmlDeviceValidateInforom: (device: Handle) |call| call.gpu(device).map(|_| ());

    nvmlDeviceGetDisplayMode + nvmlDeviceGetDisplayActive: (device: Handle, on: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        put(on, 0)
    };

    nvmlDeviceGetCurrPcieLinkGeneration + nvmlDeviceGetMaxPcieLinkGeneration + nvmlDeviceGetGpuMaxPcieLinkGeneration: (device: Handle, generation: Out<'_, c_uint>) |call| {
        put(generation, physical(call, device)?.pci.link_generation)
    };

    nvmlDeviceGetCurrPcieLinkWidth + nvmlDeviceGetMaxPcieLinkWidth: (device: Handle, lanes: Out<'_, c_uint>) |call| {
        put(lanes, physical(call, device)?.pci.link_width)
    };

    nvmlDeviceGetPcieThroughput: (device: Handle, _counter: c_uint, value: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        put(value, 0)
    };

    nvmlDeviceGetPcieReplayCounter: (device: Handle, count: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        put(count, 0)
    };

    nvmlDeviceGetNumFans: (device: Handle, count: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        put(count, 0)
    };
}

/// Bytes of a GPU or a MIG device.
struct Memory {
    total: u64,
    reserved: u64,
    used: u64,
}

fn memory_of(call: &Call, device: Handle) -> Result<Memory, Code> {
    match call.device(device)? {
        Device::Gpu(gpu) => {
            let gpu = call.state.gpu(gpu)?;
            let memory = &gpu.model()?.memory;
            let used = gpu.load.memory_mib + gpu.processes.iter().filter_map(|process| process.memory_mib).sum::<u64>();
            let usable = memory.total_mib - memory.reserved_mib;
            Ok(Memory {
                total: memory.total_mib * MIB,
                reserved: memory.reserved_mib * MIB,
                used: used.min(usable) * MIB,
            })
        }
        Device::Mig(target) => {
            let (instance, total) = (target.instance, call.state.profile_of(target.instance)?.memory_mib);
            let processes = call.state.gpu(instance.gpu)?.processes.iter();
            let inside = processes.filter(|process| process.gpu_instance == Some(instance.id));
            let used = inside.filter_map(|process| process.memory_mib).sum::<u64>();
            Ok(Memory { total: total * MIB, reserved: 0, used: used.min(total) * MIB })
        }
    }
}

fn gpu_of(call: &Call, device: Handle) -> Result<&Gpu, Code> {
    let gpu = call.gpu(device)?;
    call.state.gpu(gpu)
}

fn temperature(call: &Call, device: Handle) -> Result<u32, Code> {
    let load = gpu_of(call, device)?.load;
    let (idle, above) = TEMPERATURE;
    Ok(load.temperature.unwrap_or(idle + above * load.utilization / 100))
}

fn physical(call: &Call, device: Handle) -> Result<&'static dra_sim::catalog::Model, Code> {
    let gpu = call.gpu(device)?;
    call.state.gpu(gpu)?.model()
}

/// Graphics, SM, memory and video clock (nvml.h `NVML_CLOCK_*`).
fn clock(kind: c_uint, sm: u32, memory: u32) -> Result<u32, Code> {
    match kind {
        0 | 1 | 3 => Ok(sm),
        2 => Ok(memory),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}
