// SPDX-License-Identifier: Apache-2.0
//! Plans the prepare of a claim: the record to write, with the effects to come, or a refusal. Pure.

use std::collections::BTreeMap;

use dra_cdi::Naming;
use dra_checkpoint::{ClaimRecord, ClaimState, RecordedDevice, RecordedHardware, RecordedSharing};
use dra_model::device::is_name_of_nvidia;
use dra_model::{AllocatedDevice, Capabilities, Claim, Device, Gpu, GpuUuid, MigIdentity, MigIds, MigOrigin, NodeName};

use crate::decide::refusal::Refusal;
use crate::decide::resolve::{Unresolved, find};
use crate::decide::sharing::{self, ResolvedClaim};
use crate::decide::target::Target;
use crate::decide::{configuration, conflicts, limits, shares};
use crate::state::quarantine::QuarantinedClaim;

/// Everything the plan depends on.
#[derive(Debug)]
pub struct Situation<'a> {
    pub claim: &'a Claim,
    /// The hardware of each device of the claim, in their order.
    pub targets: &'a [Target],
    /// The GPUs of the targets, read under their locks.
    pub gpus: &'a BTreeMap<GpuUuid, Gpu>,
    /// The record of a claim that is prepared already: its sharing stays.
    pub prepared: Option<&'a ClaimRecord>,
    /// Of all claims on this node.
    pub records: &'a [ClaimRecord],
    pub quarantined: &'a [QuarantinedClaim],
    pub node: &'a NodeName,
    pub boot_id: &'a str,
    pub driver_version: &'a str,
    pub naming: &'a Naming,
}

/// Refuses what can be refused without looking at hardware.
pub fn admit(claim: &Claim, node: &NodeName) -> Result<(), Refusal> {
    if claim.devices.is_empty() {
        return Err(Refusal::NothingAllocated);
    }
    match claim.devices.iter().find(|device| device.pool != node.as_str()) {
        None => Ok(()),
        Some(device) => {
            Err(Refusal::OtherPool { device: device.device.clone(), pool: device.pool.clone(), node: node.to_string() })
        }
    }
}

/// The record to write before the first effect.
pub fn plan(situation: &Situation<'_>) -> Result<ClaimRecord, Refusal> {
    let Situation { claim, targets, gpus, records, quarantined, .. } = *situation;
    let requested = configuration::requested(claim, targets)?;
    let sharing = match situation.prepared {
        Some(prepared) => prepared.devices.iter().map(|device| device.sharing.clone()).collect(),
        None => sharing::decide(ResolvedClaim { claim, targets, sharing: &requested.sharing }, records)?,
    };
    let rows = claim.devices.iter().zip(targets).zip(sharing.into_iter().zip(&requested.capabilities));
    let device = |((device, target), wanted)| recorded_device(situation, device, target, wanted);
    let devices: Vec<RecordedDevice> = rows.map(device).collect::<Result<_, _>>()?;
    limits::check(&devices, &requested.sharing, gpus)?;
    // A prepared claim held its devices before a record of another claim was quarantined.
    let quarantined = if situation.prepared.is_some() { &[] } else { quarantined };
    conflicts::check(&claim.reference, &devices, records, quarantined)?;
    if situation.prepared.is_none() {
        shares::check(&claim.reference, &devices, gpus, records, quarantined)?;
    }
    let previous = records.iter().find(|record| record.claim.uid == claim.reference.uid);
    Ok(ClaimRecord {
        claim: claim.reference.clone(),
        boot_id: situation.boot_id.to_owned(),
        base: situation.driver_version.to_owned(),
        state: ClaimState::Preparing { done: Vec::new(), next: sharing::steps(&devices) },
        devices,
        unknown: previous.map(|record| record.unknown.clone()).unwrap_or_default(),
    })
}

