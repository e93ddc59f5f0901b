// SPDX-License-Identifier: Apache-2.0
//! What a GPU measures, for its users to watch. Nothing decides by it.

use dra_model::MigUuid;
pub use dra_nvml::{Memory as MemoryUse, NvLinkErrors, NvLinks, RemappedRows};

/// The measurements of a GPU at one time. What the GPU or its driver does not support is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measurements {
    pub memory: Option<MemoryUse>,
    /// Absent in MIG mode, where NVML measures no load.
    pub utilization_percent: Option<u32>,
    pub temperature_celsius: Option<u32>,
    pub power_milliwatts: Option<u32>,
    /// At which the GPU limits its power.
    pub power_limit_milliwatts: Option<u32>,
    pub sm_clock_mhz: Option<u32>,
    pub memory_clock_mhz: Option<u32>,
    /// Bits `nvmlClocksEventReason…`.
    pub throttle_reasons: Option<u64>,
    /// In the life of the GPU.
    pub corrected_ecc_errors: Option<u64>,
    pub uncorrected_ecc_errors: Option<u64>,
    pub remapped_rows: Option<RemappedRows>,
    /// `nvmlGpuFabricState_t`; absent without a fabric.
    pub fabric_state: Option<u32>,
    /// Absent without NVLink.
    pub nvlinks: Option<NvLinks>,
    pub nvlink_errors: NvLinkErrors,
    pub mig_devices: Vec<(MigUuid, MemoryUse)>,
    /// The bytes that each process uses, by its id in the PID namespace of the host.
    pub processes: Vec<(u32, u64)>,
}
