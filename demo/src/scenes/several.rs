// SPDX-License-Identifier: Apache-2.0
//! Several pods with one claim, several requests in one claim.

use crate::{
    error::Result,
    stage::{PodSaw, Stage},
};
use std::fmt;

/// The GPUs of two pods with the same claim.
#[derive(Debug, Clone)]
pub struct SharedClaim {
    pub pods: [PodSaw; 2],
}

impl fmt::Display for SharedClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = &self.pods;
        write!(f, "{a}\n{b}")
    }
}

/// The GPUs of the containers of one pod, each with a request of the claim.
#[derive(Debug, Clone)]
pub struct SeveralRequests {
    /// Container with the request `pair`.
    pub train: PodSaw,
    /// Container with the request `slice`.
    pub serve: PodSaw,
    /// Container with the request `best`.
    pub extra: PodSaw,
}

impl fmt::Display for SeveralRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { train, serve, extra } = self;
        write!(f, "{train}\n{serve}\n{extra}")
    }
}

/// One claim, two pods.
pub fn shared_claim(stage: &Stage<'_>) -> Result<SharedClaim> {
    stage.with("shared-claim.yaml", || {
        Ok(SharedClaim { pods: [stage.saw("shared-claim-a")?, stage.saw("shared-claim-b")?] })
    })
}

/// One claim, three requests, three containers.
pub fn several_requests(stage: &Stage<'_>) -> Result<SeveralRequests> {
    stage.with("several-requests.yaml", || {
        let saw = |container| stage.saw_in("default", "several-requests", container);
        Ok(SeveralRequests { train: saw("train")?, serve: saw("serve")?, extra: saw("extra")? })
    })
}
