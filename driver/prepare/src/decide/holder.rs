// SPDX-License-Identifier: Apache-2.0
//! How a refusal names the claim that holds a device.
//!
//! Refusals are shown in the namespace of the refused claim, so they name claims of that namespace only. The process names
//! the others in its log and in an Event on the Node.

use std::fmt;

use dra_model::{ClaimRef, ClaimUid};

/// What a refusal calls a claim whose name it must not show.
pub(crate) const OTHER_NAMESPACE: &str = "a claim of another namespace";

/// The claim that holds what another claim was allocated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub claim: Box<ClaimRef>,
    is_named: bool,
}

impl Holder {
    /// `refused` is the claim whose users read the text.
    pub fn new(claim: &ClaimRef, refused: &ClaimRef) -> Self {
        Self { claim: Box::new(claim.clone()), is_named: claim.namespace == refused.namespace }
    }

    /// The claim, where its name is not shown.
    pub fn unnamed(&self) -> Option<&ClaimRef> {
        (!self.is_named).then_some(&*self.claim)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_named { write!(f, "claim {}", self.claim) } else { f.write_str(OTHER_NAMESPACE) }
    }
}

/// The claim of a quarantined record, as far as the record names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuarantinedHolder {
    Claim(Holder),
    /// Known from the file name of the record only.
    Uid(ClaimUid),
    Unknown,
}

impl fmt::Display for QuarantinedHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(holder) => holder.fmt(f),
            Self::Uid(uid) => write!(f, "the claim with UID {uid}"),
            Self::Unknown => f.write_str("an unknown claim"),
        }
    }
}
