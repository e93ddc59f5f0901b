// SPDX-License-Identifier: Apache-2.0
//! The condition of a board under its load: memory, temperature, power, clocks.

use std::ffi::{c_int, c_uint, c_ulonglong};

use dra_sim::Code;
use dra_sim::catalog::Model;
use dra_sim::catalog::observed::Limits;
use dra_sim::state::Gpu;
use nvml_wrapper_sys::bindings as nvml;

use crate::call::{Call, Device, exports};
use crate::ffi::{InOut, ListOut, Out, Versioned, put};
use crate::handle::Handle;

use super::identity::{gpu, model, observed};

const MIB: u64 = 1024 * 1024;
/// Degrees Celsius of an idle board, and above it at full load.
const TEMPERATURE: (u32, u32) = (32, 40);
/// `nvmlClocksEventReasonGpuIdle`.
const IDLE: c_ulonglong = 1;
/// Clock of an idle board, but that of its memory.
const IDLE_MHZ: u32 = 345;

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
        let Limits::Absolute { shutdown, slowdown, gpu_max, memory_max } = observed(call, device)?.temperature.limits else {
            return Err(Code::NOT_SUPPORTED);
        };
        let known = match kind {
            0 => Some(shutdown),
            1 => Some(slowdown),
            2 => memory_max,
            3 => Some(gpu_max),
            _ => None,
        };
        put(degrees, known.ok_or(Code::NOT_SUPPORTED)?)
    };

    nvmlDeviceGetMarginTemperature: (device: Handle, margin: Versioned) |call| {
        let degrees = margin_temperature(call, device)?;
        margin.put(1, |version| nvml::nvmlMarginTemperature_v1_t { version, marginTemperature: degrees })
    };

    nvmlDeviceGetPowerUsage: (device: Handle, milliwatts: Out<'_, c_uint>) |call| {
        put(milliwatts, power_draw(gpu(call, device)?)?)
    };

    nvmlDeviceGetEnforcedPowerLimit + nvmlDeviceGetPowerManagementLimit + nvmlDeviceGetPowerManagementDefaultLimit: (device: Handle, milliwatts: Out<'_, c_uint>) |call| {
        put(milliwatts, physical(call, device)?.power.limit_watts * 1000)
    };

    nvmlDeviceGetPowerManagementLimitConstraints: (device: Handle, low: Out<'_, c_uint>, high: Out<'_, c_uint>) |call| {
        put(low, observed(call, device)?.power.min_watts * 1000)?;
        put(high, physical(call, device)?.power.limit_watts * 1000)
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
        put(megahertz, current_clock(call, device, kind)?)
    };

    nvmlDeviceGetMaxClockInfo: (device: Handle, kind: c_uint, megahertz: Out<'_, c_uint>) |call| {
        put(megahertz, max_clock(physical(call, device)?, kind)?)
    };

    nvmlDeviceGetMaxCustomerBoostClock: (device: Handle, kind: c_uint, megahertz: Out<'_, c_uint>) |call| {
        put(megahertz, boost_clock(physical(call, device)?, kind)?)
    };

    nvmlDeviceGetApplicationsClock + nvmlDeviceGetDefaultApplicationsClock: (device: Handle, kind: c_uint, megahertz: Out<'_, c_uint>) |call| {
        put(megahertz, application_clock(physical(call, device)?, kind)?)
    };

    nvmlDeviceGetClock: (device: Handle, kind: c_uint, which: c_uint, megahertz: Out<'_, c_uint>) |call| {
        let model = physical(call, device)?;
        // Current, application target, application default, customer boost (nvml.h `NVML_CLOCK_ID_*`).
        let clock = match which {
            0 => current_clock(call, device, kind),
            1 | 2 => application_clock(model, kind),
            3 => boost_clock(model, kind),
            _ => Err(Code::INVALID_ARGUMENT),
        };
        put(megahertz, clock?)
    };

    nvmlDeviceGetSupportedMemoryClocks: (device: Handle, count: InOut<'_, c_uint>, clocks: ListOut<c_uint>) |call| {
        let supported = &observed(call, device)?.clocks.supported;
        clocks.put(count, supported.iter().map(|at| at.memory_mhz).collect())
    };

    nvmlDeviceGetSupportedGraphicsClocks: (device: Handle, memory: c_uint, count: InOut<'_, c_uint>, clocks: ListOut<c_uint>) |call| {
        let mut supported = observed(call, device)?.clocks.supported.iter();
        let at = supported.find(|at| at.memory_mhz == memory).ok_or(Code::NOT_FOUND)?;
        clocks.put(count, at.graphics_mhz().collect())
    };

    nvmlDeviceGetCurrentClocksThrottleReasons + nvmlDeviceGetCurrentClocksEventReasons: (device: Handle, reasons: Out<'_, c_ulonglong>) |call| {
        let load = gpu(call, device)?.load;
        put(reasons, load.throttle | if load.utilization == 0 { IDLE } else { 0 })
    };

    nvmlDeviceGetSupportedClocksThrottleReasons + nvmlDeviceGetSupportedClocksEventReasons: (device: Handle, reasons: Out<'_, c_ulonglong>) |call| {
        call.gpu(device)?;
        put(reasons, 0x1ff)
    };

    nvmlDeviceGetUtilizationRates: (device: Handle, rates: Out<'_, nvml::nvmlUtilization_t>) |call| {
        let gpu = gpu(call, device)?;
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

    nvmlDeviceValidateInforom: (device: Handle) |call| call.gpu(device).map(|_| ());

    // Each captured board has a display attached, none an active one.
    nvmlDeviceGetDisplayMode: (device: Handle, on: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        put(on, 1)
    };

    nvmlDeviceGetDisplayActive: (device: Handle, on: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        put(on, 0)
    };

    nvmlDeviceGetCurrPcieLinkGeneration + nvmlDeviceGetMaxPcieLinkGeneration: (device: Handle, generation: Out<'_, c_uint>) |call| {
        put(generation, physical(call, device)?.pci.link_generation)
    };

    nvmlDeviceGetGpuMaxPcieLinkGeneration: (device: Handle, generation: Out<'_, c_uint>) |call| {
        let model = physical(call, device)?;
        put(generation, model.observed.as_ref().map_or(model.pci.link_generation, |observed| observed.max_link_generation))
    };

    nvmlDeviceGetCurrPcieLinkWidth: (device: Handle, lanes: Out<'_, c_uint>) |call| {
        let model = physical(call, device)?;
        put(lanes, model.observed.as_ref().map_or(model.pci.link_width, |observed| observed.link_width))
    };

    nvmlDeviceGetMaxPcieLinkWidth: (device: Handle, lanes: Out<'_, c_uint>) |call| {
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

/// Milliwatts of the board.
pub(super) fn power_draw(gpu: &Gpu) -> Result<u32, Code> {
    let (power, load) = (&gpu.model()?.power, gpu.load);
    let drawn = power.idle_watts + power.limit_watts.saturating_sub(power.idle_watts) * load.utilization / 100;
    Ok(load.watts.unwrap_or(drawn) * 1000)
}

/// Degrees Celsius of the chip; a sensor of the memory shows the same.
pub(super) fn temperature_of(gpu: &Gpu) -> u32 {
    let (idle, above) = TEMPERATURE;
    gpu.load.temperature.unwrap_or(idle + above * gpu.load.utilization / 100)
}

fn temperature(call: &Call, device: Handle) -> Result<u32, Code> {
    gpu(call, device).map(temperature_of)
}

/// Degrees below the limit at which clocks decrease.
pub(super) fn margin_temperature(call: &Call, device: Handle) -> Result<c_int, Code> {
    let Limits::Relative { limit, .. } = observed(call, device)?.temperature.limits else {
        return Err(Code::NOT_SUPPORTED);
    };
    c_int::try_from(temperature(call, device)?).map(|now| limit - now).map_err(|_large| Code::UNKNOWN)
}

fn physical(call: &Call, device: Handle) -> Result<&'static Model, Code> {
    gpu(call, device)?.model()
}

/// Graphics, SM, memory and video clock (nvml.h `NVML_CLOCK_*`).
fn clock(kind: c_uint, sm: u32, memory: u32, video: Option<u32>) -> Result<u32, Code> {
    match kind {
        0 | 1 => Ok(sm),
        2 => Ok(memory),
        3 => video.ok_or(Code::NOT_SUPPORTED),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

fn max_clock(model: &Model, kind: c_uint) -> Result<u32, Code> {
    let video = model.observed.as_ref().map(|observed| observed.clocks.video_mhz);
    clock(kind, model.clocks.sm_mhz, model.clocks.memory_mhz, video)
}

fn current_clock(call: &Call, device: Handle, kind: c_uint) -> Result<u32, Code> {
    let gpu = gpu(call, device)?;
    let max = max_clock(gpu.model()?, kind)?;
    let is_memory = kind == 2;
    Ok(if gpu.load.utilization == 0 && !is_memory { max.min(IDLE_MHZ) } else { max })
}

fn boost_clock(model: &Model, kind: c_uint) -> Result<u32, Code> {
    clock(kind, model.clocks.sm_mhz, model.clocks.memory_mhz, None)
}

fn application_clock(model: &Model, kind: c_uint) -> Result<u32, Code> {
    let sm = model.observed.as_ref().and_then(|observed| observed.clocks.application_mhz);
    clock(kind, sm.ok_or(Code::NOT_SUPPORTED)?, model.clocks.memory_mhz, None)
}
