// SPDX-License-Identifier: Apache-2.0
//! The capacities of devices: informative for a device of one claim, consumable for a shared device.
//!
//! Claims consume every capacity of a shared device, and the first claim consumes all of a capacity without a policy (API text of
//! `allowMultipleAllocations`), so each has a policy. All amounts are whole units with a minimum of one unit: then a multiple of the
//! step is the same from zero and from the minimum.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use dra_model::{Bytes, Device, Engines, Gpu, Partition, Placement, SharedForm};
use k8s_openapi::api::resource::v1::{CapacityRequestPolicy, CapacityRequestPolicyRange, DeviceCapacity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::limits;
use crate::names;
use crate::offer::{ShareSettings, WithoutAmount};
use crate::quantity::{Milli, binary, decimal};

/// The capacities of a device with this number of attributes.
pub fn capacities(device: Device<'_>, shares: ShareSettings, attributes: usize) -> BTreeMap<String, DeviceCapacity> {
    match device {
        Device::Gpu(gpu) => plain(gpu.memory.map(|memory| (names::MEMORY.to_owned(), binary(memory)))),
        Device::Mig(_, mig) => plain(of_mig(&mig.engines, mig.memory, mig.identity.placement, room(attributes))),
        Device::Partition(_, Partition { profile, placement }) => {
            plain(of_mig(&profile.engines, profile.memory, placement, room(attributes)))
        }
        Device::Shared(gpu, SharedForm::Mps) => {
            let default = 100 / u64::from(shares.default_shares.get());
            let threads = amount(100, default, shares.without_amount);
            of_shared(gpu, shares.default_shares, (names::ACTIVE_THREADS, threads))
        }
        Device::Shared(gpu, SharedForm::TimeSlicing) => {
            let slices = amount(shares.max_time_slices.get().into(), 1, shares.without_amount);
            of_shared(gpu, shares.max_time_slices, (names::SHARES, slices))
        }
    }
}

/// Each engine as name of its capacity, name of its counter and number.
pub(crate) fn engines(engines: &Engines) -> [(&'static str, &'static str, u32); 6] {
    [
        ("multiprocessors", "multiprocessors", engines.multiprocessors),
        ("copyEngines", "copy-engines", engines.copy_engines),
        ("decoders", "decoders", engines.decoders),
        ("encoders", "encoders", engines.encoders),
        ("jpegEngines", "jpeg-engines", engines.jpeg_engines),
        ("ofaEngines", "ofa-engines", engines.ofa_engines),
    ]
}

fn plain(all: impl IntoIterator<Item = (String, Quantity)>) -> BTreeMap<String, DeviceCapacity> {
    all.into_iter().map(|(name, value)| (name, DeviceCapacity { value, request_policy: None })).collect()
}

/// The free memory of an idle GPU in whole MiB, whose default amount fits `fit` times, and one further capacity.
fn of_shared(gpu: &Gpu, fit: NonZeroU32, other: (&str, DeviceCapacity)) -> BTreeMap<String, DeviceCapacity> {
    let mib = |mib| binary(Bytes::from_mib(mib));
    let memory =
        gpu.shareable_memory().map(|memory| consumable(memory.mib(), memory.mib() / u64::from(fit.get()), mib));
    let memory = memory.map(|memory| (names::MEMORY, memory));
    memory.into_iter().chain([other]).map(|(name, capacity)| (name.to_owned(), capacity)).collect()
}

/// A capacity in units, of which a request consumes at least one and by default `default`.
fn consumable(value: u64, default: u64, spelled: impl Fn(u64) -> Quantity) -> DeviceCapacity {
    // A valid range contains at least one step.
    let is_range = value > 1;
    let range = || CapacityRequestPolicyRange { min: spelled(1), max: Some(spelled(value)), step: Some(spelled(1)) };
    let policy = CapacityRequestPolicy {
        default: Some(spelled(default.max(1))),
        valid_range: is_range.then(range),
        valid_values: (!is_range).then(|| vec![spelled(1)]),
    };
    DeviceCapacity { value: spelled(value), request_policy: Some(policy) }
}

/// The capacity with which a request names its share.
///
/// Selectors of a class cannot distinguish a request for a share from a request for any device of the driver; the capacity can. The
/// API accepts a default above the value as long as the range has no maximum (`validateRequestPolicyRange`,
/// pkg/apis/resource/validation), and the scheduler then skips the device for every request that does not name the capacity, also
/// with `allocationMode: All` (`CmpRequestOverCapacity`, dynamic-resource-allocation/structured).
fn amount(value: u64, default: u64, without_amount: WithoutAmount) -> DeviceCapacity {
    let range = || CapacityRequestPolicyRange { min: count(1), max: None, step: (value > 1).then(|| count(1)) };
    match without_amount {
        WithoutAmount::DefaultShare => consumable(value, default, count),
        WithoutAmount::NoShare => DeviceCapacity {
            value: count(value),
            request_policy: Some(CapacityRequestPolicy {
                default: Some(count(value.saturating_add(1))),
                valid_range: Some(range()),
                valid_values: None,
            }),
        },
    }
}

fn count(number: u64) -> Quantity {
    decimal(Milli(number.saturating_mul(1000)))
}

/// The capacities that a device with this number of attributes can have.
fn room(attributes: usize) -> usize {
    limits::ATTRIBUTES_AND_CAPACITIES.saturating_sub(attributes)
}

/// The memory slices are left out if the device would exceed the limit of capacities.
fn of_mig(own: &Engines, memory: Bytes, placement: Placement, room: usize) -> BTreeMap<String, Quantity> {
    let mut all: BTreeMap<String, Quantity> = engines(own)
        .into_iter()
        .map(|(capacity, _, count)| (capacity.to_owned(), decimal(Milli::from_count(count))))
        .collect();
    all.insert(names::MEMORY.to_owned(), binary(memory));
    let slices = usize::try_from(placement.size).unwrap_or(usize::MAX);
    if all.len().saturating_add(slices) <= room {
        all.extend(placement.slices().map(|slice| (format!("memorySlice{slice}"), decimal(Milli::ONE))));
    }
    all
}
