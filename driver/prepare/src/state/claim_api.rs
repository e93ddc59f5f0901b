// SPDX-License-Identifier: Apache-2.0
//! The answers of the API server about a claim. The caller of the engine asks it.

use std::borrow::Cow;
use std::error::Error;

use dra_model::{Advice, Disposition};

/// Why the claim was not read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the claim no longer exists")]
    Gone,
    #[error("another claim (UID {found}) has this name now")]
    Replaced { found: String },
    #[error("the claim is not usable as it is")]
    Unusable {
        #[source]
        source: Box<dyn Error + Send + Sync>,
        advice: Cow<'static, str>,
    },
    /// Nothing was begun: the claim may be unprepared already.
    #[error("the kubelet cancelled this call before it began")]
    Abandoned,
    #[error("failed to get the claim from the API server")]
    Unreachable {
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl FetchError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Gone | Self::Replaced { .. } | Self::Unusable { .. } => Disposition::Permanent,
            Self::Abandoned | Self::Unreachable { .. } => Disposition::Transient,
        }
    }
}

impl Advice for FetchError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Gone => Some("delete the pod, so that it gets a new claim".into()),
            Self::Replaced { .. } => Some("delete the pod, so that it uses that claim".into()),
            Self::Unusable { advice, .. } => Some(advice.clone()),
            Self::Abandoned | Self::Unreachable { .. } => None,
        }
    }
}

/// The existence and the allocation of a claim, as the API server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimLookup {
    /// It exists, with this UID, and is allocated to this node.
    Allocated,
    /// It exists, with this UID, and is not allocated to this node. It may be again.
    Released,
    /// It does not exist, and never will again.
    Gone,
    /// There was no answer.
    Unknown,
}

impl ClaimLookup {
    /// Whether no pod of this node can use the claim any more.
    pub(crate) fn is_over(self) -> bool {
        match self {
            Self::Gone | Self::Released => true,
            Self::Allocated | Self::Unknown => false,
        }
    }
}
