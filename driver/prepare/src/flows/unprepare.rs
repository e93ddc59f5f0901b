// SPDX-License-Identifier: Apache-2.0
//! Unprepares a claim.

use dra_cdi::Kind;
use dra_checkpoint::Step;
use dra_hardware::Deadline;
use dra_model::ClaimRef;
use tracing::debug;

use crate::effects::ledger;
use crate::effects::tools::Tools;
use crate::error::{UnprepareCause, UnprepareError};
use crate::flows::{restore, undo};
use crate::state::call::Call;
use crate::state::creations::salvaged_partitions;
use crate::state::locks::Guarantee;
use crate::state::node::Node;
use crate::state::other_claims::OtherClaims;
use crate::state::references::Caller;

/// Undoes what was done for a claim. An unknown claim is unprepared already.
pub(crate) fn unprepare(node: &Node, claim: &ClaimRef, deadline: &Deadline) -> Result<(), UnprepareError> {
    let call = node.call_until(deadline);
    node.order.supersede(&claim.uid);
    let unprepared = match node.lock_claim(&claim.uid, call.lock_deadline) {
        Ok(_lock) => unprepare_locked(node, claim, &call),
        Err(error) => Err(Box::new(UnprepareCause::Lock(error))),
    };
    unprepared.map_err(|cause| UnprepareError { claim: claim.clone(), cause })
}

/// The same for a caller that holds the claim's lock.
pub(super) fn unprepare_locked(node: &Node, claim: &ClaimRef, call: &Call<'_>) -> Result<(), Box<UnprepareCause>> {
    let Some(record) = node.load(&claim.uid).map_err(|source| UnprepareCause::Record { source })? else {
        return unprepare_without_record(node, claim, call);
    };
    let gpus = record.devices.iter().map(|device| (device.hardware.gpu().clone(), device.device.to_string()));
    let locks = node.lock_gpus(claim, gpus.collect(), call.lock_deadline, Guarantee::ProcessOnly);
    let _locks = locks.map_err(UnprepareCause::Lock)?;
    // A claim with nothing but a spec shares nothing with other claims.
    let has_more = record.effects().iter().any(|step| *step != Step::ClaimSpec);
    let others = if has_more { OtherClaims::read(node) } else { Ok(OtherClaims::default()) };
    let others = others.map_err(|source| UnprepareCause::OtherClaims { source })?;
    let boot_id = if has_more { node.host.boot_id().ok() } else { None };
    let tools = Tools::new(node, Caller::Unpreparing(claim), &others, boot_id.as_deref(), call);
    undo::undo(&record, &node.records, &tools).map_err(|failures| UnprepareCause::Undo { failures })?;
    node.records.clear_quarantine(&claim.uid).map_err(|source| UnprepareCause::Quarantine { source })?;
    debug!(claim = %claim, claim_uid = %claim.uid, "claim unprepared");
    Ok(())
}

/// A record that was quarantined, or lost with its disk, may have left a spec and pending restores.
fn unprepare_without_record(node: &Node, claim: &ClaimRef, call: &Call<'_>) -> Result<(), Box<UnprepareCause>> {
    let removed = node.specs.remove(&Kind::Claim(claim.uid.clone()));
    removed.map_err(|source| UnprepareCause::Spec { source })?;
    let was_quarantined = node.is_quarantined(&claim.uid);
    record_partitions(node, claim, call)?;
    node.records.clear_quarantine(&claim.uid).map_err(|source| UnprepareCause::Quarantine { source })?;
    if was_quarantined {
        restore::restore_pending(node, call);
    }
    Ok(())
}

/// Leaves the partitions of a damaged record to the restore of their GPUs.
fn record_partitions(node: &Node, claim: &ClaimRef, call: &Call<'_>) -> Result<(), Box<UnprepareCause>> {
    let quarantined = node.records.all_quarantined().map_err(|source| UnprepareCause::Quarantine { source })?;
    let own = quarantined.iter().filter(|one| one.is_about(&claim.uid));
    for (identity, uuid) in own.flat_map(salvaged_partitions) {
        let gpu = &identity.parent;
        let lock =
            node.lock_gpus(claim, [(gpu.clone(), gpu.to_string())].into(), call.lock_deadline, Guarantee::ProcessOnly);
        let _lock = lock.map_err(UnprepareCause::Lock)?;
        let (others, boot_id) = (OtherClaims::default(), node.host.boot_id().ok());
        let tools = Tools::new(node, Caller::Unpreparing(claim), &others, boot_id.as_deref(), call);
        let failed = |source| UnprepareCause::Partition { source };
        let ledger = ledger::load(gpu, &tools).map_err(failed)?;
        let mut ledger = ledger.unwrap_or_else(|| ledger::new(gpu, &tools));
        ledger.partitions.insert(identity.clone(), uuid);
        ledger::put(&ledger, &tools).map_err(failed)?;
    }
    Ok(())
}
