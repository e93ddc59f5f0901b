// SPDX-License-Identifier: Apache-2.0
//! What `nvidia-smi -q -x` printed of a real board and no data sheet has.
//!
//! In: the member `observed` of a catalog file. Out: values for NVML calls. A model of which no such output is known has none of them,
//! and the calls are not supported there. A test compares each value with the output itself.

use serde::Deserialize;

/// The answers of one board.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// Part number of the chip, such as `2330-885-A1`.
    pub gpu_part_number: String,
    pub inforom: Inforom,
    /// `nvmlDeviceGetPersistenceMode` of a machine that has just booted.
    pub persistence: bool,
    /// Lanes in use, `nvmlDeviceGetCurrPcieLinkWidth`.
    pub link_width: u32,
    /// PCIe generation of the GPU itself, `nvmlDeviceGetGpuMaxPcieLinkGeneration`; the link may be of an earlier one.
    pub max_link_generation: u32,
    pub atomics: Atomics,
    pub power: ObservedPower,
    pub clocks: ObservedClocks,
    pub temperature: Temperature,
    /// Memory banks with all their spare rows, `nvmlDeviceGetRowRemapperHistogram`.
    pub spare_row_banks: Option<u32>,
    /// Whether the board can report memory that cannot be repaired, of which it has none: `nvmlDeviceGetUnrepairableMemoryFlag_v1`.
    pub unrepairable_memory_flag: bool,
    /// Whether there is a sparse operation mode, which is off.
    pub sparse_operation: bool,
    /// Whether the chip-to-chip link is on, `nvmlDeviceGetC2cModeInfoV`; absent without one.
    pub c2c_enabled: Option<bool>,
    /// `nvmlDeviceGetLastBBXFlushTime`.
    pub bbx_flush: Option<BbxFlush>,
    pub platform: Option<Platform>,
    /// What a board reports that is registered with its fabric.
    pub fabric: Option<ObservedFabric>,
}

/// `nvmlDeviceGetInforomVersion`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inforom {
    pub image: String,
    pub oem: String,
    pub ecc: String,
}

/// `NVML_FI_DEV_PCIE_OUTBOUND_ATOMICS_MASK` and the inbound one.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Atomics {
    pub outbound: Option<u32>,
    pub inbound: Option<u32>,
}

/// Power of a board beside its limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObservedPower {
    /// Lowest limit that can be set, `nvmlDeviceGetPowerManagementLimitConstraints`.
    pub min_watts: u32,
    /// Draw of the memory without work, `NVML_FI_DEV_POWER_AVERAGE` in the memory scope.
    pub memory_idle_watts: Option<u32>,
    /// Of a board with a processor.
    pub module: Option<ModulePower>,
}

/// Power of GPUs and processor together, the module scope of `NVML_FI_DEV_POWER_*`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModulePower {
    /// Draw without work.
    pub idle_watts: u32,
    pub limit_watts: u32,
    /// Lowest limit that can be set.
    pub min_watts: u32,
}

/// Clocks of a board beside the highest ones.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObservedClocks {
    /// Highest clock of the video engines.
    pub video_mhz: u32,
    /// `nvmlDeviceGetApplicationsClock` of the multiprocessors, the default one too. Newer drivers do not report it.
    pub application_mhz: Option<u32>,
    /// By memory clock, highest first: `nvmlDeviceGetSupportedMemoryClocks`.
    pub supported: Vec<SupportedClocks>,
}

/// The clocks of the multiprocessors at one memory clock, in equal steps.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupportedClocks {
    pub memory_mhz: u32,
    /// The highest one.
    pub sm_khz: u32,
    pub step_khz: u32,
    pub count: u32,
}

impl SupportedClocks {
    /// `nvmlDeviceGetSupportedGraphicsClocks`: highest first, fractions cut.
    pub fn graphics_mhz(self) -> impl Iterator<Item = u32> {
        (0..self.count).map(move |step| self.sm_khz.saturating_sub(step * self.step_khz) / 1000)
    }
}

/// Limits of the temperature in degrees Celsius.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Temperature {
    pub limits: Limits,
    /// Whether the memory has a sensor of its own.
    pub memory_sensor: bool,
}

/// How a board states its limits.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Limits {
    /// Up to Ampere, `nvmlDeviceGetTemperatureThreshold`.
    Absolute { shutdown: u32, slowdown: u32, gpu_max: u32, memory_max: Option<u32> },
    /// Since Ada, relative to `limit` (temperature plus margin), at which clocks decrease: `nvmlDeviceGetMarginTemperature` and `NVML_FI_DEV_TEMPERATURE_*_TLIMIT`.
    Relative { limit: i32, shutdown: i32, slowdown: i32, gpu_max: i32, memory_max: Option<i32> },
}

/// The last time at which the board stored its black box.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BbxFlush {
    /// Microseconds since 1970.
    pub timestamp_us: u64,
    pub duration_us: u64,
}

/// `nvmlPlatformInfo_v2_t`: where the board is in its rack.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// Of the rack, 13 characters.
    pub chassis_serial: String,
    /// Counts switches.
    pub slot: u8,
    /// Counts no switches.
    pub tray: u8,
    /// Of the nodes in the slot.
    pub host: u8,
    /// 1 for `Switch Connected`; nvml.h has no names for the numbers, NVIDIA's nvml-mock has.
    pub peer_type: u8,
}

/// `nvmlGpuFabricInfo_v3_t` without status and state.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObservedFabric {
    pub cluster: ClusterUuid,
    pub clique: u32,
    pub health: FabricHealth,
}

/// The UUID of a fabric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ClusterUuid(pub [u8; 16]);

impl TryFrom<String> for ClusterUuid {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = text.replace('-', "");
        let number = u128::from_str_radix(&digits, 16).map_err(|error| format!("{text}: {error}"))?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// The health of a fabric; 0 where there is no information.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FabricHealth {
    /// `NVML_GPU_FABRIC_HEALTH_MASK_*`.
    pub mask: u32,
    /// `NVML_GPU_FABRIC_HEALTH_SUMMARY_*`.
    pub summary: u8,
}
