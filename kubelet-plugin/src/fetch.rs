// SPDX-License-Identifier: Apache-2.0
//! Reads one claim from the API server by its name, and checks its UID.
//!
//! Claims are never listed or watched: every node would receive every claim of the cluster.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dra_hardware::Deadline;
use dra_model::{Advice, Claim, ClaimRef, NodeName};
use dra_prepare::{ClaimLookup, FetchError};
use dra_resource::{ClaimError, DriverName, claim_of};
use kube::Client;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::claim_api::{Answer, ClaimApi, ClaimApiError};
use crate::monitoring::consumers::ClaimConsumers;

/// Much shorter than a call of the kubelet may take, so that the kubelet gets an error that names the API server.
const GET_TIMEOUT: Duration = Duration::from_secs(10);

/// The age up to which the answer to an early request is used. The claim may have been allocated again since.
const EARLY_ANSWER_AGE: Duration = Duration::from_secs(1);

/// Why there is no answer of the API server.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("no answer within {} s", GET_TIMEOUT.as_secs())]
    Slow,
    #[error("no answer before the deadline of this call")]
    OutOfTime,
    #[error("failed to read the claim")]
    Api(#[source] ClaimApiError),
}

/// Whether the caller of an RPC cancelled it.
#[derive(Debug, Clone, Default)]
pub struct Abandoned(Arc<AtomicBool>);

impl Abandoned {
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A request that was sent while the call still waits for the lock of its claim. It is given up when this is dropped.
#[derive(Debug)]
pub struct EarlyRequest {
    sent: Instant,
    answer: JoinHandle<Result<Option<Answer>, NoAnswer>>,
}

impl Drop for EarlyRequest {
    fn drop(&mut self) {
        self.answer.abort();
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
    /// The requests run on the current runtime.
    pub fn new(claims: ClaimApi, driver: DriverName, node: NodeName, stop: CancellationToken) -> Self {
        Self { claims, driver, node, runtime: Handle::current(), stop }
    }

    /// The client, for other requests.
    pub fn client(&self) -> Client {
        self.claims.client()
    }

    /// The pods of the claims that were read.
    pub fn consumers(&self) -> &ClaimConsumers {
        self.claims.consumers()
    }

    /// Sends the request of [`ClaimSource::read`] ahead: the API server answers while this process takes locks and reads records.
    pub fn request_early(&self, claim: &ClaimRef, deadline: &Deadline) -> EarlyRequest {
        let (source, claim, deadline) = (self.clone(), claim.clone(), deadline.clone());
        let answer = self.runtime.spawn(async move { source.answer(&claim, &deadline).await });
        EarlyRequest { sent: Instant::now(), answer }
    }

    /// Reads a claim. The caller is on a blocking thread and has the lock of the claim.
    ///
    /// A cancelled call must not start: the claim may be unprepared already.
    pub fn read(
        &self,
        claim: &ClaimRef,
        early: Option<EarlyRequest>,
        abandoned: &Abandoned,
        deadline: &Deadline,
    ) -> Result<Claim, FetchError> {
        if abandoned.is_set() {
            return Err(FetchError::Abandoned);
        }
        let early = early.filter(|request| request.sent.elapsed() < EARLY_ANSWER_AGE);
        let answer = self.runtime.block_on(async {
            match early {
                Some(mut request) => match (&mut request.answer).await {
                    Ok(answer) => answer,
                    Err(_panicked) => self.answer(claim, deadline).await,
                },
                None => self.answer(claim, deadline).await,
            }
        });
        let answer = answer.map_err(no_answer)?.ok_or(FetchError::Gone)?;
        claim_of(&answer.json, claim, &self.driver).map_err(|error| match error {
            ClaimError::Replaced { found, .. } => FetchError::Replaced { found },
            error @ (ClaimError::Unreadable { .. } | ClaimError::NotAllocated { .. }) => {
                FetchError::Unreachable { source: Box::new(error) }
            }
            error @ (ClaimError::InvalidAllocation { .. } | ClaimError::UnknownConfigSource { .. }) => {
                FetchError::Unusable { source: Box::new(error), advice: RESCHEDULE.into() }
            }
        })
    }

    /// Whether a claim with this UID still exists and is allocated to this node. While the process stops, no claim is looked up.
    pub fn look_up(&self, claim: &ClaimRef, deadline: &Deadline) -> ClaimLookup {
        if self.stop.is_cancelled() {
            return ClaimLookup::Unknown;
        }
        match self.runtime.block_on(self.answer(claim, deadline)) {
            Ok(Some(answer)) => lookup_of(claim_of(&answer.json, claim, &self.driver), &self.node),
            Ok(None) => ClaimLookup::Gone,
            Err(_) => ClaimLookup::Unknown,
        }
    }

    async fn answer(&self, claim: &ClaimRef, deadline: &Deadline) -> Result<Option<Answer>, NoAnswer> {
        let limit = deadline.limit(GET_TIMEOUT);
        match timeout(limit, self.claims.get(claim)).await {
            Ok(answer) => answer.map_err(NoAnswer::Api),
            Err(_elapsed) if limit < GET_TIMEOUT => Err(NoAnswer::OutOfTime),
            Err(_elapsed) => Err(NoAnswer::Slow),
        }
    }
}

/// The claim is current, because the API server answers a GET without a resource version from the storage and not from a cache.
/// A claim that is reserved for a pod is allocated to the node of that pod.
fn lookup_of(read: Result<Claim, ClaimError>, node: &NodeName) -> ClaimLookup {
    match read {
        Ok(claim) if claim.devices.iter().any(|device| device.pool == node.as_str()) => ClaimLookup::Allocated,
        Ok(_) | Err(ClaimError::NotAllocated { .. }) => ClaimLookup::Released,
        Err(ClaimError::Replaced { .. }) => ClaimLookup::Gone,
        Err(ClaimError::Unreadable { .. }) => ClaimLookup::Unknown,
        Err(ClaimError::InvalidAllocation { .. } | ClaimError::UnknownConfigSource { .. }) => ClaimLookup::Allocated,
    }
}

const RESCHEDULE: &str = "delete the pod to reschedule it";

fn no_answer(why: NoAnswer) -> FetchError {
    if let NoAnswer::Api(error @ ClaimApiError::TooLarge) = why {
        let advice = error.advice().unwrap_or(Cow::Borrowed(RESCHEDULE));
        return FetchError::Unusable { source: Box::new(error), advice };
    }
    FetchError::Unreachable { source: Box::new(why) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Pending, Ready, pending, ready};
    use std::sync::atomic::AtomicU64;
    use std::task::{Context, Poll};
    use std::time::Instant;

    use http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tokio::task::spawn_blocking;
    use tonic::codegen::Service;

    use super::*;

    /// An API server that accepts requests and never answers.
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
    async fn many_claims_are_looked_up_until_one_common_deadline() {
        let (source, claim) = source(Client::new(Hanging, "default"));
        let (started, deadline) = (Instant::now(), Deadline::after(Duration::from_millis(50)));
        let look_up =
            move || (0..100).map(|_| source.look_up(&claim, &deadline)).all(|found| found == ClaimLookup::Unknown);
        assert!(spawn_blocking(look_up).await.unwrap());
        assert!(started.elapsed() < GET_TIMEOUT, "{:?}", started.elapsed());
    }

    /// An API server that shows the claim allocated to another device with each answer, and counts its requests.
    #[derive(Clone, Default)]
    struct Counting(Arc<AtomicU64>);

    impl Service<Request<Body>> for Counting {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            let result =
                json!({"request": "r", "driver": "gpu.nvidia.com", "pool": "here", "device": format!("gpu-{number}")});
            let allocation = json!({"devices": {"results": [result]}});
            let claim = json!({"metadata": {"uid": "u-1"}, "status": {"allocation": allocation}});
            ready(Ok(Response::new(Body::from(claim.to_string().into_bytes()))))
        }
    }

