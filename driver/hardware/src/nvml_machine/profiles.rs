// SPDX-License-Identifier: Apache-2.0
//! The MIG profiles of the GPUs. The table takes some thirty calls and cannot change while a driver is loaded.

use std::sync::Arc;

use dra_model::{Bytes, Engines, GpuUuid, MigLayout, MigProfile, Placement};
use dra_nvml::error::code;
use dra_nvml::{Device, GpuInstanceProfile, MigAttributes, Nvml, NvmlError};

use super::constants::DriverConstants;

/// The profiles of one GPU.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProfileTable {
    pub(super) layout: MigLayout,
}

impl ProfileTable {
    pub(super) fn name(&self, profile_id: u32) -> Option<&str> {
        self.layout.profile(profile_id).map(|profile| profile.name.as_str())
    }

    /// The resources of a MIG device with some compute slices of a GPU instance of this profile. Resources that all compute
    /// instances of a GPU instance use together are not divided.
    pub(super) fn attributes(&self, profile_id: u32, compute_slices: u32) -> Option<MigAttributes> {
        let MigProfile { slices, memory, engines, .. } = self.layout.profile(profile_id)?;
        Some(MigAttributes {
            multiprocessors: engines.multiprocessors.saturating_mul(compute_slices) / (*slices).max(1),
            copy_engines: engines.copy_engines,
            decoders: engines.decoders,
            encoders: engines.encoders,
            jpeg_engines: engines.jpeg_engines,
            ofa_engines: engines.ofa_engines,
            gpu_instance_slices: *slices,
            compute_instance_slices: compute_slices,
            memory_mib: memory.mib(),
        })
    }
}

/// Reads the table, once per GPU and loaded driver.
pub(super) fn table(
    cache: &DriverConstants<ProfileTable>,
    nvml: &Arc<Nvml>,
    device: &Device<'_>,
    uuid: &GpuUuid,
    memory: Option<u64>,
) -> Result<Arc<ProfileTable>, NvmlError> {
    cache.get(nvml, uuid, || read(device, memory))
}

/// The first architecture whose MIG mode changes without a reset of the GPU: Hopper (`PDB_PROP_GPU_RESETLESS_MIG_SUPPORTED` in
/// NVIDIA's open kernel modules).
const FIRST_RESETLESS_ARCHITECTURE: u32 = 9;

/// `NVML_DEVICE_ARCH_UNKNOWN`.
const UNKNOWN_ARCHITECTURE: u32 = u32::MAX;

fn read(device: &Device<'_>, memory: Option<u64>) -> Result<ProfileTable, NvmlError> {
    let listed = device.gpu_instance_profiles()?;
    let mut profiles = listed.iter().map(|one| profile(device, one, memory)).collect::<Result<Vec<_>, _>>()?;
    profiles.sort_by_key(|profile| profile.id);
    let layout = MigLayout {
        memory_slices: memory_slices(&profiles)?,
        engines: largest(&profiles),
        resetless: is_resetless(device)?,
        profiles,
    };
    Ok(ProfileTable { layout })
}

fn is_resetless(device: &Device<'_>) -> Result<bool, NvmlError> {
    match device.architecture() {
        Ok(number) => Ok(number >= FIRST_RESETLESS_ARCHITECTURE && number != UNKNOWN_ARCHITECTURE),
        Err(error) if error.is_unsupported() => Ok(false),
        Err(error) => Err(error),
    }
}

