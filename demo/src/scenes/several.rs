// SPDX-License-Identifier: Apache-2.0
//! Several pods on one claim, several requests in one claim.

use crate::{
    error::Result,
    stage::{PodSaw, Stage},
};
use std::fmt;

/// What two pods saw that name the same claim.
#[derive(Debug, Clone)]
pub struct SharedClaim {
    /// Both.
    pub pods: [PodSaw; 2],
}

impl fmt::Display for SharedClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = &self.pods;
        write!(f, "{a}\n{b}")
    }
}

/// What the containers of one pod saw, each with a request of the claim.
#[derive(Debug, Clone)]
pub struct SeveralRequests {
    /// With the request `pair`.
    pub train: PodSaw,
    /// With the request `slice`.
    pub serve: PodSaw,
    /// With the request `best`.
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
