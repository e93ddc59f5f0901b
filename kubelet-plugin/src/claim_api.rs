// SPDX-License-Identifier: Apache-2.0
//! The requests about claims: the GET of one claim and the PATCH of its status.
//!
//! A claim may be large, and any user may create many. So each answer has a size limit, also a refusal: at most [`MAX_BYTES`] of
//! a claim are read. At most [`MAX_LARGE_READS`] large claims are read at a time, so that they do not fill the memory and
//! ordinary claims do not wait for them. The answer of a write is discarded.

use std::borrow::Cow;
use std::fmt::{self, Debug};
use std::io;
use std::sync::Arc;

use dra_model::{Advice, ClaimRef};
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

use crate::monitoring::consumers::ClaimConsumers;

/// The size of ordinary claims, which have a few configurations of less than a KiB each.
const MAX_ORDINARY_BYTES: usize = 64 << 10;

/// The largest claim: etcd accepts requests of up to 1.5 MiB (`--max-request-bytes`), and JSON as Go writes it has six
/// bytes for each `<`, `>` and `&`. The validation of the API allows 32 configurations in the spec, 64 in the allocation (those
/// of classes too) and 32 device statuses with data, of 10 KiB each (`DeviceConfigMaxSize`, `OpaqueParametersMaxLength`,
/// `AllocatedDeviceStatusDataMaxLength`), beside 256 KiB of annotations.
const MAX_BYTES: usize = 10 << 20;

/// A refusal may contain the claim, so only its beginning is read.
const MAX_REFUSAL_BYTES: usize = 64 << 10;

/// Characters of the message of a refusal in an error.
const MAX_MESSAGE_LENGTH: usize = 300;

const MAX_ORDINARY_READS: usize = 64;

const MAX_LARGE_READS: usize = 2;

#[derive(Debug, thiserror::Error)]
pub enum ClaimApiError {
    #[error("failed to build the request")]
    Build(#[source] RequestError),
    /// No connection, or an answer that is not HTTP.
    #[error("failed to send the request")]
    Send(#[source] Box<kube::Error>),
    /// The refusal of the API server, or of a webhook or policy of the cluster.
    #[error("the API server refuses ({code}): {message}")]
    Refused {
        code: StatusCode,
        /// The first characters of the message of its `Status`.
        message: String,
    },
    #[error("failed to read the answer")]
    Read(#[source] io::Error),
    /// No API server stores a claim of this size.
    #[error("the claim has more than {} KiB as JSON", MAX_BYTES >> 10)]
    TooLarge,
    #[error("the answer is not a ResourceClaim")]
    Unreadable(#[source] serde_json::Error),
    #[error("this process stops")]
    Stopping(#[source] AcquireError),
}

impl Advice for ClaimApiError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::TooLarge => Some("shorten the annotations and the configurations of the claim".into()),
            Self::Build(_)
            | Self::Send(_)
            | Self::Refused { .. }
            | Self::Read(_)
            | Self::Unreadable(_)
            | Self::Stopping(_) => None,
        }
    }
}

/// The result of writing a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusWrite {
    Written,
    /// The claim was deleted or replaced, or no longer has these devices.
    Outdated,
    /// The API server accepts no status for this claim, with the message of the refusal.
    Refused(String),
}

/// The JSON of a claim, and its part of the memory for answers.
#[derive(Debug)]
pub struct Answer {
    /// `ResourceClaim` as JSON.
    pub json: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct ClaimApi {
    client: Client,
    ordinary: Arc<Semaphore>,
    large: Arc<Semaphore>,
    consumers: ClaimConsumers,
}

impl Debug for ClaimApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimApi").finish_non_exhaustive()
    }
}

impl ClaimApi {
    pub fn new(client: Client) -> Self {
        let [ordinary, large] = [MAX_ORDINARY_READS, MAX_LARGE_READS].map(|permits| Arc::new(Semaphore::new(permits)));
        Self { client, ordinary, large, consumers: ClaimConsumers::default() }
    }

    /// The pods of the claims that were read.
    pub fn consumers(&self) -> &ClaimConsumers {
        &self.consumers
    }

    /// The client, for other requests.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A claim, if it exists. The answer with a large claim is discarded, and the claim is read again under the limit for large
    /// claims.
    pub async fn get(&self, claim: &ClaimRef) -> Result<Option<Answer>, ClaimApiError> {
        let answer = match self.get_within(claim, MAX_ORDINARY_BYTES, &self.ordinary).await {
            Err(ClaimApiError::TooLarge) => self.get_within(claim, MAX_BYTES, &self.large).await?,
            answer => answer?,
        };
        if let Some(answer) = &answer {
            self.consumers.record(claim, &answer.json);
        }
        Ok(answer)
    }

