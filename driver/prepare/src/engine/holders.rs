// SPDX-License-Identifier: Apache-2.0
//! Other claims that are in the way of a prepare: whether they still may be.
//!
//! The API server is asked once about each claim that a refusal is about. One that no pod can use any more is undone as the
//! reconciliation undoes it, and under the same conditions, so that nothing is taken from containers that may still run.
//! Its lock is tried and not waited for, and no lock of a GPU is held meanwhile: two prepares that are in each other's way
//! cannot wait for each other.

use std::collections::BTreeSet;

use dra_checkpoint::RecordedDevice;
use dra_model::{ClaimRef, ClaimUid, DeviceName};
use tracing::{info, warn};

use super::{Call, Engine};
use crate::error::{PrepareCause, chain};
use crate::reconcile::ClaimLife;
use crate::reconcile::claims::{Ending, Round};
use crate::refusal::Refusal;

impl Engine {
    /// Undoes claims that a refusal is about, as far as no pod can use them any more. Without an error the prepare is worth
    /// another try; an error names no claim that is over. `asked` are the claims that this call need not look at.
    pub(super) fn clear_the_way(
        &self,
        cause: Box<PrepareCause>,
        asked: &mut BTreeSet<ClaimUid>,
        life: &dyn Fn(&ClaimRef) -> ClaimLife,
        call: &Call<'_>,
    ) -> Result<(), Box<PrepareCause>> {
        let PrepareCause::Refused(refusal) = &*cause else { return Err(cause) };
        let boot_id = self.host.boot_id().ok();
        let round = Round { life, boot_id: boot_id.as_deref(), call };
        let mut outcome = Err(None);
        for (device, holder) in self.holders(refusal) {
            if !asked.insert(holder.uid.clone()) {
                continue;
            }
            match self.end(&holder, round) {
                Ok(Ending::Holds) => {}
                Ok(Ending::Undone) => {
                    info!(claim = %holder, "claim undone: no pod of this node can use it any more, and another claim needs its device");
                    outcome = Ok(());
                }
                Ok(Ending::Left) => {
                    outcome = outcome.or(Err(Some(PrepareCause::Refused(Refusal::Ending { device }))));
                }
                Err(problem) => {
                    warn!(error = chain(&problem), "a claim that keeps another one from its device cannot be undone");
                    outcome = outcome.or(Err(Some(PrepareCause::Holder { device })));
                }
            }
        }
        outcome.map_err(|instead| instead.map_or(cause, Box::new))
    }

    /// The claims that a refusal is about, each with the device that it keeps from the claim that was refused.
    fn holders(&self, refusal: &Refusal) -> Vec<(DeviceName, ClaimRef)> {
        if let Refusal::Held { device, holder, .. }
        | Refusal::Mixed { device, holder, .. }
        | Refusal::OtherInterval { device, holder, .. } = refusal
        {
            return vec![(device.clone(), (*holder.claim).clone())];
        }
        if let Refusal::HeldInDoubt { device, path, .. } = refusal {
            let in_doubt = self.records.all_quarantined().unwrap_or_default().into_iter();
            let mut holder = in_doubt.filter(|one| one.path == *path && one.salvaged.is_claim_certain);
            let holder = holder.find_map(|one| one.salvaged.claim);
            return holder.map(|claim| (device.clone(), claim)).into_iter().collect();
        }
        if let Refusal::Overpromised { device, .. } = refusal {
            let is_share = |it: &RecordedDevice| it.device == *device && !it.admin_access;
            let records = self.records.list().map(|listing| listing.records).unwrap_or_default();
            let shares = records.into_iter().filter(|record| record.devices.iter().any(is_share));
            return shares.map(|record| (device.clone(), record.claim)).collect();
        }
        Vec::new()
    }
}
