// SPDX-License-Identifier: Apache-2.0
//! What the other claims of the node hold, and the tools that respect it.

use std::time::Instant;

use dra_cdi::SpecStoreError;
use dra_checkpoint::store::dedup_by_path;
use dra_checkpoint::{ClaimRecord, Listing, Quarantined, StoreError};
use dra_model::{ClaimUid, GpuUuid};
use tracing::warn;

use super::{Call, Engine};
use crate::doubts::Doubt;
use crate::error::NotLocked;
use crate::locks::{Lock, Reach};
use crate::step::Tools;
use crate::users::{Asking, Users};

/// All records, and those that were set aside.
#[derive(Debug, Default)]
pub(crate) struct Others {
    pub(crate) records: Vec<ClaimRecord>,
    pub(crate) doubts: Vec<Doubt>,
}

/// What other claims hold is not known.
#[derive(Debug, thiserror::Error)]
pub enum OthersError {
    /// The folder of records.
    #[error("their records cannot be read")]
    Records {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The specs of claims whose records cannot be read.
    #[error("their CDI specs cannot be read")]
    Specs {
        /// Why.
        #[source]
        source: SpecStoreError,
    },
}

impl Engine {
    /// What claims hold. What was set aside is looked at before the records, since it counts until there is a record again,
    /// and after them, since a record may be set aside meanwhile.
    pub(crate) fn others(&self) -> Result<Others, OthersError> {
        let failed = |source| OthersError::Records { source };
        let before = self.records.quarantined().map_err(failed)?;
        let Listing { records, quarantined, .. } = self.listed().map_err(failed)?;
        let after = self.records.quarantined().map_err(failed)?;
        let inventory = self.host.latest();
        let doubt = |record: Quarantined| {
            let in_spec = match &record.uid {
                Some(uid) => self.specs.devices_of(uid).map_err(|source| OthersError::Specs { source })?,
                None => Vec::new(),
            };
            Ok(Doubt::new(record, in_spec, &inventory))
        };
        let doubts = dedup_by_path([before, quarantined, after].concat());
        Ok(Others { records, doubts: doubts.into_iter().map(doubt).collect::<Result<_, _>>()? })
    }

    /// All records. Damaged ones are set aside first, each under the lock of its claim; where another call works on the claim
    /// its record stays for now and is told all the same.
    pub(crate) fn listed(&self) -> Result<Listing, StoreError> {
        let listing = self.records.list()?;
        if listing.quarantined.is_empty() {
            return Ok(listing);
        }
        for uid in listing.quarantined.iter().filter_map(|bad| bad.uid.as_ref()) {
            // A lock or a disk that fails leaves the record where it is.
            let aside = self.if_idle(uid, || self.records.quarantine_if_damaged(uid));
            if let Some(bad) = aside.ok().flatten().and_then(|aside| aside.ok().flatten()) {
                warn!(path = %bad.path.display(), reason = bad.reason, devices = ?bad.salvaged.devices, "a claim record was set aside");
            }
        }
        self.records.list()
    }

    /// Does something while no call works on a claim; nothing where one does.
    pub(crate) fn if_idle<T>(&self, uid: &ClaimUid, work: impl FnOnce() -> T) -> Result<Option<T>, NotLocked> {
        match self.lock_uid(uid, Instant::now()) {
            Ok(_lock) => Ok(Some(work())),
            Err(NotLocked::Busy { .. }) => Ok(None),
            Err(error @ NotLocked::Failed { .. }) => Err(error),
        }
    }

    /// For the call of a claim, or for nobody's.
    pub(crate) fn tools<'a>(
        &'a self,
        asking: Asking<'a>,
        others: &'a Others,
        boot_id: Option<&'a str>,
        call: &'a Call<'_>,
    ) -> Tools<'a> {
        Tools {
            specs: &self.specs,
            host: call.host(),
            ledgers: &self.ledgers,
            daemons: call,
            users: Users { asking, records: &others.records, doubts: &others.doubts, boot_id },
            tally: &self.tally,
        }
    }

    /// The error names what is waited for as users know it.
    pub(crate) fn lock_gpu(
        &self,
        gpu: &GpuUuid,
        what: String,
        holder: &str,
        deadline: Instant,
        reach: Reach,
    ) -> Result<Lock<'_>, NotLocked> {
        let lock = self.locks.take(&format!("gpu-{}", gpu.hex()), holder, deadline, reach);
        lock.map_err(|error| NotLocked::new(what, error))
    }
}
