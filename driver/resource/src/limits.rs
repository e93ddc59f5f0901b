// SPDX-License-Identifier: Apache-2.0
//! What the API server accepts in one ResourceSlice (constants of `k8s.io/api/resource/v1`, types.go, 1.36 and 1.37).

/// Devices in a slice (`ResourceSliceMaxDevices`).
pub const DEVICES: usize = 128;

/// Devices in a slice when any of them has taints or consumes counters
/// (`ResourceSliceMaxDevicesWithAdvancedFeatures`).
pub const DEVICES_WITH_COUNTERS: usize = 64;

/// Counter sets in a slice (`ResourceSliceMaxCounterSets`); since 1.35 such a slice holds no devices.
pub const COUNTER_SETS: usize = 8;

/// Counters in a set (`ResourceSliceMaxCountersPerCounterSet`), and counters a device consumes from one set
/// (`ResourceSliceMaxCountersPerDeviceCounterConsumption`).
pub const COUNTERS: usize = 32;

/// Attributes and capacities of a device together (`ResourceSliceMaxAttributesAndCapacitiesPerDevice`).
pub const ATTRIBUTES_AND_CAPACITIES: usize = 32;

/// Bytes of a string or version attribute (`DeviceAttributeMaxValueLength`).
pub const ATTRIBUTE_BYTES: usize = 64;
