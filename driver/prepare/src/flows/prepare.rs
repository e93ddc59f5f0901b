// SPDX-License-Identifier: Apache-2.0
//! Prepares a claim for the kubelet.

use std::collections::BTreeSet;

use dra_checkpoint::ClaimRecord;
use dra_hardware::Deadline;
use dra_model::{Claim, ClaimRef};

use crate::effects::prerequisites::loaded_driver;
use crate::error::{PrepareCause, PrepareError};
use crate::flows::ensure::{Base, Wanted, claim_of, ensure_prepared, is_prepared_this_boot};
use crate::flows::make_way::make_way;
use crate::state::call::Call;
use crate::state::claim_api::{ClaimLookup, FetchError};
use crate::state::node::Node;

/// The requests to the API server that a prepare may make.
#[derive(Clone, Copy)]
pub(crate) struct Api<'a> {
    /// Reads the claim; called once, and not at all if the claim is prepared already.
    pub(crate) fetch: &'a dyn Fn() -> Result<Claim, FetchError>,
    /// Asks about another claim that holds a device of this one.
    pub(crate) look_up: &'a dyn Fn(&ClaimRef) -> ClaimLookup,
}

pub(crate) fn prepare(
    node: &Node,
    claim: &ClaimRef,
    api: Api<'_>,
    deadline: &Deadline,
) -> Result<ClaimRecord, PrepareError> {
    let ticket = node.order.enter(&claim.uid);
    node.missing.forget(&claim.uid);
    let call = node.call_until(deadline);
    let prepared = match node.lock_claim(&claim.uid, call.lock_deadline) {
        Ok(_lock) if ticket.is_superseded() => Err(Box::new(PrepareCause::Superseded)),
        Ok(_lock) => prepare_locked(node, claim, api, &call),
        Err(error) => Err(Box::new(PrepareCause::Lock(error))),
    };
    prepared.map_err(|cause| PrepareError { claim: claim.clone(), cause })
}

fn prepare_locked(
    node: &Node,
    reference: &ClaimRef,
    api: Api<'_>,
    call: &Call<'_>,
) -> Result<ClaimRecord, Box<PrepareCause>> {
    let boot_id = node.host.boot_id().map_err(|source| PrepareCause::Boot { source })?;
    let existing = node.load(&reference.uid).map_err(|source| PrepareCause::Record { source })?;
    let (claim, driver) = match &existing {
        Some(record) if is_prepared_this_boot(record, &boot_id) => (claim_of(record), None),
        Some(_) | None => {
            // While the API server answers. What fails here is reported after what is wrong with the claim itself.
            let driver = loaded_driver(node, call.arrival()).ok();
            (fetched(reference, api).map_err(|source| PrepareCause::Fetch { source })?, driver)
        }
    };
    let (existing, boot_id, driver) = (existing.as_ref(), boot_id.as_str(), driver.as_deref());
    let wanted = Wanted { claim: &claim, existing, boot_id, base: Base::OfLoadedDriver, driver };
    let mut asked = BTreeSet::from([reference.uid.clone()]);
    loop {
        match ensure_prepared(node, wanted, call) {
            Ok((record, _)) => return Ok(record),
            // The GPUs are unlocked again, and a refusal has changed nothing.
            Err(cause) => make_way(node, cause, &mut asked, api.look_up, call)?,
        }
    }
}

fn fetched(reference: &ClaimRef, api: Api<'_>) -> Result<Claim, FetchError> {
    let claim = (api.fetch)()?;
    if claim.reference.uid == reference.uid {
        Ok(claim)
    } else {
        Err(FetchError::Replaced { found: claim.reference.uid.to_string() })
    }
}
