// SPDX-License-Identifier: Apache-2.0
//! Reads one claim from the API server, by name and checked by UID, when a prepare needs it.
//!
//! Claims are never listed or watched: every node would receive every claim of the cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dra_model::{Claim, ClaimRef};
use dra_prepare::{ClaimLife, FetchError};
use dra_resource::{ClaimError, DriverName, claim_of};
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::{Api, Client};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Much shorter than the 45 s a kubelet waits for a prepare, so that the answer says what is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the API server gave no answer to work with.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Slow,
    #[error("the request failed")]
    Request(#[source] Box<kube::Error>),
}

/// Set when the caller of an RPC has left.
#[derive(Debug, Clone, Default)]
pub struct Abandoned(Arc<AtomicBool>);

impl Abandoned {
    /// Marks the call as abandoned.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The API server as a source of claims.
#[derive(Clone)]
pub struct ClaimSource {
    client: Client,
    driver: DriverName,
    runtime: Handle,
    stop: CancellationToken,
}

impl std::fmt::Debug for ClaimSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClaimSource").field("driver", &self.driver).finish_non_exhaustive()
    }
}

impl ClaimSource {
    /// A source whose requests run on the current runtime.
    pub fn new(client: Client, driver: DriverName, stop: CancellationToken) -> Self {
        Self { client, driver, runtime: Handle::current(), stop }
    }

    /// Reads a claim. Called on a blocking thread, after the claim's lock was taken.
    ///
    /// When nobody waits for the answer any more nothing may be begun: the claim may be unprepared already.
    pub fn read(&self, claim: &ClaimRef, abandoned: &Abandoned) -> Result<Claim, FetchError> {
        if abandoned.is_set() {
            return Err(FetchError::Abandoned);
        }
        let object = self.runtime.block_on(self.object(claim)).map_err(unreachable)?.ok_or(FetchError::Gone)?;
        claim_of(&object, claim, &self.driver).map_err(|error| match error {
            ClaimError::Replaced { found, .. } => FetchError::Replaced { found },
            error @ ClaimError::NotAllocated { .. } => FetchError::Unreachable { source: Box::new(error) },
            error @ (ClaimError::InvalidAllocation { .. } | ClaimError::UnknownConfigSource { .. }) => {
                FetchError::Unusable { source: Box::new(error) }
            }
        })
    }

    /// Whether a claim of this UID still exists and is allocated. Not known any more once the process stops.
    pub fn life(&self, claim: &ClaimRef) -> ClaimLife {
        if self.stop.is_cancelled() {
            return ClaimLife::Unknown;
        }
        match self.runtime.block_on(self.object(claim)) {
            Ok(Some(object)) if object.metadata.uid.as_deref() == Some(claim.uid.as_str()) => ClaimLife::Alive,
            Ok(_) => ClaimLife::Gone,
            Err(_) => ClaimLife::Unknown,
        }
    }

    async fn object(&self, claim: &ClaimRef) -> Result<Option<ResourceClaim>, NoAnswer> {
        let claims: Api<ResourceClaim> = Api::namespaced(self.client.clone(), &claim.namespace);
        match timeout(PATIENCE, claims.get_opt(&claim.name)).await {
            Ok(answer) => answer.map_err(|source| NoAnswer::Request(Box::new(source))),
            Err(_elapsed) => Err(NoAnswer::Slow),
        }
    }
}

fn unreachable(why: NoAnswer) -> FetchError {
    FetchError::Unreachable { source: Box::new(why) }
}
