// SPDX-License-Identifier: Apache-2.0
//! Destroys the instances behind a partition, in the reverse order of their creation.

use std::time::Duration;

use dra_checkpoint::GpuLedger;
use dra_hardware::GpuError;
use dra_model::{Gpu, GpuInstance, MigDevice, MigIdentity, MigUuid};
use tracing::{info, warn};

use crate::effects::error::EffectError;
use crate::effects::holders::{Holding, for_caller};
use crate::effects::retry::retry;
use crate::effects::tools::Tools;

/// A process that ends releases its instance within a moment. The kubelet calls again after an error.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Destroys the MIG devices of claims that are gone. The caller writes the ledger.
pub(super) fn destroy_pending(ledger: &mut GpuLedger, tools: &Tools<'_>) -> Result<(), EffectError> {
    let mut failed = None;
    for (identity, uuid) in ledger.partitions.clone() {
        // A claim that is prepared now has it.
        let destroyed =
            if tools.references.to_partition(&identity) { Ok(false) } else { destroy(&identity, uuid.as_ref(), tools) };
        match destroyed {
            Ok(_) => drop(ledger.partitions.remove(&identity)),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Destroys a partition, whose UUID is absent if it is not known, and returns whether there was anything to destroy.
pub(super) fn destroy(identity: &MigIdentity, uuid: Option<&MigUuid>, tools: &Tools<'_>) -> Result<bool, EffectError> {
    let gpu = match tools.host.gpu(&identity.parent) {
        Ok(gpu) => gpu,
        Err(error) if error.is_driver_unloaded() => return Ok(false),
        Err(error) => return Err(failed_to_destroy(identity, Vec::new(), error)),
    };
    let Some(instance) = instance(identity, &gpu) else { return Ok(false) };
    if let Some(found) = foreign(identity, uuid, &gpu) {
        warn!(gpu = %gpu.uuid, uuid = %found.uuid, gpu_instance = found.gpu_instance, "MIG device stays: this driver did not create it");
        return Ok(false);
    }
    let once = || {
        tools.host.destroy_compute_instances(identity)?;
        tools.host.destroy_gpu_instance(identity)
    };
    retry(BUSY_TIMEOUT, tools.host.deadline(), GpuError::is_in_use, once).map_err(|source| {
        let is_held = source.is_in_use();
        let processes = if is_held { tools.host.holders_of_instance(&gpu.uuid, instance.id) } else { Vec::new() };
        failed_to_destroy(identity, for_caller(processes, tools), source)
    })?;
    info!(gpu = %gpu.uuid, profile = identity.profile_id, start = identity.placement.start, "MIG device destroyed");
    Ok(true)
}

fn instance<'a>(identity: &MigIdentity, gpu: &'a Gpu) -> Option<&'a GpuInstance> {
    let at = (identity.profile_id, identity.placement);
    gpu.gpu_instances().iter().find(|instance| (instance.profile_id, instance.placement) == at)
}

/// A MIG device in the GPU instance that is not the recorded one.
fn foreign<'a>(identity: &MigIdentity, uuid: Option<&MigUuid>, gpu: &'a Gpu) -> Option<&'a MigDevice> {
    let at = (identity.profile_id, identity.placement);
    let here = |mig: &&MigDevice| (mig.identity.profile_id, mig.identity.placement) == at;
    let is_other = |mig: &&MigDevice| mig.identity != *identity || uuid.is_some_and(|uuid| *uuid != mig.uuid);
    gpu.mig_devices().iter().filter(here).find(is_other)
}

fn failed_to_destroy(identity: &MigIdentity, processes: Vec<Holding>, source: GpuError) -> EffectError {
    EffectError::Destroy { identity: identity.clone(), processes, source: Box::new(source) }
}
