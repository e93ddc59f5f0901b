// SPDX-License-Identifier: Apache-2.0
//! GPU models as data: the properties of each board and its MIG profiles.
//!
//! In: the JSON files of `catalog/`, embedded at compile time, each with its `source`. Out: [`Model`] values by name.
//! It never computes a figure: names, sizes and placements are as the real driver reports them, and a test compares the
//! profile names with NVIDIA's own naming rule.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use observed::Observed;

mod features;

pub mod observed;
pub mod profile_name;

/// One board.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Name in this catalog, such as `h100-80`.
    pub id: String,
    /// Short names for the command line, such as `h100`.
    pub aliases: Vec<String>,
    /// Product name, `nvmlDeviceGetName`.
    pub name: String,
    /// Where the figures come from.
    pub source: String,
    /// `nvmlDeviceGetArchitecture`.
    pub architecture: Architecture,
    /// Major and minor, `nvmlDeviceGetCudaComputeCapability`.
    pub compute_capability: (i32, i32),
    /// `nvmlDeviceGetPciInfo_v3` and the link.
    pub pci: PciModel,
    /// `nvmlDeviceGetMemoryInfo_v2` and the bus.
    pub memory: Memory,
    /// Streaming multiprocessors of the whole GPU; no profile has more.
    pub multiprocessors: u32,
    /// CUDA cores, `nvmlDeviceGetNumGpuCores`.
    pub cores: u32,
    /// Limit and draw.
    pub power: Power,
    /// `nvmlDeviceGetMaxClockInfo`.
    pub clocks: Clocks,
    /// How the GPU sees host memory.
    pub addressing: Addressing,
    /// `nvmlDeviceGetVbiosVersion`, such as `96.00.89.00.01`.
    pub vbios: String,
    /// `nvmlDeviceGetBoardPartNumber`, such as `692-2G520-0200-000`.
    pub board_part_number: String,
    /// Whether the memory has ECC, `nvmlDeviceGetEccMode`.
    pub ecc: bool,
    /// SXM module or PCIe card.
    pub form: Form,
    /// Absent if no output of nvidia-smi on such a board is known.
    pub observed: Option<Observed>,
    /// Absent on boards without MIG.
    pub mig: Option<MigModel>,
}

/// `nvmlDeviceArchitecture_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Architecture {
    /// T4.
    Turing,
    /// A100.
    Ampere,
    /// L4, L40S.
    Ada,
    /// H100, H200.
    Hopper,
    /// B200, GB200.
    Blackwell,
}

impl Architecture {
    /// The number NVML reports (nvml.h `NVML_DEVICE_ARCH_*`).
    pub const fn number(self) -> u32 {
        match self {
            Self::Turing => 6,
            Self::Ampere => 7,
            Self::Ada => 8,
            Self::Hopper => 9,
            Self::Blackwell => 10,
        }
    }
}

/// PCI identity and link of a board.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PciModel {
    /// Device and vendor as NVML packs them, for example `0x233010DE`.
    pub device_id: HexId,
    /// Subsystem and its vendor, packed the same way.
    pub subsystem_id: HexId,
    /// Class, sub-class and interface: `0x030200` is a 3D controller.
    pub class_id: HexId,
    /// Highest PCIe generation of the link, such as 5.
    pub link_generation: u32,
    /// Lanes, such as 16.
    pub link_width: u32,
}

/// A number written in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HexId(pub u32);

impl TryFrom<String> for HexId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = text.strip_prefix("0x").ok_or_else(|| format!("{text} does not begin with 0x"))?;
        u32::from_str_radix(digits, 16).map(Self).map_err(|error| format!("{text}: {error}"))
    }
}

/// Memory of a board, in MiB.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Total as NVML reports it, a little less than the physical memory.
    pub total_mib: u64,
    /// The part of it that the driver reserves.
    pub reserved_mib: u64,
    /// Size of the BAR1 aperture, `nvmlDeviceGetBAR1MemoryInfo`.
    pub bar1_mib: u64,
    /// `nvmlDeviceGetMemoryBusWidth`.
    pub bus_width_bits: u32,
}

/// Power of a board.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// Enforced limit, `nvmlDeviceGetEnforcedPowerLimit`.
    pub limit_watts: u32,
    /// Draw without work, `nvmlDeviceGetPowerUsage`.
    pub idle_watts: u32,
}

/// Highest clocks of a board.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clocks {
    /// Of the multiprocessors.
    pub sm_mhz: u32,
    /// Of the memory.
    pub memory_mhz: u32,
}

/// `nvmlDeviceGetAddressingMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addressing {
    /// Host memory only through copies and mappings.
    None,
    /// Host memory through the kernel's heterogeneous memory management.
    Hmm,
    /// Host memory through address translation services of the CPU.
    Ats,
}

/// The form factor of a board, which determines its PCI address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A module on a baseboard; it has a module id.
    Sxm,
    /// A card in a slot.
    Pcie,
}

/// MIG abilities of a board.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigModel {
    /// Where profiles and placements come from.
    pub source: String,
    /// Memory slices of the whole GPU; placements of GPU instances count in them.
    pub memory_slices: u32,
    /// Compute slices of the whole GPU.
    pub compute_slices: u32,
    /// Upper bound of `nvmlDeviceGetMaxMigDeviceCount`.
    pub max_devices: u32,
    /// What switching the mode takes.
    pub toggle: Toggle,
    /// Whether the board (Ampere) or the driver (Hopper and later) stores the mode.
    pub survives_reboot: bool,
    /// Every GPU instance profile, as `nvidia-smi mig -lgip` lists them.
    pub profiles: Vec<GpuProfile>,
}

/// What switching MIG mode takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Toggle {
    /// Becomes active at once if no client uses the GPU (Hopper and later).
    Live,
    /// Stays pending until the GPU is reset (Ampere).
    Reset,
}

/// A GPU instance profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuProfile {
    /// `NVML_GPU_INSTANCE_PROFILE_*`, the number one iterates over.
    pub profile: u32,
    /// The profile id that all other calls and `nvidia-smi mig -cgi` take.
    pub id: u32,
    /// Name without the leading `MIG `.
    pub name: String,
    /// Compute slices of an instance.
    pub slices: u32,
    /// Memory of an instance, `memorySizeMB` of `nvmlGpuInstanceProfileInfo_t`, in MiB.
    pub memory_mib: u64,
    /// Of an instance.
    pub multiprocessors: u32,
    /// Engines of an instance.
    pub engines: Engines,
    /// How many fit on an empty GPU, `instanceCount`.
    pub max_instances: u32,
    /// Where an instance may lie, `nvmlDeviceGetGpuInstancePossiblePlacements_v2`.
    pub placements: Placements,
    /// What an instance can be divided into.
    pub compute: Vec<ComputeProfile>,
}

/// Engines of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engines {
    /// Copy engines (CE).
    pub copy: u32,
    /// Video decoders (NVDEC).
    pub decoder: u32,
    /// Video encoders (NVENC).
    pub encoder: u32,
    /// JPEG decoders (NVJPG).
    pub jpeg: u32,
    /// Optical flow accelerators (OFA).
    pub ofa: u32,
}

impl Engines {
    /// Engines of both.
    pub const fn plus(self, other: Self) -> Self {
        Self {
            copy: self.copy + other.copy,
            decoder: self.decoder + other.decoder,
            encoder: self.encoder + other.encoder,
            jpeg: self.jpeg + other.jpeg,
            ofa: self.ofa + other.ofa,
        }
    }

    /// Whether no kind exceeds `limit`.
    pub const fn within(self, limit: Self) -> bool {
        self.copy <= limit.copy
            && self.decoder <= limit.decoder
            && self.encoder <= limit.encoder
            && self.jpeg <= limit.jpeg
            && self.ofa <= limit.ofa
    }

    const fn at_least(self, other: Self) -> Self {
        const fn max(a: u32, b: u32) -> u32 {
            if a > b { a } else { b }
        }
        Self {
            copy: max(self.copy, other.copy),
            decoder: max(self.decoder, other.decoder),
            encoder: max(self.encoder, other.encoder),
            jpeg: max(self.jpeg, other.jpeg),
            ofa: max(self.ofa, other.ofa),
        }
    }
}

/// Where instances of a profile may start; all have the same size.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placements {
    /// First memory slices, ascending.
    pub starts: Vec<u32>,
    /// Memory slices an instance covers.
    pub size: u32,
}

impl Placements {
    /// Every placement, in order.
    pub fn all(&self) -> impl Iterator<Item = Placement> + '_ {
        self.starts.iter().map(|&start| Placement { start, size: self.size })
    }
}

/// A range of memory slices (GPU instance) or compute slices (compute instance).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Placement {
    /// The first slice, from 0.
    pub start: u32,
    pub size: u32,
}

impl Placement {
    /// Whether the two ranges share a slice.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.start + other.size && other.start < self.start + self.size
    }
}

