// SPDX-License-Identifier: Apache-2.0
//! The measurements of a GPU by NVML. A value whose call fails is absent: the health of the GPU is judged elsewhere.

use dra_model::MigUuid;
use dra_nvml::{Device, NvmlError};

use crate::measurements::{Measurements, MemoryUse, NvLinks};

pub(super) fn read(device: &Device<'_>) -> Measurements {
    let processes = device.process_memory().unwrap_or_default();
    let nvlinks = device.nvlinks().ok().filter(|links| *links != NvLinks::default());
    Measurements {
        memory: device.memory().ok(),
        utilization_percent: device.utilization().ok(),
        temperature_celsius: device.temperature().ok(),
        power_milliwatts: device.power().ok(),
        power_limit_milliwatts: device.power_limit().ok(),
        sm_clock_mhz: device.sm_clock().ok(),
        memory_clock_mhz: device.memory_clock().ok(),
        throttle_reasons: device.throttle_reasons().ok(),
        corrected_ecc_errors: device.corrected_ecc_errors().ok(),
        uncorrected_ecc_errors: device.uncorrected_ecc_errors().ok(),
        remapped_rows: device.remapped_rows().ok(),
        fabric_state: device.fabric_state().ok().filter(|state| *state != 0),
        nvlink_errors: nvlinks.map(|_links| device.nvlink_errors()).unwrap_or_default(),
        nvlinks,
        mig_devices: mig_devices(device).unwrap_or_default(),
        processes: processes.into_iter().filter_map(|(id, bytes)| Some((id, bytes?))).collect(),
    }
}

fn mig_devices(gpu: &Device<'_>) -> Result<Vec<(MigUuid, MemoryUse)>, NvmlError> {
    if !gpu.mig_mode()? {
        return Ok(Vec::new());
    }
    let mut devices = Vec::new();
    for slot in 0..gpu.mig_slots()? {
        let Some(device) = gpu.mig_device(slot)? else { continue };
        if let (Ok(uuid), Ok(memory)) = (device.uuid()?.parse(), device.memory()) {
            devices.push((uuid, memory));
        }
    }
    Ok(devices)
}
