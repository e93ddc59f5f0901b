// SPDX-License-Identifier: Apache-2.0
//! The requests about claims: one is read by name, and the status of one is written.
//!
//! A claim may be large, and any user may make many. So no answer is taken without a limit, refusals included: of a claim at
//! most [`MAX_BYTES`] are read, [`LARGE_AT_ONCE`] large ones at a time, so that they fill no memory and ordinary ones wait for
//! none of them. What a write answers is let go.

use std::borrow::Cow;
use std::fmt::{self, Debug};
use std::io;
use std::sync::Arc;

use dra_model::ClaimRef;
use dra_resource::status::{apply_patch, json_patch};
use dra_resource::{DeviceStatus, DriverName};
use http::StatusCode;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::api::{GetParams, Patch, PatchParams};
use kube::client::Body;
use kube::core::request::{Error as RequestError, Request};
use kube::{Client, Resource as _};
use serde::{Deserialize, Serialize};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// What claims have that are no attack: a few configurations of less than a KiB each.
const ORDINARY_BYTES: usize = 64 << 10;

/// As large as a claim can be: etcd takes requests of up to 1.5 MiB (`--max-request-bytes`), and JSON as Go writes it has six
/// bytes for each `<`, `>` and `&`. The validation of the API allows 32 configurations in the spec, 64 in the allocation (those
/// of classes too) and 32 device statuses with data, of 10 KiB each (`DeviceConfigMaxSize`, `OpaqueParametersMaxLength`,
/// `AllocatedDeviceStatusDataMaxLength`), beside 256 KiB of annotations.
const MAX_BYTES: usize = 10 << 20;

/// What is read of a refusal: it may repeat the claim.
const REFUSAL_BYTES: usize = 64 << 10;

/// Characters of its message that are told.
const MESSAGE_LENGTH: usize = 300;

/// How many ordinary claims are read at once.
const ORDINARY_AT_ONCE: usize = 64;

/// How many large claims are read at once.
const LARGE_AT_ONCE: usize = 2;

