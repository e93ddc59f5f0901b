// SPDX-License-Identifier: Apache-2.0
//! The words of this driver in the API: its name, the keys of attributes and capacities, and the names of its slices.
//!
//! Keys without a domain belong to the driver's own. They are those of NVIDIA's driver, because CEL
//! expressions, monitoring and other schedulers hard-code them.

use std::str::FromStr;
use std::{fmt, iter};

use dra_model::NodeName;

/// What is allocated: `gpu`, `mig` or `shared-gpu`.
pub const TYPE: &str = "type";
/// UUID of the device in this incarnation.
pub const UUID: &str = "uuid";
/// UUID of the GPU a MIG device is cut from, or that many claims share.
pub const PARENT_UUID: &str = "parentUUID";
/// UUID of the physical GPU behind the device, the same on all of its forms: what takes out a GPU selects by it.
pub const GPU_UUID: &str = "gpuUUID";
/// How the claims of a shared GPU share it: `MPS` or `TimeSlicing`.
pub const SHARING_STRATEGY: &str = "sharingStrategy";
/// MIG profile name, such as `1g.10gb`.
pub const PROFILE: &str = "profile";
/// Product name as NVML gives it.
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
/// Capacity of a GPU shared by time-slicing: how many claims share it.
pub const SHARES: &str = "shares";

/// The name of a DRA driver: a DNS subdomain in lower case of at most 63 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DriverName(String);

/// A text that cannot name a driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a driver name: expected a lower-case DNS subdomain of at most 63 characters")]
pub struct DriverNameError {
    text: String,
}

impl DriverName {
    /// The name as text.
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

/// The longest name an object of the API may have.
const OBJECT_NAME_MAX: usize = 253;

/// The name of the slice at a position of a node's pool, where no other slice holds it.
///
/// Names are a function of driver, node and position, and not left to the API server (`generateName`): a create whose
/// answer was lost can be repeated and meets its own first try as a conflict instead of publishing devices twice. The
/// index comes first, as with the Go helper, because the scheduler tries slices in the order of their names.
pub fn slice_name(index: usize, driver: &DriverName, node: &NodeName) -> String {
    name_at(&format!("{index:05x}"), driver, node)
}

/// All names that the slice at a position may have, the preferred one first.
///
/// The others are for when a slice of another driver or node holds the first. In each of them driver and node follow the
/// first dash, by which the admission policy of the chart tells whose name it is.
pub fn slice_names(index: usize, driver: &DriverName, node: &NodeName) -> impl Iterator<Item = String> {
    let others = (1..=u8::MAX).map(move |other| name_at(&format!("{index:05x}x{other:x}"), driver, node));
    iter::once_with(move || slice_name(index, driver, node)).chain(others)
}

fn name_at(position: &str, driver: &DriverName, node: &NodeName) -> String {
    let name = format!("{position}-{driver}-{node}");
    if name.len() <= OBJECT_NAME_MAX { name } else { format!("{position}-{:016x}", fnv1a(&format!("{driver}/{node}"))) }
}

/// FNV-1a, for names that are too long; it has to be stable for ever, not strong.
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
