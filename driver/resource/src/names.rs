// SPDX-License-Identifier: Apache-2.0
//! Names of this driver in the API: the driver name, keys of attributes and capacities, and slice names.
//!
//! Keys without a domain have the driver's domain. They are the keys of NVIDIA's driver, because CEL expressions, monitoring and
//! other schedulers use them.

use std::str::FromStr;
use std::{fmt, iter};

use dra_model::NodeName;

/// `gpu`, `mig` or `shared-gpu`.
pub const TYPE: &str = "type";
/// UUID of the GPU or MIG device. A MIG device has a new UUID after it is created again.
pub const UUID: &str = "uuid";
/// UUID of the GPU of a MIG device or of a shared GPU.
pub const PARENT_UUID: &str = "parentUUID";
/// UUID of the physical GPU, equal for all forms of a GPU, for example to take it out of service.
pub const GPU_UUID: &str = "gpuUUID";
/// `MPS` or `TimeSlicing`, of a shared GPU.
pub const SHARING_STRATEGY: &str = "sharingStrategy";
/// MIG profile name, such as `1g.10gb`.
pub const PROFILE: &str = "profile";
/// Product name of NVML.
pub const PRODUCT_NAME: &str = "productName";
/// Brand, such as `Nvidia` or `Tesla`.
pub const BRAND: &str = "brand";
/// Architecture, such as `Hopper`.
pub const ARCHITECTURE: &str = "architecture";
/// CUDA compute capability, a version.
pub const COMPUTE_CAPABILITY: &str = "cudaComputeCapability";
/// Driver version, a version.
pub const DRIVER_VERSION: &str = "driverVersion";
/// Newest CUDA version the driver supports, a version.
pub const CUDA_DRIVER_VERSION: &str = "cudaDriverVersion";
/// `HMM`, `ATS` or `None`.
pub const ADDRESSING_MODE: &str = "addressingMode";
/// Standard attribute: PCI address with a four-digit domain (KEP-4381, package deviceattribute).
pub const PCI_BUS_ID: &str = "resource.kubernetes.io/pciBusID";
/// Standard attribute: PCI root complex.
pub const PCIE_ROOT: &str = "resource.kubernetes.io/pcieRoot";
/// Standard attribute: NUMA node, an int (KEP-6072).
pub const NUMA_NODE: &str = "resource.kubernetes.io/numaNode";

/// Capacity: memory.
pub const MEMORY: &str = "memory";
/// Capacity of a GPU shared by MPS: percent of its threads.
pub const ACTIVE_THREADS: &str = "activeThreadPercentage";
/// Capacity of a GPU shared by time-slicing: number of shares.
pub const SHARES: &str = "shares";

/// The name of a DRA driver: a DNS subdomain in lower case of at most 63 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DriverName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a driver name: expected a lower-case DNS subdomain of at most 63 characters")]
pub struct DriverNameError {
    text: String,
}

impl DriverName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DriverName {
    type Err = DriverNameError;

    fn from_str(text: &str) -> Result<Self, DriverNameError> {
        if text.len() <= 63 && text.parse::<NodeName>().is_ok() {
            Ok(Self(text.to_owned()))
        } else {
            Err(DriverNameError { text: text.chars().take(80).collect() })
        }
    }
}

impl fmt::Display for DriverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Limit of the API for object names, in characters.
const OBJECT_NAME_MAX: usize = 253;

/// The preferred name of the slice at an index of a node's pool.
///
/// Names are a function of index, driver and node instead of `generateName`: if the answer to a create is lost, the repeated create
/// fails with a conflict and does not publish the devices twice. The index comes first, as in the Go library of Kubernetes, because
/// the scheduler tries slices in the order of their names.
pub fn slice_name(index: usize, driver: &DriverName, node: &NodeName) -> String {
    name_at(&format!("{index:05x}"), driver, node)
}

/// All names of the slice at an index, the preferred one first.
///
/// The others are used where a slice of another driver or node has the preferred name. In all names driver and node follow the first
/// dash, which the admission policy of the chart verifies.
pub fn slice_names(index: usize, driver: &DriverName, node: &NodeName) -> impl Iterator<Item = String> {
    let others = (1..=u8::MAX).map(move |other| name_at(&format!("{index:05x}x{other:x}"), driver, node));
    iter::once_with(move || slice_name(index, driver, node)).chain(others)
}

fn name_at(position: &str, driver: &DriverName, node: &NodeName) -> String {
    let name = format!("{position}-{driver}-{node}");
    if name.len() <= OBJECT_NAME_MAX { name } else { format!("{position}-{:016x}", fnv1a(&format!("{driver}/{node}"))) }
}

/// FNV-1a, for names that are too long. The hash must be stable across versions; it needs no cryptographic strength.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn driver_names_are_short_subdomains() {
        for (given, expect) in [
            ("gpu.nvidia.com", true),
            ("gpu", true),
            ("GPU.nvidia.com", false),
            ("", false),
            ("gpu..com", false),
            (&"a".repeat(63), true),
            (&"a.".repeat(32), false),
        ] {
            assert_eq!(given.parse::<DriverName>().is_ok(), expect, "{given}");
        }
    }

    #[test]
    fn slice_names_sort_by_index_and_fit() {
        let driver: DriverName = "gpu.nvidia.com".parse().unwrap();
        let node: NodeName = "node-1".parse().unwrap();
        assert_eq!(slice_name(0, &driver, &node), "00000-gpu.nvidia.com-node-1");
        assert_eq!(slice_name(26, &driver, &node), "0001a-gpu.nvidia.com-node-1");
        let long: NodeName = vec!["a".repeat(62); 4].join(".").parse().unwrap();
        let other: NodeName = vec!["b".repeat(62); 4].join(".").parse().unwrap();
        assert_eq!(slice_name(1, &driver, &long).len(), 22);
        assert_ne!(slice_name(1, &driver, &long), slice_name(1, &driver, &other));
    }

    #[test]
    fn alternative_names_of_a_slice_differ_and_sort_at_its_index() {
        let driver: DriverName = "gpu.nvidia.com".parse().unwrap();
        let long = vec!["a".repeat(62); 4].join(".");
        for node in ["node-1", long.as_str()] {
            let node: NodeName = node.parse().unwrap();
            let names: BTreeSet<String> = slice_names(0, &driver, &node).collect();
            assert_eq!(names.len(), 256);
            assert_eq!(names.first(), Some(&slice_name(0, &driver, &node)));
            assert!(names.last() < Some(&slice_name(1, &driver, &node)), "{names:?}");
            assert!(names.iter().all(|name| name.len() <= OBJECT_NAME_MAX && name.parse::<NodeName>().is_ok()));
        }
        let node: NodeName = "node-1".parse().unwrap();
        assert_eq!(slice_names(26, &driver, &node).nth(1).as_deref(), Some("0001ax1-gpu.nvidia.com-node-1"));
    }
}
