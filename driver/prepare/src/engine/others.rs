// SPDX-License-Identifier: Apache-2.0
//! What the other claims of the node hold, and the tools that respect it.

use std::time::Instant;

use dra_cdi::SpecStoreError;
use dra_checkpoint::{ClaimRecord, Quarantined, StoreError};
use dra_model::GpuUuid;

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
    /// What claims hold. What was set aside is looked at first: until it is settled it counts, and after that there is a
    /// record.
    pub(crate) fn others(&self) -> Result<Others, OthersError> {
        let failed = |source| OthersError::Records { source };
        let before = self.records.quarantined().map_err(failed)?;
        let listing = self.records.list().map_err(failed)?;
        let inventory = self.host.latest();
        let doubt = |record: Quarantined| {
            let in_spec = match &record.uid {
                Some(uid) => self.specs.devices_of(uid).map_err(|source| OthersError::Specs { source })?,
                None => Vec::new(),
            };
            Ok(Doubt::new(record, in_spec, &inventory))
        };
        let doubts = before.into_iter().chain(listing.quarantined).map(doubt).collect::<Result<_, _>>()?;
        Ok(Others { records: listing.records, doubts })
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
            host: &self.host,
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
