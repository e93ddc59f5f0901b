// SPDX-License-Identifier: Apache-2.0
//! The requests about claims: one is read by name, and the status of one is written.
//!
//! A claim may be large, and any user may make many. So no answer is taken without a limit: of a claim at most
//! [`MAX_BYTES`] are read, [`LARGE_AT_ONCE`] large ones at a time, so that they fill no memory and ordinary ones wait for
//! none of them. What a write answers is let go.

use std::fmt::{self, Debug};
use std::io;
use std::pin::pin;
use std::sync::Arc;

use dra_model::ClaimRef;
use futures::io::{copy, sink};
use futures::{AsyncRead, AsyncReadExt as _};
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::api::{GetParams, Patch, PatchParams};
use kube::core::request::{Error as RequestError, Request};
use kube::{Client, Resource as _};
use serde::Serialize;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// What claims have that are no attack: a few configurations of less than a KiB each.
const ORDINARY_BYTES: u64 = 64 << 10;

/// More than an API server stores: etcd takes requests up to 1.5 MiB (`--max-request-bytes`), and the validation of the API
/// allows 32 configurations in the spec, 64 in the allocation (those of classes too) and 32 device statuses with data, of
/// 10 KiB each (`DeviceConfigMaxSize`, `OpaqueParametersMaxLength`, `AllocatedDeviceStatusDataMaxLength`).
const MAX_BYTES: u64 = 2 << 20;

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
    /// No answer, or a refusal.
    #[error("the request failed")]
    Request(#[source] Box<kube::Error>),
    /// The connection broke.
    #[error("the answer broke off")]
    Read(#[source] io::Error),
    /// More than any claim has that an API server stores.
    #[error("it has more than {} KiB as JSON: shorten its configuration", MAX_BYTES >> 10)]
    TooLarge,
    /// The process ends.
    #[error("this process is ending")]
    Ending(#[source] AcquireError),
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

    /// A claim, if it exists. One that turns out to be large is let go and asked for again when it has its turn.
    pub async fn get(&self, claim: &ClaimRef) -> Result<Option<Answer>, ClaimApiError> {
        match self.get_within(claim, ORDINARY_BYTES, &self.ordinary).await {
            Err(ClaimApiError::TooLarge) => self.get_within(claim, MAX_BYTES, &self.large).await,
            answer => answer,
        }
    }

    async fn get_within(
        &self,
        claim: &ClaimRef,
        limit: u64,
        turns: &Arc<Semaphore>,
    ) -> Result<Option<Answer>, ClaimApiError> {
        let permit = Arc::clone(turns).acquire_owned().await.map_err(ClaimApiError::Ending)?;
        let request = path(claim).get(&claim.name, &GetParams::default()).map_err(ClaimApiError::Make)?;
        match self.client.request_stream(request).await {
            Ok(answer) => Ok(Some(Answer { json: within(limit, answer).await?, _permit: permit })),
            Err(kube::Error::Api(refusal)) if refusal.code == 404 => Ok(None),
            Err(error) => Err(ClaimApiError::Request(Box::new(error))),
        }
    }
}

/// Applies the status of a claim. Its metadata is asked for instead of the claim, and not kept either.
pub async fn apply_status<P: Serialize + Debug>(
    client: &Client,
    claim: &ClaimRef,
    params: &PatchParams,
    patch: &Patch<P>,
) -> kube::Result<()> {
    let request = path(claim).patch_metadata(&format!("{}/status", claim.name), params, patch);
    let answer = client.request_stream(request.map_err(kube::Error::BuildRequest)?).await?;
    // To its end, so that the connection can be used again. It is written already, whatever becomes of the answer.
    copy(pin!(answer.take(MAX_BYTES)), &mut sink()).await.ok();
    Ok(())
}

fn path(claim: &ClaimRef) -> Request {
    Request::new(ResourceClaim::url_path(&(), Some(&claim.namespace)))
}

async fn within(limit: u64, answer: impl AsyncRead) -> Result<Vec<u8>, ClaimApiError> {
    let mut json = Vec::new();
    let mut answer = pin!(answer.take(limit + 1));
    let length = answer.read_to_end(&mut json).await.map_err(ClaimApiError::Read)?;
    if u64::try_from(length).is_ok_and(|length| length <= limit) { Ok(json) } else { Err(ClaimApiError::TooLarge) }
}
