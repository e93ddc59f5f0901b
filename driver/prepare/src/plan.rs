// SPDX-License-Identifier: Apache-2.0
//! What preparing a claim comes to: the record of the promise, or a refusal. Pure.

use std::collections::BTreeMap;

use dra_cdi::Naming;
use dra_checkpoint::{ClaimRecord, ClaimState, RecordedDevice, RecordedHardware, RecordedSharing};
use dra_model::{AllocatedDevice, Claim, Device, Gpu, GpuUuid, NodeName};

use crate::doubts::Doubt;
use crate::refusal::Refusal;
use crate::resolve::{Target, Unresolved, find};
use crate::sharing::{self, Wished};
use crate::{configuration, conflicts, limits, shares};

/// Everything the decision depends on.
#[derive(Debug)]
pub struct Situation<'a> {
    /// The claim.
    pub claim: &'a Claim,
    /// What its devices are, in their order.
    pub targets: &'a [Target],
    /// Their GPUs, read after they were locked.
    pub gpus: &'a BTreeMap<GpuUuid, Gpu>,
    /// The record of the claim, where the promise is kept already: what was decided stays.
    pub kept: Option<&'a ClaimRecord>,
    /// The records of all claims.
    pub records: &'a [ClaimRecord],
    /// The claims whose records were set aside.
    pub doubts: &'a [Doubt],
    /// This node.
    pub node: &'a NodeName,
    /// This boot.
    pub boot_id: &'a str,
    /// The version of the driver.
    pub driver_version: &'a str,
    /// How CDI devices are named.
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

/// The promise to make, with the steps that keep it.
pub fn plan(situation: &Situation<'_>) -> Result<ClaimRecord, Refusal> {
    let Situation { claim, targets, gpus, records, doubts, .. } = *situation;
    let wishes = configuration::wishes(claim, targets)?;
    let sharing = match situation.kept {
        Some(kept) => kept.devices.iter().map(|device| device.sharing.clone()).collect(),
        None => sharing::decide(Wished { claim, targets, wishes: &wishes }, records)?,
    };
    let rows = claim.devices.iter().zip(targets).zip(sharing);
    let promise = |((device, target), sharing)| promise(situation, device, target, sharing);
    let devices: Vec<RecordedDevice> = rows.map(promise).collect::<Result<_, _>>()?;
    limits::check(&devices, &wishes, gpus)?;
    // What is kept was there before whatever came in doubt beside it.
    let doubts = if situation.kept.is_some() { &[] } else { doubts };
    conflicts::check(&claim.reference, &devices, records, doubts)?;
    if situation.kept.is_none() {
        shares::check(&claim.reference, &devices, gpus, records, doubts)?;
    }
    let kept = records.iter().find(|record| record.claim.uid == claim.reference.uid);
    Ok(ClaimRecord {
        claim: claim.reference.clone(),
        boot_id: situation.boot_id.to_owned(),
        base: situation.driver_version.to_owned(),
        state: ClaimState::Preparing { done: Vec::new(), next: sharing::steps(&devices) },
        devices,
        unknown: kept.map(|record| record.unknown.clone()).unwrap_or_default(),
    })
}

/// The refusal of a device that is not usable.
pub fn refuse(device: &AllocatedDevice, node: &NodeName, why: Unresolved) -> Refusal {
    let device = device.device.clone();
    match why {
        Unresolved::NoDriver { reason } => Refusal::NoDriver { device, reason },
        Unresolved::Broken { reason } => Refusal::Broken { device, reason },
        Unresolved::MigModeOn => Refusal::MigModeOn { device },
        Unresolved::MigGone => Refusal::MigGone { device },
        Unresolved::Unknown => Refusal::Unknown { device, node: node.to_string() },
    }
}

fn promise(
    situation: &Situation<'_>,
    device: &AllocatedDevice,
    target: &Target,
    sharing: RecordedSharing,
) -> Result<RecordedDevice, Refusal> {
    let Situation { claim, gpus, records, node, driver_version, naming, .. } = situation;
    let gpu = gpus.get(target.gpu()).ok_or(Unresolved::Unknown);
    let found = gpu.and_then(|gpu| find(target, gpu)).map_err(|why| refuse(device, node, why))?;
    let uid = &claim.reference.uid;
    let kept = records.iter().filter(|record| record.claim.uid == *uid).flat_map(|record| &record.devices);
    let is_same = |kept: &&RecordedDevice| {
        (&kept.device, &kept.request, &kept.share_id) == (&device.device, &device.request, &device.share_id)
    };
    let mut kept = kept.filter(is_same);
    Ok(RecordedDevice {
        request: device.request.clone(),
        pool: device.pool.clone(),
        device: device.device.clone(),
        admin_access: device.admin_access,
        share_id: device.share_id.clone(),
        hardware: hardware(found),
        sharing,
        cdi_ids: vec![
            naming.base_device(driver_version),
            naming.claim_device(uid, &device.device, device.share_id.as_ref()),
        ],
        unknown: kept.next().map(|kept| kept.unknown.clone()).unwrap_or_default(),
    })
}

fn hardware(device: Device<'_>) -> RecordedHardware {
    match device {
        Device::Gpu(gpu) => RecordedHardware::Gpu { uuid: gpu.uuid.clone() },
        Device::Mig(_, mig) => RecordedHardware::Mig {
            identity: mig.identity.clone(),
            uuid: mig.uuid.clone(),
            gpu_instance: mig.gpu_instance,
            compute_instance: mig.compute_instance,
            profile: mig.profile.clone(),
        },
        Device::Shared(gpu, form) => RecordedHardware::Shared { uuid: gpu.uuid.clone(), form },
    }
}