    fn source(client: Client) -> (ClaimSource, ClaimRef) {
        let (driver, node) = ("gpu.nvidia.com".parse().unwrap(), "here".parse().unwrap());
        let source = ClaimSource::new(ClaimApi::new(client), driver, node, CancellationToken::new());
        (source, ClaimRef { namespace: "ns".to_owned(), name: "c".to_owned(), uid: "u-1".parse().unwrap() })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_answer_to_an_early_request_is_used_until_it_is_too_old() {
        let server = Counting::default();
        let (source, claim) = source(Client::new(server.clone(), "default"));
        let too_old = Instant::now().checked_sub(EARLY_ANSWER_AGE).unwrap();
        for (sent, expected) in [(Instant::now(), "gpu-0"), (too_old, "gpu-2")] {
            let (source, claim) = (source.clone(), claim.clone());
            let read = move || {
                let mut early = source.request_early(&claim, &Deadline::none());
                early.sent = sent;
                while !early.answer.is_finished() {
                    std::thread::yield_now();
                }
                source.read(&claim, Some(early), &Abandoned::default(), &Deadline::none())
            };
            let read = spawn_blocking(read).await.unwrap().unwrap();
            assert_eq!(read.devices.first().unwrap().device.as_str(), expected);
        }
        assert_eq!(server.0.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn an_early_request_that_is_dropped_is_given_up() {
        let (source, claim) = source(Client::new(Hanging, "default"));
        let early = source.request_early(&claim, &Deadline::none());
        let request = early.answer.abort_handle();
        tokio::task::yield_now().await;
        assert!(!request.is_finished());
        drop(early);
        tokio::task::yield_now().await;
        assert!(request.is_finished());
    }

    #[test]
    fn a_claim_is_allocated_here_while_it_has_a_device_of_this_node() {
        let result = |driver: &str, pool: &str| json!({"request": "r", "driver": driver, "pool": pool, "device": "d"});
        let allocated = |results: &[Value]| json!({"allocation": {"devices": {"results": results}}});
        let (ours, theirs) = (result("gpu.nvidia.com", "here"), result("net.example.com", "here"));
        for (uid, status, expect) in [
            ("u-1", allocated(&[theirs.clone(), ours.clone()]), ClaimLookup::Allocated),
            ("u-1", allocated(&[result("gpu.nvidia.com", "there")]), ClaimLookup::Released),
            ("u-1", allocated(&[theirs]), ClaimLookup::Released),
            ("u-1", json!({"allocation": {}}), ClaimLookup::Released),
            ("u-1", json!({}), ClaimLookup::Released),
            ("u-1", Value::Null, ClaimLookup::Released),
            ("u-2", allocated(&[ours]), ClaimLookup::Gone),
        ] {
            let object = json!({"metadata": {"uid": uid}, "status": status}).to_string();
            let claim = ClaimRef { namespace: "ns".to_owned(), name: "c".to_owned(), uid: "u-1".parse().unwrap() };
            let read = claim_of(object.as_bytes(), &claim, &"gpu.nvidia.com".parse().unwrap());
            let found = lookup_of(read, &"here".parse().unwrap());
            assert_eq!(found, expect, "{uid} {status}");
        }
    }
}
