// SPDX-License-Identifier: Apache-2.0
//! The naming rule of MIG profiles, as NVIDIA's go-nvlib applies it (pkg/nvlib/device/mig_profile.go).
//!
//! In: total memory of the board and a profile. Out: the name without `MIG `. The catalog's names come from the driver's
//! tables; this rule only checks them, and it uses whole numbers so that it rounds the same everywhere.

use super::GpuProfile;

/// The name by the rule: memory in eighths of the board, rounded up, then of the board's GiB, rounded half up.
pub fn derive(total_mib: u64, profile: &GpuProfile) -> String {
    let eighths = (profile.memory_mib * 8).div_ceil(total_mib);
    let board_gib = total_mib.div_ceil(1024);
    let gib = (eighths * board_gib * 2 + 8) / 16;
    format!("{}g.{gib}gb{}", profile.slices, suffix(profile.profile))
}

/// Suffix by `NVML_GPU_INSTANCE_PROFILE_*` (nvml.h): media extensions, graphics, no and all media extensions.
const fn suffix(profile: u32) -> &'static str {
    match profile {
        7 | 8 => "+me",
        10..=12 | 17 => "+gfx",
        13 | 14 => "-me",
        15 | 16 => "+me.all",
        _ => "",
    }
}
