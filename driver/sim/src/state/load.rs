// SPDX-License-Identifier: Apache-2.0
//! What a board measures beside its condition.

use serde::{Deserialize, Serialize};

/// What a board is busy with. The default is an idle board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Percent, `nvmlDeviceGetUtilizationRates`. Power, temperature and clocks follow it.
    pub utilization: u32,
    /// In use beside that of the declared processes.
    pub memory_mib: u64,
    /// Degrees Celsius, instead of what follows from the utilization.
    pub temperature: Option<u32>,
    /// Instead of what follows from the utilization.
    pub watts: Option<u32>,
    /// Bits `nvmlClocksEventReason…` beside idle.
    pub throttle: u64,
}

/// What happened to the memory of a board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryErrors {
    /// `nvmlDeviceGetTotalEccErrors`, volatile and aggregate.
    pub corrected: u64,
    pub uncorrected: u64,
    /// `nvmlDeviceGetRemappedRows`.
    pub rows_corrected: u32,
    pub rows_uncorrected: u32,
    pub remap_pending: bool,
    pub remap_failed: bool,
}

/// What happened to the NVLinks of a board. The default is a board whose links are all up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvLinkFaults {
    /// Links that are down, the last ones.
    pub down: u32,
    /// `NVML_FI_DEV_NVLINK_*_ERROR_COUNT_TOTAL`.
    pub crc_errors: u64,
    pub replays: u64,
    pub recoveries: u64,
}

/// Whether a board is registered with its NVLink fabric, `nvmlGpuFabricState_t`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fabric {
    #[default]
    Completed,
    Pending,
}
