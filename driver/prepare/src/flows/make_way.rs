// SPDX-License-Identifier: Apache-2.0
//! Ends the claims that hold what a refused claim needs, if no pod can use them any more.
//!
//! The API server is asked once about each claim that a refusal names. A claim that is over is undone under the conditions of
//! the reconciliation, so that no containers lose their devices. Its lock is tried and not waited for, and no lock of a GPU is
//! held meanwhile, so two prepares that need each other's devices cannot deadlock.

use std::collections::BTreeSet;

use dra_checkpoint::RecordedDevice;
use dra_model::{ClaimRef, ClaimUid, DeviceName, explain};
use tracing::{info, warn};

use crate::decide::refusal::Refusal;
use crate::error::PrepareCause;
use crate::flows::end::{Ending, Round, end};
use crate::state::call::Call;
use crate::state::claim_api::ClaimLookup;
use crate::state::node::Node;

/// Returns `Ok` when the prepare is worth another try. An error names no claim that is over. `asked` are the claims that this
/// call has asked about.
pub(super) fn make_way(
    node: &Node,
    cause: Box<PrepareCause>,
    asked: &mut BTreeSet<ClaimUid>,
    look_up: &dyn Fn(&ClaimRef) -> ClaimLookup,
    call: &Call<'_>,
) -> Result<(), Box<PrepareCause>> {
    let PrepareCause::Refused(refusal) = &*cause else { return Err(cause) };
    let boot_id = node.host.boot_id().ok();
    let round = Round { look_up, boot_id: boot_id.as_deref(), call };
    let mut outcome = Err(None);
    for (device, holder) in holders(node, refusal) {
        if !asked.insert(holder.uid.clone()) {
            continue;
        }
        match end(node, &holder, round) {
            Ok(Ending::InUse) => {}
            Ok(Ending::Undone) => {
                info!(claim = %holder, "claim undone: no pod of this node can use it, and another claim needs its device");
                outcome = Ok(());
            }
            Ok(Ending::Pending) => {
                outcome = outcome.or(Err(Some(PrepareCause::Refused(Refusal::Ending { device }))));
            }
            Err(problem) => {
                warn!(error = explain(&problem), "failed to undo a claim whose device another claim needs");
                outcome = outcome.or(Err(Some(PrepareCause::Holder { device })));
            }
        }
    }
    outcome.map_err(|instead| instead.map_or(cause, Box::new))
}

/// The claims that a refusal names, each with the device that it holds.
fn holders(node: &Node, refusal: &Refusal) -> Vec<(DeviceName, ClaimRef)> {
    if let Refusal::Held { device, holder, .. }
    | Refusal::Mixed { device, holder, .. }
    | Refusal::OtherInterval { device, holder, .. } = refusal
    {
        return vec![(device.clone(), (*holder.claim).clone())];
    }
    if let Refusal::HeldByQuarantined { device, path, .. } = refusal {
        let quarantined = node.records.all_quarantined().unwrap_or_default().into_iter();
        let mut holder = quarantined.filter(|one| one.path == *path && one.salvaged.is_claim_certain);
        let holder = holder.find_map(|one| one.salvaged.claim);
        return holder.map(|claim| (device.clone(), claim)).into_iter().collect();
    }
    if let Refusal::NotEnoughLeft { device, .. } = refusal {
        let is_share = |it: &RecordedDevice| it.device == *device && !it.admin_access;
        let records = node.records.list().map(|listing| listing.records).unwrap_or_default();
        let shares = records.into_iter().filter(|record| record.devices.iter().any(is_share));
        return shares.map(|record| (device.clone(), record.claim)).collect();
    }
    Vec::new()
}
