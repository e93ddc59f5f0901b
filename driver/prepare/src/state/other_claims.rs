// SPDX-License-Identifier: Apache-2.0
//! Reads what all claims of the node hold.

use std::borrow::Cow;

use dra_cdi::SpecStoreError;
use dra_checkpoint::store::dedup_by_path;
use dra_checkpoint::{ClaimRecord, Listing, Quarantined, StoreError};
use dra_model::Advice;
use tracing::warn;

use crate::state::node::Node;
use crate::state::quarantine::QuarantinedClaim;

/// All records, and the claims of quarantined records.
#[derive(Debug, Default)]
pub(crate) struct OtherClaims {
    pub(crate) records: Vec<ClaimRecord>,
    pub(crate) quarantined: Vec<QuarantinedClaim>,
}

/// Why it is unknown what other claims hold.
#[derive(Debug, thiserror::Error)]
pub enum OtherClaimsError {
    #[error("failed to read the claim records")]
    Records {
        #[source]
        source: StoreError,
    },
    #[error("failed to list the GPU state records")]
    Ledgers {
        #[source]
        source: StoreError,
    },
    /// Those of claims with a quarantined record.
    #[error("failed to read the CDI specs of claims")]
    Specs {
        #[source]
        source: SpecStoreError,
    },
}

impl Advice for OtherClaimsError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Records { source } | Self::Ledgers { source } => source.advice(),
            Self::Specs { source } => source.advice(),
        }
    }
}

impl OtherClaims {
    /// Reads the quarantine before the records, since a quarantined record counts until its claim has a record again, and after
    /// them, since a record may be quarantined meanwhile.
    pub(crate) fn read(node: &Node) -> Result<Self, OtherClaimsError> {
        let failed = |source| OtherClaimsError::Records { source };
        let before = node.records.quarantined().map_err(failed)?;
        let Listing { records, quarantined, .. } = list_records(node).map_err(failed)?;
        let after = node.records.quarantined().map_err(failed)?;
        let inventory = node.host.latest();
        let claim = |record: Quarantined| {
            let in_spec = match &record.uid {
                Some(uid) => node.specs.devices_of(uid).map_err(|source| OtherClaimsError::Specs { source })?,
                None => Vec::new(),
            };
            Ok(QuarantinedClaim::new(record, in_spec, &inventory))
        };
        let quarantined = dedup_by_path([before, quarantined, after].concat()).into_iter().map(claim);
        Ok(Self { records, quarantined: quarantined.collect::<Result<_, _>>()? })
    }
}

/// Lists all records. Damaged records are quarantined first, each under the lock of its claim. While another call holds that
/// lock the record stays where it is and is listed as damaged.
pub(crate) fn list_records(node: &Node) -> Result<Listing, StoreError> {
    let listing = node.records.list()?;
    if listing.quarantined.is_empty() {
        return Ok(listing);
    }
    for uid in listing.quarantined.iter().filter_map(|bad| bad.uid.as_ref()) {
        // When the lock or the disk fails the record stays where it is.
        let quarantined = node.if_idle(uid, || node.records.quarantine_if_damaged(uid));
        if let Some(bad) = quarantined.ok().flatten().and_then(|quarantined| quarantined.ok().flatten()) {
            warn!(path = %bad.path.display(), reason = bad.reason, devices = ?bad.salvaged.devices, "claim record quarantined");
        }
    }
    node.records.list()
}
