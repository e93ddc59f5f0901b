// SPDX-License-Identifier: Apache-2.0
//! Why a claim could not be fetched, which the caller of the engine does.

use std::error::Error;

use dra_model::Disposition;

/// Why the claim could not be had from the API server.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It was deleted.
    #[error("it no longer exists: delete the pod, so that it gets a new claim")]
    Gone,
    /// Another claim has its name now.
    #[error("another claim (UID {found}) has its name now: delete the pod, so that it uses that one")]
    Replaced {
        /// UID of the other.
        found: String,
    },
    /// It is not what an allocated claim looks like.
    #[error("it cannot be used as it is: delete the pod, so that it is scheduled anew")]
    Unusable {
        /// What is wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Nobody waits for the answer any more, so nothing is begun: the claim may be unprepared already.
    #[error("the kubelet gave up on this call before it began (will retry)")]
    Abandoned,
    /// No answer of the API server, or a refusal.
    #[error("unable to get it from the API server (will retry)")]
    Unreachable {
        /// How the request for the claim failed.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl FetchError {
    /// Whether retrying helps.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Gone | Self::Replaced { .. } | Self::Unusable { .. } => Disposition::Permanent,
            Self::Abandoned | Self::Unreachable { .. } => Disposition::Transient,
        }
    }
}
