// SPDX-License-Identifier: Apache-2.0
//! The attributes of devices, with the names of NVIDIA's driver.
//!
//! A string that NVML does not report is `Unknown`, because a selector that reads a missing attribute fails for the whole node. A
//! number that NVML does not report is left out.

use std::collections::BTreeMap;

use dra_model::{Device, DriverState, Gpu, Version};
use k8s_openapi::api::resource::v1::DeviceAttribute;

use crate::limits;
use crate::names;

/// The value of a string that is not known.
const UNKNOWN: &str = "Unknown";

/// The attributes of a device. A MIG device has the attributes of its GPU, so that one CEL expression can select both.
pub fn attributes(device: Device<'_>, driver: &DriverState) -> BTreeMap<String, DeviceAttribute> {
    let mut all = of_gpu(device.gpu());
    match device {
        Device::Gpu(gpu) => all.extend([(names::TYPE, string("gpu")), (names::UUID, string(gpu.uuid.as_str()))]),
        Device::Mig(gpu, mig) => all.extend([
            (names::TYPE, string("mig")),
            (names::UUID, string(mig.uuid.as_str())),
            (names::PARENT_UUID, string(gpu.uuid.as_str())),
            (names::PROFILE, string(&mig.profile)),
        ]),
        // A partition has a UUID while a claim is prepared; it is in the status of that claim.
        Device::Partition(gpu, partition) => all.extend([
            (names::TYPE, string("mig")),
            (names::UUID, string(UNKNOWN)),
            (names::PARENT_UUID, string(gpu.uuid.as_str())),
            (names::PROFILE, string(&partition.profile.name)),
        ]),
        // Monitoring finds devices by `uuid`, and a shared GPU has no UUID of its own.
        Device::Shared(gpu, form) => all.extend([
            (names::TYPE, string("shared-gpu")),
            (names::UUID, string(gpu.uuid.as_str())),
            (names::PARENT_UUID, string(gpu.uuid.as_str())),
            (names::SHARING_STRATEGY, string(&form.to_string())),
        ]),
    }
    match driver {
        DriverState::Loaded { version: driver, cuda } => {
            all.insert(names::DRIVER_VERSION, version(*driver));
            all.extend(cuda.map(|cuda| (names::CUDA_DRIVER_VERSION, version(cuda))));
        }
        DriverState::Missing { .. } => {}
    }
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn of_gpu(gpu: &Gpu) -> BTreeMap<&'static str, DeviceAttribute> {
    // The standard attribute has four digits for the PCI domain; the domain of a GPU behind a VMD controller has more.
    let standard_address = (gpu.pci.domain <= 0xffff).then(|| string(&gpu.pci.to_string()));
    [
        (names::GPU_UUID, Some(string(gpu.uuid.as_str()))),
        (names::PRODUCT_NAME, Some(string(gpu.product_name.as_deref().unwrap_or(UNKNOWN)))),
        (names::BRAND, Some(string(&gpu.brand))),
        (names::ARCHITECTURE, Some(string(&gpu.architecture))),
        (names::COMPUTE_CAPABILITY, gpu.compute_capability.map(version)),
        (names::ADDRESSING_MODE, gpu.addressing_mode.as_deref().map(string)),
        (names::PCI_BUS_ID, standard_address),
        (names::PCIE_ROOT, gpu.pcie_root.as_deref().map(string)),
        (names::NUMA_NODE, gpu.numa_node.map(int)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

fn string(text: &str) -> DeviceAttribute {
    let end = text.floor_char_boundary(limits::ATTRIBUTE_BYTES);
    DeviceAttribute { string: text.get(..end).map(str::to_owned), ..DeviceAttribute::default() }
}

fn version(version: Version) -> DeviceAttribute {
    DeviceAttribute { version: Some(version.to_string()), ..DeviceAttribute::default() }
}

fn int(number: u32) -> DeviceAttribute {
    DeviceAttribute { int: Some(i64::from(number)), ..DeviceAttribute::default() }
}
