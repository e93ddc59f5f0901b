// SPDX-License-Identifier: Apache-2.0
//! Whether the shares of a claim fit beside those of others on the same GPU. Pure.
//!
//! The scheduler has counted already; the driver counts again from its own records. A record counts in every state and of
//! every boot, as in [`crate::decide::conflicts`].

use std::collections::BTreeMap;

use dra_checkpoint::{ClaimRecord, RecordedDevice, RecordedHardware, RecordedSharing};
use dra_model::{ClaimRef, ClaimUid, Gpu, GpuUuid, Interval, ShareLimits, SharedForm};

use crate::decide::conflicts::held_by_quarantined;
use crate::decide::holder::Holder;
use crate::decide::refusal::{Refusal, mebi};
use crate::state::quarantine::QuarantinedClaim;

/// Refuses another interval than the one in force, and more than is left of a GPU. What is left is unknown while a share of
/// the GPU may belong to a quarantined record.
pub(crate) fn check(
    claim: &ClaimRef,
    devices: &[RecordedDevice],
    gpus: &BTreeMap<GpuUuid, Gpu>,
    records: &[ClaimRecord],
    quarantined: &[QuarantinedClaim],
) -> Result<(), Refusal> {
    for (at, device) in devices.iter().enumerate() {
        if device.admin_access || !matches!(device.hardware, RecordedHardware::Shared { .. }) {
            continue;
        }
        none_quarantined(claim, device, quarantined)?;
        let earlier = devices.iter().take(at).map(|device| (claim, device));
        let beside: Vec<_> = of_others(&claim.uid, records)
            .chain(earlier)
            .filter(|(_, other)| !other.admin_access && other.hardware == device.hardware)
            .collect();
        same_interval(claim, device, &beside)?;
        fits(device, &beside, gpus)?;
    }
    Ok(())
}

/// The interval that the time-slicing shares of other claims gave a GPU, and one of those claims.
pub(crate) fn interval<'a>(
    claim: &ClaimUid,
    gpu: &GpuUuid,
    records: &'a [ClaimRecord],
) -> Option<(Interval, &'a ClaimRef)> {
    let form = RecordedHardware::Shared { uuid: gpu.clone(), form: SharedForm::TimeSlicing };
    let mut shares = of_others(claim, records).filter(|(_, device)| !device.admin_access && device.hardware == form);
    shares.find_map(|(holder, device)| Some((interval_of(device)?, holder)))
}

/// The limits of a share.
pub(crate) fn limits(sharing: &RecordedSharing) -> ShareLimits {
    match sharing {
        RecordedSharing::Plain | RecordedSharing::Exclusive => ShareLimits::default(),
        RecordedSharing::TimeSlicing { limits, .. } | RecordedSharing::Mps { limits, .. } => *limits,
    }
}

fn none_quarantined(
    claim: &ClaimRef,
    device: &RecordedDevice,
    quarantined: &[QuarantinedClaim],
) -> Result<(), Refusal> {
    let mut others = quarantined.iter().filter(|other| !other.is_about(&claim.uid));
    match others.find(|other| other.may_use(device.hardware.gpu())) {
        None => Ok(()),
        Some(other) => Err(held_by_quarantined(other, claim, device)),
    }
}

fn of_others<'a>(
    claim: &ClaimUid,
    records: &'a [ClaimRecord],
) -> impl Iterator<Item = (&'a ClaimRef, &'a RecordedDevice)> {
    let others = records.iter().filter(move |record| record.claim.uid != *claim);
    others.flat_map(|record| record.devices.iter().map(|device| (&record.claim, device)))
}

fn interval_of(device: &RecordedDevice) -> Option<Interval> {
    match device.sharing {
        RecordedSharing::TimeSlicing { interval, .. } => Some(interval),
        RecordedSharing::Plain | RecordedSharing::Exclusive | RecordedSharing::Mps { .. } => None,
    }
}

fn same_interval(
    claim: &ClaimRef,
    device: &RecordedDevice,
    beside: &[(&ClaimRef, &RecordedDevice)],
) -> Result<(), Refusal> {
    let Some(wanted) = interval_of(device) else { return Ok(()) };
    let mut held = beside.iter().filter_map(|(holder, device)| Some((holder, interval_of(device)?)));
    match held.find(|(_, held)| *held != wanted) {
        None => Ok(()),
        Some((holder, held)) => {
            let holder = Holder::new(holder, claim);
            Err(Refusal::OtherInterval { device: device.device.clone(), wanted, holder, held })
        }
    }
}

fn fits(
    device: &RecordedDevice,
    beside: &[(&ClaimRef, &RecordedDevice)],
    gpus: &BTreeMap<GpuUuid, Gpu>,
) -> Result<(), Refusal> {
    let own = limits(&device.sharing);
    let total = |of: fn(ShareLimits) -> u64| {
        beside.iter().map(|(_, other)| of(limits(&other.sharing))).fold(0_u64, u64::saturating_add)
    };
    let over = |what, asked, left| Err(Refusal::NotEnoughLeft { device: device.device.clone(), what, asked, left });
    let memory = gpus.get(device.hardware.gpu()).and_then(Gpu::shareable_memory);
    if let (Some(asked), Some(memory)) = (own.memory, memory) {
        let left = memory.0.saturating_sub(total(|limits| limits.memory.map_or(0, |memory| memory.0)));
        if asked.0 > left {
            return over("memory", mebi(asked), mebi(dra_model::Bytes(left)));
        }
    }
    if let Some(asked) = own.threads {
        let left = 100_u64.saturating_sub(total(|limits| limits.threads.map_or(0, u64::from)));
        if u64::from(asked) > left {
            return over("the threads", format!("{asked}%"), format!("{left}%"));
        }
    }
    Ok(())
}
