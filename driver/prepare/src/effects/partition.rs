// SPDX-License-Identifier: Apache-2.0
//! A partition: the MIG device that this driver creates for a claim and destroys after it.
//!
//! A GPU instance is created at its placement, then the compute instance that spans it, and the record learns the ids. The
//! instances are identified by GPU, profile and placement, and by the UUID once it is known, never by ids that the NVIDIA driver
//! reuses. What is at the placement before the creation, or has another UUID, belongs to an administrator and stays.

use std::time::{Duration, Instant};

use dra_checkpoint::{ClaimRecord, RecordedHardware};
use dra_hardware::{DeviceIds, GpuError, NodeError};
use dra_model::{Gpu, MigIdentity, MigIds, explain};
use tracing::{info, warn};

use crate::effects::error::EffectError;
use crate::effects::prerequisites::Prerequisites;
use crate::effects::retry::retry;
use crate::effects::tools::Tools;
use crate::effects::{instances, ledger, mig_mode, restore};
use crate::state::mig_changes::{MigChange, MigChangeKind};

/// The kernel creates the capability of an instance beside the instance.
const CAPABILITY_TIMEOUT: Duration = Duration::from_secs(5);

/// Creates the partition of a record. After a failure that certainly created nothing the record names no effect any more, because
/// what is there then is an administrator's.
pub(super) fn apply(identity: &MigIdentity, record: &mut ClaimRecord, tools: &Tools<'_>) -> Result<bool, EffectError> {
    let began = Instant::now();
    mig_mode::turn_on(&identity.parent, tools)?;
    if let Err(source) = tools.host.create_gpu_instance(identity) {
        if source.is_refusal() {
            record.forget(identity);
            restore_mode(identity, tools);
        }
        return Err(failed_to_create(identity, source, tools));
    }
    let ids = tools.host.create_compute_instance(identity);
    let ids = ids.map_err(|source| failed_to_create(identity, source, tools))?;
    await_capabilities(identity, &ids, tools)?;
    info!(gpu = %identity.parent, uuid = %ids.uuid, gpu_instance = ids.gpu_instance, claim = %record.claim, "MIG device created");
    report(record, identity, MigChangeKind::Created(ids.clone()), began, tools);
    record.learn(identity, &ids);
    Ok(true)
}

/// Checks that the MIG device is there, and creates it again if it is gone.
pub(super) fn verify(
    identity: &MigIdentity,
    record: &mut ClaimRecord,
    prerequisites: &Prerequisites<'_>,
    tools: &Tools<'_>,
) -> Result<bool, EffectError> {
    let Some(gpu) = prerequisites.gpus.get(&identity.parent) else {
        return Err(EffectError::UnreadPartition { gpu: identity.parent.clone() });
    };
    let recorded = record.created(identity).map(|ids| ids.uuid.clone());
    match gpu.mig_devices().iter().find(|mig| mig.identity == *identity) {
        Some(found) if recorded.is_none_or(|uuid| uuid == found.uuid) => {
            let is_new = record.created(identity) != Some(&found.ids());
            record.learn(identity, &found.ids());
            Ok(is_new)
        }
        Some(found) => Err(EffectError::Replaced { identity: identity.clone(), found: found.uuid.clone() }),
        None => {
            // A repair that was cut may have left the GPU instance alone.
            instances::destroy(identity, None, tools)?;
            apply(identity, record, tools)
        }
    }
}

/// Destroys the MIG device of a record. A GPU that does not answer delays no claim: its ledger names the device until it is
/// destroyed.
pub(super) fn undo(identity: &MigIdentity, record: &ClaimRecord, tools: &Tools<'_>) -> Result<(), EffectError> {
    let began = Instant::now();
    // Instances do not outlive a boot.
    if tools.references.boot_id.is_some_and(|boot_id| boot_id != record.boot_id) {
        return Ok(());
    }
    let uuid = record.created(identity).map(|ids| ids.uuid.clone());
    match instances::destroy(identity, uuid.as_ref(), tools) {
        Ok(true) => report(record, identity, MigChangeKind::Destroyed, began, tools),
        Ok(false) => {}
        Err(error) if error.is_in_use() => return Err(error),
        Err(error) => {
            let gpu = &identity.parent;
            let mut ledger = ledger::load(gpu, tools)?.unwrap_or_else(|| ledger::new(gpu, tools));
            ledger.partitions.insert(identity.clone(), uuid);
            ledger::put(&ledger, tools)?;
            warn!(%gpu, error = explain(&error), "MIG device is destroyed when the GPU answers");
            return Ok(());
        }
    }
    restore_mode(identity, tools);
    Ok(())
}

fn await_capabilities(identity: &MigIdentity, ids: &MigIds, tools: &Tools<'_>) -> Result<(), EffectError> {
    let failed = |source| failed_to_create(identity, source, tools);
    // The change of the mode may have changed the minor number.
    let minor = tools.host.mig_state(&identity.parent).map_err(failed)?.minor;
    let nodes = || tools.host.device_nodes(DeviceIds::of_mig(minor, ids));
    let is_late = |error: &NodeError| matches!(error, NodeError::Capability { .. } | NodeError::Missing { .. });
    let ready = retry(CAPABILITY_TIMEOUT, tools.host.deadline(), is_late, nodes);
    ready.map(drop).map_err(|source| EffectError::Capabilities { uuid: ids.uuid.clone(), source })
}

fn restore_mode(identity: &MigIdentity, tools: &Tools<'_>) {
    if let Err(error) = restore::restore(&identity.parent, tools) {
        warn!(gpu = %identity.parent, error = explain(&error), "restore of the GPU is pending");
    }
}

fn failed_to_create(identity: &MigIdentity, source: GpuError, tools: &Tools<'_>) -> EffectError {
    // An instance that was created meanwhile explains why there is no room.
    let gpu = tools.host.gpu(&identity.parent).ok();
    let occupied = gpu.iter().flat_map(Gpu::gpu_instances).filter(|one| one.placement.overlaps(identity.placement));
    let occupied = occupied.map(|instance| instance.id).collect();
    EffectError::Create { identity: identity.clone(), occupied, source: Box::new(source) }
}

fn report(record: &ClaimRecord, identity: &MigIdentity, kind: MigChangeKind, began: Instant, tools: &Tools<'_>) {
    let is_it = |hardware: &RecordedHardware| matches!(hardware, RecordedHardware::Partition { identity: own, .. } if own == identity);
    if let Some(device) = record.devices.iter().find(|device| is_it(&device.hardware)) {
        let (claim, device) = (record.claim.clone(), device.device.clone());
        tools.mig_changes.add(MigChange { claim, device, kind, took: began.elapsed() });
    }
}
