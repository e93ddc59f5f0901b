// SPDX-License-Identifier: Apache-2.0
//! Reads one claim from the API server, by name and checked by UID, when a prepare needs it.
//!
//! Claims are never listed or watched: every node would receive every claim of the cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dra_hardware::Deadline;
use dra_model::{Claim, ClaimRef, NodeName};
use dra_prepare::{ClaimLife, FetchError};
use dra_resource::{ClaimError, DriverName, claim_of};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::claim_api::{Answer, ClaimApi, ClaimApiError};

/// Much shorter than the call of a kubelet may take, so that the answer says what is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the API server gave no answer to work with.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Slow,
    #[error("the time of this call was over before it answered")]
    OutOfTime,
    #[error("no claim to work with was answered")]
    Answer(#[source] ClaimApiError),
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
    claims: ClaimApi,
    driver: DriverName,
    node: NodeName,
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
    pub fn new(claims: ClaimApi, driver: DriverName, node: NodeName, stop: CancellationToken) -> Self {
        Self { claims, driver, node, runtime: Handle::current(), stop }
    }

    /// Reads a claim. Called on a blocking thread, after the claim's lock was taken.
    ///
    /// When nobody waits for the answer any more nothing may be begun: the claim may be unprepared already.
    pub fn read(&self, claim: &ClaimRef, abandoned: &Abandoned, deadline: &Deadline) -> Result<Claim, FetchError> {
        if abandoned.is_set() {
            return Err(FetchError::Abandoned);
        }
        let answer = self.runtime.block_on(self.answer(claim, deadline));
        let answer = answer.map_err(unanswered)?.ok_or(FetchError::Gone)?;
        claim_of(&answer.json, claim, &self.driver).map_err(|error| match error {
            ClaimError::Replaced { found, .. } => FetchError::Replaced { found },
            error @ (ClaimError::Unreadable { .. } | ClaimError::NotAllocated { .. }) => {
                FetchError::Unreachable { source: Box::new(error) }
            }
            error @ (ClaimError::InvalidAllocation { .. } | ClaimError::UnknownConfigSource { .. }) => {
                FetchError::Unusable { source: Box::new(error) }
            }
        })
    }

    /// Whether a claim of this UID still exists and is allocated to this node. Not known any more once the process stops.
    pub fn life(&self, claim: &ClaimRef, deadline: &Deadline) -> ClaimLife {
        if self.stop.is_cancelled() {
            return ClaimLife::Unknown;
        }
        match self.runtime.block_on(self.answer(claim, deadline)) {
            Ok(Some(answer)) => life_of(claim_of(&answer.json, claim, &self.driver), &self.node),
            Ok(None) => ClaimLife::Gone,
            Err(_) => ClaimLife::Unknown,
        }
    }

    async fn answer(&self, claim: &ClaimRef, deadline: &Deadline) -> Result<Option<Answer>, NoAnswer> {
        let limit = deadline.limit(PATIENCE);
        match timeout(limit, self.claims.get(claim)).await {
            Ok(answer) => answer.map_err(NoAnswer::Answer),
            Err(_elapsed) if limit < PATIENCE => Err(NoAnswer::OutOfTime),
            Err(_elapsed) => Err(NoAnswer::Slow),
        }
    }
}

/// The answer is the newest: a GET without a resource version is answered from the storage, not from a cache. A claim that is
/// reserved for a pod is allocated, to the node of that pod.
fn life_of(read: Result<Claim, ClaimError>, node: &NodeName) -> ClaimLife {
    match read {
        Ok(claim) if claim.devices.iter().any(|device| device.pool == node.as_str()) => ClaimLife::Alive,
        Ok(_) | Err(ClaimError::NotAllocated { .. }) => ClaimLife::Released,
        Err(ClaimError::Replaced { .. }) => ClaimLife::Gone,
        Err(ClaimError::Unreadable { .. }) => ClaimLife::Unknown,
        Err(ClaimError::InvalidAllocation { .. } | ClaimError::UnknownConfigSource { .. }) => ClaimLife::Alive,
    }
}

fn unanswered(why: NoAnswer) -> FetchError {
    if let NoAnswer::Answer(error @ ClaimApiError::TooLarge) = why {
        return FetchError::Unusable { source: Box::new(error) };
    }
    FetchError::Unreachable { source: Box::new(why) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Pending, pending};
    use std::task::{Context, Poll};
    use std::time::Instant;

    use http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::task::spawn_blocking;
    use tonic::codegen::Service;

    use super::*;

    /// An API server that takes requests and answers none.
    #[derive(Clone)]
    struct Hanging;

    impl Service<Request<Body>> for Hanging {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Pending<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            pending()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_claims_together_are_asked_about_no_longer_than_until_the_deadline() {
        let claims = ClaimApi::new(Client::new(Hanging, "default"));
        let (driver, node) = ("gpu.nvidia.com".parse().unwrap(), "here".parse().unwrap());
        let source = ClaimSource::new(claims, driver, node, CancellationToken::new());
        let claim = ClaimRef { namespace: "ns".to_owned(), name: "c".to_owned(), uid: "u-1".parse().unwrap() };
        let (began, asking) = (Instant::now(), Deadline::after(Duration::from_millis(50)));
        let ask = move || (0..100).map(|_| source.life(&claim, &asking)).all(|life| life == ClaimLife::Unknown);
        assert!(spawn_blocking(ask).await.unwrap());
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    }

    #[test]
    fn a_claim_lives_here_while_a_device_of_this_node_is_allocated_to_it() {
        let result = |driver: &str, pool: &str| json!({"request": "r", "driver": driver, "pool": pool, "device": "d"});
        let allocated = |results: &[Value]| json!({"allocation": {"devices": {"results": results}}});
        let (ours, theirs) = (result("gpu.nvidia.com", "here"), result("net.example.com", "here"));
        for (uid, status, life) in [
            ("u-1", allocated(&[theirs.clone(), ours.clone()]), ClaimLife::Alive),
            ("u-1", allocated(&[result("gpu.nvidia.com", "there")]), ClaimLife::Released),
            ("u-1", allocated(&[theirs]), ClaimLife::Released),
            ("u-1", json!({"allocation": {}}), ClaimLife::Released),
            ("u-1", json!({}), ClaimLife::Released),
            ("u-1", Value::Null, ClaimLife::Released),
            ("u-2", allocated(&[ours]), ClaimLife::Gone),
        ] {
            let object = json!({"metadata": {"uid": uid}, "status": status}).to_string();
            let claim = ClaimRef { namespace: "ns".to_owned(), name: "c".to_owned(), uid: "u-1".parse().unwrap() };
            let read = claim_of(object.as_bytes(), &claim, &"gpu.nvidia.com".parse().unwrap());
            let found = life_of(read, &"here".parse().unwrap());
            assert_eq!(found, life, "{uid} {status}");
        }
    }
}
