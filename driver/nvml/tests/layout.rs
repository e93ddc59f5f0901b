// SPDX-License-Identifier: Apache-2.0
//! The C structs this crate passes by pointer have the size of `nvml.h`. A wrong size corrupts memory.

use std::mem::{offset_of, size_of};

use nvml_wrapper_sys::bindings as c;

#[test]
fn structs_have_the_sizes_of_the_header() {
    for (name, size, expect) in [
        ("nvmlDeviceAddressingMode_v1_t", size_of::<c::nvmlDeviceAddressingMode_t>(), 8),
        ("nvmlMemory_t", size_of::<c::nvmlMemory_t>(), 24),
        ("nvmlMemory_v2_t", size_of::<c::nvmlMemory_v2_t>(), 40),
        ("nvmlPciInfo_t", size_of::<c::nvmlPciInfo_t>(), 68),
        ("nvmlDeviceAttributes_t", size_of::<c::nvmlDeviceAttributes_t>(), 40),
        ("nvmlGpuInstancePlacement_t", size_of::<c::nvmlGpuInstancePlacement_t>(), 8),
        ("nvmlGpuInstanceProfileInfo_t", size_of::<c::nvmlGpuInstanceProfileInfo_t>(), 48),
        ("nvmlGpuInstanceProfileInfo_v2_t", size_of::<c::nvmlGpuInstanceProfileInfo_v2_t>(), 152),
        ("nvmlGpuInstanceInfo_t", size_of::<c::nvmlGpuInstanceInfo_t>(), 24),
        ("nvmlComputeInstancePlacement_t", size_of::<c::nvmlComputeInstancePlacement_t>(), 8),
        ("nvmlComputeInstanceProfileInfo_t", size_of::<c::nvmlComputeInstanceProfileInfo_t>(), 36),
        ("nvmlComputeInstanceInfo_t", size_of::<c::nvmlComputeInstanceInfo_t>(), 32),
    ] {
        assert_eq!(size, expect, "{name}");
    }
}

#[test]
fn fields_lie_where_the_header_puts_them() {
    for (name, offset, expect) in [
        ("profile v1 memory", offset_of!(c::nvmlGpuInstanceProfileInfo_t, memorySizeMB), 40),
        ("profile v2 id", offset_of!(c::nvmlGpuInstanceProfileInfo_v2_t, id), 4),
        ("profile v2 memory", offset_of!(c::nvmlGpuInstanceProfileInfo_v2_t, memorySizeMB), 48),
        ("profile v2 name", offset_of!(c::nvmlGpuInstanceProfileInfo_v2_t, name), 56),
        ("GPU instance placement", offset_of!(c::nvmlGpuInstanceInfo_t, placement), 16),
        ("compute instance profile", offset_of!(c::nvmlComputeInstanceInfo_t, profileId), 20),
        ("compute instance placement", offset_of!(c::nvmlComputeInstanceInfo_t, placement), 24),
        ("addressing mode", offset_of!(c::nvmlDeviceAddressingMode_t, value), 4),
    ] {
        assert_eq!(offset, expect, "{name}");
    }
}