/// The refusal of a device without usable hardware.
pub fn refuse(device: &AllocatedDevice, node: &NodeName, why: Unresolved) -> Refusal {
    let device = device.device.clone();
    match why {
        Unresolved::NoDriver { reason } => Refusal::NoDriver { device, reason },
        Unresolved::Unusable { reason } => Refusal::Unusable { device, reason },
        Unresolved::MigModeOn => Refusal::MigModeOn { device },
        Unresolved::MigGone => Refusal::MigGone { device },
        Unresolved::Occupied { gpu_instances } => Refusal::Occupied { device, gpu_instances },
        Unresolved::Unknown if is_name_of_nvidia(device.as_str()) => {
            Refusal::OfNvidia { device, node: node.to_string() }
        }
        Unresolved::Unknown => Refusal::Unknown { device, node: node.to_string() },
    }
}

fn recorded_device(
    situation: &Situation<'_>,
    device: &AllocatedDevice,
    target: &Target,
    (sharing, requested): (RecordedSharing, &Capabilities),
) -> Result<RecordedDevice, Refusal> {
    let Situation { claim, gpus, records, node, driver_version, naming, .. } = situation;
    let gpu = gpus.get(target.gpu()).ok_or(Unresolved::Unknown);
    let found = gpu.and_then(|gpu| find(target, gpu)).map_err(|why| refuse(device, node, why))?;
    let uid = &claim.reference.uid;
    let mut previous = records.iter().filter(|record| record.claim.uid == *uid).flat_map(|record| &record.devices);
    let is_same = |previous: &&RecordedDevice| {
        (&previous.device, &previous.request, &previous.share_id) == (&device.device, &device.request, &device.share_id)
    };
    let previous = previous.find(is_same);
    // The names of a prepared claim have what it requested, so that a repair needs no configuration.
    let prepared = previous.filter(|_| situation.prepared.is_some());
    let capabilities = prepared.map(|prepared| naming.capabilities(&prepared.cdi_ids));
    let mut cdi_ids = naming.base_devices(driver_version, capabilities.as_ref().unwrap_or(requested));
    cdi_ids.push(naming.claim_device(uid, &device.device, device.share_id.as_ref()));
    Ok(RecordedDevice {
        request: device.request.clone(),
        pool: device.pool.clone(),
        device: device.device.clone(),
        admin_access: device.admin_access,
        share_id: device.share_id.clone(),
        hardware: hardware(found, device, previous, situation.prepared.is_some())
            .map_err(|why| refuse(device, node, why))?,
        sharing,
        cdi_ids,
        unknown: previous.map(|previous| previous.unknown.clone()).unwrap_or_default(),
    })
}

/// The hardware to record. What the record of the claim names as an administrator's or as this driver's stays so.
fn hardware(
    found: Device<'_>,
    device: &AllocatedDevice,
    previous: Option<&RecordedDevice>,
    is_prepared: bool,
) -> Result<RecordedHardware, Unresolved> {
    let previous = previous.map(|previous| &previous.hardware);
    let own = |identity: MigIdentity, profile: &str, created: Option<MigIds>| RecordedHardware::Partition {
        identity,
        profile: profile.to_owned(),
        created,
    };
    match found {
        Device::Gpu(gpu) => Ok(RecordedHardware::Gpu { uuid: gpu.uuid.clone() }),
        Device::Shared(gpu, form) => Ok(RecordedHardware::Shared { uuid: gpu.uuid.clone(), form }),
        // Access for monitoring creates nothing.
        Device::Partition(..) if device.admin_access => Err(Unresolved::MigGone),
        Device::Partition(..) if matches!(previous, Some(RecordedHardware::Mig { .. })) => Err(Unresolved::MigGone),
        // The record forgets the ids of a MIG device that is gone before it is created again, with another UUID perhaps.
        Device::Partition(gpu, partition) => Ok(own(partition.identity(&gpu.uuid), &partition.profile.name, None)),
        Device::Mig(_, mig) => {
            let recorded = match previous {
                Some(RecordedHardware::Partition { created, .. }) if is_prepared => Some(created.clone()),
                _ => None,
            };
            let is_own = mig.origin == MigOrigin::ThisDriver || recorded.is_some();
            if is_own && !device.admin_access {
                return Ok(own(mig.identity.clone(), &mig.profile, recorded.flatten()));
            }
            Ok(RecordedHardware::Mig { identity: mig.identity.clone(), ids: mig.ids(), profile: mig.profile.clone() })
        }
    }
}