/// A compute instance profile inside one GPU instance profile. On every GPU seen the id equals the profile enumeration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComputeProfile {
    /// Number of the profile within its GPU instance profile.
    pub id: u32,
    /// Compute slices of an instance.
    pub slices: u32,
    /// Of an instance.
    pub multiprocessors: u32,
    /// First compute slices within the GPU instance, ascending.
    pub starts: Vec<u32>,
}

impl ComputeProfile {
    /// Every placement, in order.
    pub fn placements(&self) -> impl Iterator<Item = Placement> + '_ {
        self.starts.iter().map(|&start| Placement { start, size: self.slices })
    }
}

impl MigModel {
    /// The profile with this id.
    pub fn profile(&self, id: u32) -> Option<&GpuProfile> {
        self.profiles.iter().find(|profile| profile.id == id)
    }

    /// The engines of the whole GPU: the largest count of each kind over all profiles.
    pub fn engines(&self) -> Engines {
        self.profiles.iter().fold(Engines::default(), |sum, profile| sum.at_least(profile.engines))
    }
}

impl GpuProfile {
    /// The compute profile with this id.
    pub fn compute_profile(&self, id: u32) -> Option<&ComputeProfile> {
        self.compute.iter().find(|profile| profile.id == id)
    }

    /// Name of a compute instance in an instance of this profile: `2c.3g.20gb`, or the plain name when it takes all slices.
    pub fn compute_name(&self, compute: &ComputeProfile) -> String {
        if compute.slices == self.slices { self.name.clone() } else { format!("{}c.{}", compute.slices, self.name) }
    }
}

const FILES: [&str; 9] = [
    include_str!("../catalog/t4.json"),
    include_str!("../catalog/l4.json"),
    include_str!("../catalog/l40s.json"),
    include_str!("../catalog/a100-40.json"),
    include_str!("../catalog/a100-80.json"),
    include_str!("../catalog/h100-80.json"),
    include_str!("../catalog/h200.json"),
    include_str!("../catalog/b200.json"),
    include_str!("../catalog/gb200.json"),
];

/// All models. The files are part of the program and a test reads each, so an unreadable one is left out here.
pub fn models() -> &'static [Model] {
    static MODELS: OnceLock<Vec<Model>> = OnceLock::new();
    MODELS.get_or_init(|| FILES.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
}

/// The model with this id or alias.
pub fn model(name: &str) -> Option<&'static Model> {
    models().iter().find(|model| model.id == name || model.aliases.iter().any(|alias| alias == name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_is_a_model() {
        for text in FILES {
            serde_json::from_str::<Model>(text).unwrap();
        }
        assert_eq!(models().len(), FILES.len());
    }

    #[test]
    fn names_and_ids_are_unique() {
        let names: Vec<&str> =
            models().iter().flat_map(|model| model.aliases.iter().chain([&model.id])).map(String::as_str).collect();
        assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len());
        for mig in models().iter().filter_map(|model| model.mig.as_ref()) {
            let ids: BTreeSet<u32> = mig.profiles.iter().map(|profile| profile.id).collect();
            let kinds: BTreeSet<u32> = mig.profiles.iter().map(|profile| profile.profile).collect();
            assert_eq!((ids.len(), kinds.len()), (mig.profiles.len(), mig.profiles.len()));
        }
    }

    #[test]
    fn every_model_names_its_source() {
        for model in models() {
            assert!(!model.source.is_empty() && model.mig.as_ref().is_none_or(|mig| !mig.source.is_empty()));
        }
    }

    #[test]
    fn placements_are_legal() {
        for model in models() {
            let Some(mig) = &model.mig else { continue };
            for profile in &mig.profiles {
                let all: Vec<Placement> = profile.placements.all().collect();
                assert!(all.iter().all(|at| at.start + at.size <= mig.memory_slices), "{} {}", model.id, profile.name);
                assert!(all.windows(2).all(|pair| pair[0].start < pair[1].start));
                assert!(
                    profile.memory_mib <= model.memory.total_mib && profile.multiprocessors <= model.multiprocessors
                );
                for compute in &profile.compute {
                    assert!(compute.placements().all(|at| at.start + at.size <= profile.slices));
                }
                let whole = profile.compute.iter().find(|compute| compute.slices == profile.slices).unwrap();
                assert_eq!(whole.multiprocessors, profile.multiprocessors);
            }
        }
    }

    #[test]
    fn profile_names_follow_the_rule_of_the_driver() {
        for model in models() {
            for profile in model.mig.iter().flat_map(|mig| &mig.profiles) {
                assert_eq!(profile_name::derive(model.memory.total_mib, profile), profile.name, "{}", model.id);
            }
        }
    }
}
