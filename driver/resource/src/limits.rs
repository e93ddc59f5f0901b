// SPDX-License-Identifier: Apache-2.0
//! Limits of the API server for one ResourceSlice (constants of `k8s.io/api/resource/v1`, types.go, 1.36 and 1.37).

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute};

/// The limit of devices in a slice, which depends on the fields of all its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceLimit {
    /// No device has an advanced field (`ResourceSliceMaxDevices`).
    Plain,
    /// Any device has taints, consumes counters or has a list attribute (`ResourceSliceMaxDevicesWithAdvancedFeatures`).
    Advanced,
}

impl DeviceLimit {
    /// The limit of a slice with these devices.
    pub fn of<'a>(devices: impl IntoIterator<Item = &'a Device>) -> Self {
        if devices.into_iter().any(is_advanced) { Self::Advanced } else { Self::Plain }
    }

    /// The number of devices.
    pub const fn devices(self) -> usize {
        match self {
            Self::Plain => 128,
            Self::Advanced => 64,
        }
    }
}

fn is_advanced(device: &Device) -> bool {
    let has_list = |attribute: &DeviceAttribute| {
        let DeviceAttribute { bool: _, bools, int: _, ints, string: _, strings, version: _, versions } = attribute;
        bools.is_some() || ints.is_some() || strings.is_some() || versions.is_some()
    };
    device.taints.as_ref().is_some_and(|taints| !taints.is_empty())
        || device.consumes_counters.as_ref().is_some_and(|counters| !counters.is_empty())
        || device.attributes.iter().flat_map(|attributes| attributes.values()).any(has_list)
}

/// Counter sets in a slice (`ResourceSliceMaxCounterSets`); since 1.35 such a slice holds no devices.
pub const COUNTER_SETS: usize = 8;

/// Counters in a set (`ResourceSliceMaxCountersPerCounterSet`), and counters a device consumes from one set
/// (`ResourceSliceMaxCountersPerDeviceCounterConsumption`).
pub const COUNTERS: usize = 32;

/// Attributes and capacities of a device together (`ResourceSliceMaxAttributesAndCapacitiesPerDevice`).
pub const ATTRIBUTES_AND_CAPACITIES: usize = 32;

/// Bytes of a string or version attribute (`DeviceAttributeMaxValueLength`).
pub const ATTRIBUTE_BYTES: usize = 64;