fn profile(device: &Device<'_>, listed: &GpuInstanceProfile, memory: Option<u64>) -> Result<MigProfile, NvmlError> {
    let placements = match device.possible_placements(listed.id) {
        Ok(placements) => placements,
        // Some profile may have none, for example one for graphics.
        Err(error) if error.code == code::NOT_SUPPORTED => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(MigProfile {
        id: listed.id,
        name: profile_name(listed, memory),
        slices: listed.slices,
        memory: Bytes::from_mib(listed.memory_mib),
        engines: engines(listed),
        placements: placements.into_iter().map(|at| Placement { start: at.start, size: at.size }).collect(),
    })
}

fn engines(profile: &GpuInstanceProfile) -> Engines {
    Engines {
        multiprocessors: profile.multiprocessors,
        copy_engines: profile.copy_engines,
        decoders: profile.decoders,
        encoders: profile.encoders,
        jpeg_engines: profile.jpeg_engines,
        ofa_engines: profile.ofa_engines,
    }
}

/// How far the placements of all profiles reach. A GPU without any cannot be divided.
fn memory_slices(profiles: &[MigProfile]) -> Result<u32, NvmlError> {
    let placements = profiles.iter().flat_map(|profile| &profile.placements);
    match placements.map(|at| at.start.saturating_add(at.size)).max() {
        Some(reach) if reach > 0 => Ok(reach),
        Some(_) | None => Err(NvmlError { call: "nvmlDeviceGetGpuInstanceProfileInfoV", code: code::NOT_SUPPORTED }),
    }
}

/// The largest count of each engine over all profiles: the engines of the whole GPU.
fn largest(profiles: &[MigProfile]) -> Engines {
    profiles.iter().map(|profile| profile.engines).fold(Engines::default(), |largest, engines| Engines {
        multiprocessors: largest.multiprocessors.max(engines.multiprocessors),
        copy_engines: largest.copy_engines.max(engines.copy_engines),
        decoders: largest.decoders.max(engines.decoders),
        encoders: largest.encoders.max(engines.encoders),
        jpeg_engines: largest.jpeg_engines.max(engines.jpeg_engines),
        ofa_engines: largest.ofa_engines.max(engines.ofa_engines),
    })
}

/// The driver's own name for a profile, or the name that NVIDIA's tools derive for drivers without names (before R470).
fn profile_name(profile: &GpuInstanceProfile, memory: Option<u64>) -> String {
    profile.name.clone().unwrap_or_else(|| derived_name(profile, memory))
}

fn derived_name(profile: &GpuInstanceProfile, memory: Option<u64>) -> String {
    format!("{}{}", sized_name(profile.slices, profile.memory_mib, memory), suffix(profile.number))
}

/// `{slices}g.{memory}gb`, where the memory is that of the profile in eighths of the GPU, rounded up, times the GPU's GiB,
/// rounded up (go-nvlib's rule; checked against the names of A100 to B300).
pub(super) fn sized_name(slices: u32, memory_mib: u64, memory: Option<u64>) -> String {
    let own = memory_mib << 20;
    let gib = match memory {
        Some(total) if total > 0 => {
            let eighths = own.saturating_mul(8).div_ceil(total);
            (eighths.saturating_mul(total.div_ceil(1 << 30)).saturating_add(4)) / 8
        }
        Some(_) | None => own.div_ceil(1 << 30),
    };
    format!("{slices}g.{gib}gb")
}

/// By `NVML_GPU_INSTANCE_PROFILE_*`: media extensions, graphics, none or all of the media engines.
fn suffix(number: u32) -> &'static str {
    match number {
        7 | 8 => "+me",
        10..=12 | 17 => "+gfx",
        13 | 14 => "-me",
        15 | 16 => "+me.all",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(number: u32, slices: u32, memory_mib: u64, name: Option<&str>) -> GpuInstanceProfile {
        GpuInstanceProfile {
            id: 0,
            number,
            name: name.map(str::to_owned),
            slices,
            multiprocessors: 0,
            copy_engines: 0,
            decoders: 0,
            encoders: 0,
            jpeg_engines: 0,
            ofa_engines: 0,
            memory_mib,
        }
    }

    #[test]
    fn derived_names_are_those_of_the_mig_user_guide() {
        for (total_mib, number, slices, memory_mib, expect) in [
            (40960, 0, 1, 4864, "1g.5gb"),
            (40960, 9, 1, 9984, "1g.10gb"),
            (40960, 4, 7, 40448, "7g.40gb"),
            (81559, 0, 1, 9984, "1g.10gb"),
            (81559, 7, 1, 9984, "1g.10gb+me"),
            (81559, 2, 3, 40448, "3g.40gb"),
            (143_771, 0, 1, 16384, "1g.18gb"),
            (143_771, 2, 3, 71168, "3g.71gb"),
            (183_359, 0, 1, 21504, "1g.23gb"),
            (189_471, 9, 1, 46592, "1g.47gb"),
        ] {
            let name = profile_name(&profile(number, slices, memory_mib, None), Some(total_mib << 20));
            assert_eq!(name, expect, "{total_mib} MiB");
        }
        assert_eq!(profile_name(&profile(0, 1, 9984, Some("1g.12gb")), Some(81559 << 20)), "1g.12gb");
        assert_eq!(profile_name(&profile(0, 1, 9984, None), None), "1g.10gb");
    }

    #[test]
    fn a_part_of_a_gpu_instance_has_its_part_of_the_multiprocessors() {
        let engines = Engines { multiprocessors: 60, copy_engines: 3, ..Engines::default() };
        let (name, memory) = ("3g.40gb".to_owned(), Bytes::from_mib(40448));
        let profile = MigProfile { id: 9, name, slices: 3, memory, engines, placements: Vec::new() };
        let table = ProfileTable { layout: MigLayout { profiles: vec![profile], ..MigLayout::default() } };
        let part = table.attributes(9, 1).unwrap();
        assert_eq!((part.multiprocessors, part.copy_engines, part.memory_mib), (20, 3, 40448));
        assert_eq!((part.compute_instance_slices, part.gpu_instance_slices), (1, 3));
        assert_eq!(table.attributes(9, 3).map(|whole| whole.multiprocessors), Some(60));
        assert_eq!(table.attributes(19, 1), None);
    }
}