/// Why a request has no answer to work with.
#[derive(Debug, thiserror::Error)]
pub enum ClaimApiError {
    /// It cannot even be sent.
    #[error("the request cannot be made")]
    Make(#[source] RequestError),
    /// No connection, or an answer that is no HTTP.
    #[error("the request failed")]
    Request(#[source] Box<kube::Error>),
    /// The API server, or a webhook or policy of the cluster, does not do it.
    #[error("the API server refuses ({code}): {message}")]
    Refused {
        /// HTTP status, such as 403 where a policy refuses.
        code: StatusCode,
        /// The first characters of the message of its `Status`.
        message: String,
    },
    /// The connection broke.
    #[error("the answer broke off")]
    Read(#[source] io::Error),
    /// More than any claim has that an API server stores.
    #[error("it has more than {} KiB as JSON: shorten its annotations and its configuration", MAX_BYTES >> 10)]
    TooLarge,
    /// The answer is not the JSON of a ResourceClaim.
    #[error("the answer is no ResourceClaim")]
    Unreadable(#[source] serde_json::Error),
    /// The process ends.
    #[error("this process is ending")]
    Ending(#[source] AcquireError),
}

/// What became of a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusWrite {
    /// The API server has it.
    Written,
    /// The claim is gone, was made anew, or has these devices no more.
    MovedOn,
    /// The API server takes none for this claim, and says why.
    Refused(String),
}

/// A claim as it was answered, and its share of the memory there is for such answers.
#[derive(Debug)]
pub struct Answer {
    /// `ResourceClaim` as JSON.
    pub json: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

/// See the module; cheap to clone.
#[derive(Clone)]
pub struct ClaimApi {
    client: Client,
    ordinary: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Debug for ClaimApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimApi").finish_non_exhaustive()
    }
}

impl ClaimApi {
    /// With the limits of this process.
    pub fn new(client: Client) -> Self {
        let [ordinary, large] = [ORDINARY_AT_ONCE, LARGE_AT_ONCE].map(|permits| Arc::new(Semaphore::new(permits)));
        Self { client, ordinary, large }
    }

    /// For requests about anything else.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A claim, if it exists. One that turns out to be large is let go and asked for again when it has its turn.
    pub async fn get(&self, claim: &ClaimRef) -> Result<Option<Answer>, ClaimApiError> {
        match self.get_within(claim, ORDINARY_BYTES, &self.ordinary).await {
            Err(ClaimApiError::TooLarge) => self.get_within(claim, MAX_BYTES, &self.large).await,
            answer => answer,
        }
    }

    /// Writes this driver's entries of `status.devices`, and nobody else's.
    pub async fn write_status(
        &self,
        claim: &ClaimRef,
        driver: &DriverName,
        devices: &[DeviceStatus<'_>],
    ) -> Result<StatusWrite, ClaimApiError> {
        let params = PatchParams::apply(driver.as_str()).force();
        match self.patch_status(claim, &params, &Patch::Apply(apply_patch(claim, driver, devices))).await {
            Err(ClaimApiError::Refused { code: StatusCode::UNPROCESSABLE_ENTITY, .. }) => {
                self.patch_entries(claim, driver, devices).await
            }
            // The name is of a claim with another UID.
            Err(ClaimApiError::Refused { code: StatusCode::CONFLICT, .. }) => Ok(StatusWrite::MovedOn),
            written => written,
        }
    }

    /// See [`json_patch`]. A conflict means that somebody else wrote meanwhile.
    async fn patch_entries(
        &self,
        claim: &ClaimRef,
        driver: &DriverName,
        devices: &[DeviceStatus<'_>],
    ) -> Result<StatusWrite, ClaimApiError> {
        let Some(answer) = self.get(claim).await? else { return Ok(StatusWrite::MovedOn) };
        let operations = json_patch(&answer.json, claim, driver, devices).map_err(ClaimApiError::Unreadable)?;
        let Some(operations) = operations else { return Ok(StatusWrite::MovedOn) };
        let patch = Patch::<()>::Json(serde_json::from_value(operations).map_err(ClaimApiError::Unreadable)?);
        let params = PatchParams { field_manager: Some(driver.to_string()), ..PatchParams::default() };
        match self.patch_status(claim, &params, &patch).await {
            Err(ClaimApiError::Refused { code: StatusCode::UNPROCESSABLE_ENTITY, message }) => {
                Ok(StatusWrite::Refused(message))
            }
            written => written,
        }
    }

    /// The metadata is asked for in answer, instead of the claim, and not kept either.
    async fn patch_status<P: Serialize + Debug>(
        &self,
        claim: &ClaimRef,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> Result<StatusWrite, ClaimApiError> {
        let request = path(claim).patch_metadata(&format!("{}/status", claim.name), params, patch);
        match self.send(request).await {
            Ok(answer) => {
                // To its end, so that the connection can be used again. It is written already, whatever becomes of the answer.
                drop(within(ORDINARY_BYTES, answer).await);
                Ok(StatusWrite::Written)
            }
            Err(ClaimApiError::Refused { code: StatusCode::NOT_FOUND, .. }) => Ok(StatusWrite::MovedOn),
            Err(error) => Err(error),
        }
    }

    async fn get_within(
        &self,
        claim: &ClaimRef,
        limit: usize,
        turns: &Arc<Semaphore>,
    ) -> Result<Option<Answer>, ClaimApiError> {
        let permit = Arc::clone(turns).acquire_owned().await.map_err(ClaimApiError::Ending)?;
        match self.send(path(claim).get(&claim.name, &GetParams::default())).await {
            Ok(answer) => Ok(Some(Answer { json: within(limit, answer).await?, _permit: permit })),
            Err(ClaimApiError::Refused { code: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn send(&self, request: Result<http::Request<Vec<u8>>, RequestError>) -> Result<Body, ClaimApiError> {
        let request = request.map_err(ClaimApiError::Make)?.map(Body::from);
        let answer = self.client.send(request).await.map_err(|error| ClaimApiError::Request(Box::new(error)))?;
        let (code, body) = (answer.status(), answer.into_body());
        if code.is_success() {
            return Ok(body);
        }
        let status = within(REFUSAL_BYTES, body).await.unwrap_or_default();
        Err(ClaimApiError::Refused { code, message: message_of(&status) })
    }
}

fn path(claim: &ClaimRef) -> Request {
    Request::new(ResourceClaim::url_path(&(), Some(&claim.namespace)))
}

/// The message of a `Status`, or what there is instead.
fn message_of(status: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    struct Status<'a> {
        #[serde(borrow, default)]
        message: Cow<'a, str>,
    }
    let Status { message } = serde_json::from_slice(status).unwrap_or_default();
    if message.is_empty() { "without a message".to_owned() } else { message.chars().take(MESSAGE_LENGTH).collect() }
}

async fn within(limit: usize, body: Body) -> Result<Vec<u8>, ClaimApiError> {
    match Limited::new(body, limit).collect().await {
        Ok(all) => Ok(all.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(ClaimApiError::TooLarge),
        Err(error) => Err(ClaimApiError::Read(io::Error::other(error))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::convert::Infallible;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use futures::FutureExt as _;
    use futures::future::BoxFuture;
    use http::Response;
    use parking_lot::Mutex;
    use tokio::time::sleep;
    use tonic::codegen::Service;

    use super::*;

    /// An API server that holds back large claims that are asked for a second time, which is when they are read.
    #[derive(Clone)]
    struct Server {
        asked: Arc<Mutex<BTreeSet<String>>>,
        held: Arc<Mutex<usize>>,
        gate: Arc<Semaphore>,
    }

    impl Service<http::Request<Body>> for Server {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            let (path, server) = (request.uri().path().to_owned(), self.clone());
            async move {
                if path.ends_with("denied") {
                    let status = format!(r#"{{"message": "{}"}}"#, "no".repeat(1000));
                    return Ok(Response::builder().status(403).body(Body::from(status.into_bytes())).unwrap());
                }
                let is_large = path.contains("large");
                if is_large && !server.asked.lock().insert(path) {
                    *server.held.lock() += 1;
                    drop(server.gate.acquire().await.unwrap());
                }
                let size = if is_large { ORDINARY_BYTES + 1 } else { ORDINARY_BYTES };
                Ok(Response::new(Body::from(vec![b' '; size])))
            }
            .boxed()
        }
    }

    fn server() -> (Server, ClaimApi) {
        let server = Server { asked: Arc::default(), held: Arc::default(), gate: Arc::new(Semaphore::new(0)) };
        let claims = ClaimApi::new(Client::new(server.clone(), "default"));
        (server, claims)
    }

    fn claim(name: &str) -> ClaimRef {
        ClaimRef { namespace: "ns".to_owned(), name: name.to_owned(), uid: "u".parse().unwrap() }
    }

    #[tokio::test(start_paused = true)]
    async fn large_claims_wait_for_each_other_and_ordinary_ones_for_none() {
        let (server, claims) = server();
        let read = |name: String| {
            let claims = claims.clone();
            tokio::spawn(async move { claims.get(&claim(&name)).await.unwrap().unwrap().json.len() })
        };
        let large: Vec<_> = (0..5).map(|at| read(format!("large-{at}"))).collect();
        // Time goes on when nothing else does.
        sleep(Duration::from_secs(1)).await;
        assert_eq!(*server.held.lock(), LARGE_AT_ONCE);
        assert_eq!(read("ordinary".to_owned()).await.unwrap(), ORDINARY_BYTES);
        server.gate.add_permits(1);
        for read in large {
            assert_eq!(read.await.unwrap(), ORDINARY_BYTES + 1);
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_with_its_code_and_the_begin_of_its_message() {
        let (_server, claims) = server();
        let refused = claims.get(&claim("denied")).await.unwrap_err().to_string();
        assert_eq!(refused, format!("the API server refuses (403 Forbidden): {}", "no".repeat(150)));
    }
}