    /// Writes the entries of this driver in `status.devices`, and no others.
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
            // Another claim has the name.
            Err(ClaimApiError::Refused { code: StatusCode::CONFLICT, .. }) => Ok(StatusWrite::Outdated),
            written => written,
        }
    }

    /// Writes by [`json_patch`]. A conflict means that another client wrote the claim since it was read.
    async fn patch_entries(
        &self,
        claim: &ClaimRef,
        driver: &DriverName,
        devices: &[DeviceStatus<'_>],
    ) -> Result<StatusWrite, ClaimApiError> {
        let Some(answer) = self.get(claim).await? else { return Ok(StatusWrite::Outdated) };
        let operations = json_patch(&answer.json, claim, driver, devices).map_err(ClaimApiError::Unreadable)?;
        let Some(operations) = operations else { return Ok(StatusWrite::Outdated) };
        let patch = Patch::<()>::Json(serde_json::from_value(operations).map_err(ClaimApiError::Unreadable)?);
        let params = PatchParams { field_manager: Some(driver.to_string()), ..PatchParams::default() };
        match self.patch_status(claim, &params, &patch).await {
            Err(ClaimApiError::Refused { code: StatusCode::UNPROCESSABLE_ENTITY, message }) => {
                Ok(StatusWrite::Refused(message))
            }
            written => written,
        }
    }

    /// Requests only the metadata as the answer, and discards it.
    async fn patch_status<P: Serialize + Debug>(
        &self,
        claim: &ClaimRef,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> Result<StatusWrite, ClaimApiError> {
        let request = path(claim).patch_metadata(&format!("{}/status", claim.name), params, patch);
        match self.send(request).await {
            Ok(answer) => {
                // The answer is read to its end, so that the connection can be used again. The status is written already.
                drop(within(MAX_ORDINARY_BYTES, answer).await);
                Ok(StatusWrite::Written)
            }
            Err(ClaimApiError::Refused { code: StatusCode::NOT_FOUND, .. }) => Ok(StatusWrite::Outdated),
            Err(error) => Err(error),
        }
    }

    async fn get_within(
        &self,
        claim: &ClaimRef,
        limit: usize,
        reads: &Arc<Semaphore>,
    ) -> Result<Option<Answer>, ClaimApiError> {
        let permit = Arc::clone(reads).acquire_owned().await.map_err(ClaimApiError::Stopping)?;
        match self.send(path(claim).get(&claim.name, &GetParams::default())).await {
            Ok(answer) => Ok(Some(Answer { json: within(limit, answer).await?, _permit: permit })),
            Err(ClaimApiError::Refused { code: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn send(&self, request: Result<http::Request<Vec<u8>>, RequestError>) -> Result<Body, ClaimApiError> {
        let request = request.map_err(ClaimApiError::Build)?.map(Body::from);
        let answer = self.client.send(request).await.map_err(|error| ClaimApiError::Send(Box::new(error)))?;
        let (code, body) = (answer.status(), answer.into_body());
        if code.is_success() {
            return Ok(body);
        }
        let status = within(MAX_REFUSAL_BYTES, body).await.unwrap_or_default();
        Err(ClaimApiError::Refused { code, message: message_of(&status) })
    }
}

fn path(claim: &ClaimRef) -> Request {
    Request::new(ResourceClaim::url_path(&(), Some(&claim.namespace)))
}

/// The message of a `Status`.
fn message_of(status: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    struct Status<'a> {
        #[serde(borrow, default)]
        message: Cow<'a, str>,
    }
    let Status { message } = serde_json::from_slice(status).unwrap_or_default();
    if message.is_empty() { "without a message".to_owned() } else { message.chars().take(MAX_MESSAGE_LENGTH).collect() }
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

    /// An API server that delays large claims at the second request, which is the one that reads them.
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
                let size = if is_large { MAX_ORDINARY_BYTES + 1 } else { MAX_ORDINARY_BYTES };
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
    async fn large_claims_do_not_delay_ordinary_ones() {
        let (server, claims) = server();
        let read = |name: String| {
            let claims = claims.clone();
            tokio::spawn(async move { claims.get(&claim(&name)).await.unwrap().unwrap().json.len() })
        };
        let large: Vec<_> = (0..5).map(|at| read(format!("large-{at}"))).collect();
        // The paused clock advances when all tasks wait.
        sleep(Duration::from_secs(1)).await;
        assert_eq!(*server.held.lock(), MAX_LARGE_READS);
        assert_eq!(read("ordinary".to_owned()).await.unwrap(), MAX_ORDINARY_BYTES);
        server.gate.add_permits(1);
        for read in large {
            assert_eq!(read.await.unwrap(), MAX_ORDINARY_BYTES + 1);
        }
    }

    #[tokio::test]
    async fn the_error_of_a_refusal_has_its_code_and_the_beginning_of_its_message() {
        let (_server, claims) = server();
        let refused = claims.get(&claim("denied")).await.unwrap_err().to_string();
        assert_eq!(refused, format!("the API server refuses (403 Forbidden): {}", "no".repeat(150)));
    }
}
