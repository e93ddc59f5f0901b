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
use dra_resource::status::{apply_patch, merge_patch};
use dra_resource::{DeviceStatus, DriverName};
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

/// What the API server answers of a claim that is not there.
const NOT_FOUND: u16 = 404;

/// To an apply: the name is of a claim with another UID.
const CONFLICT: u16 = 409;

/// To an apply: the result is not valid.
const UNPROCESSABLE: u16 = 422;

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
    /// Not a claim.
    #[error("the answer is no ResourceClaim")]
    Unreadable(#[source] serde_json::Error),
    /// The process ends.
    #[error("this process is ending")]
    Ending(#[source] AcquireError),
}

/// What became of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusWrite {
    /// The API server has it.
    Written,
    /// The claim is gone, was made anew, or has these devices no more.
    MovedOn,
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
            Err(ClaimApiError::Request(error)) if code(&error) == Some(UNPROCESSABLE) => {
                self.merge_status(claim, driver, devices).await
            }
            Err(ClaimApiError::Request(error)) if code(&error) == Some(CONFLICT) => Ok(StatusWrite::MovedOn),
            written => written,
        }
    }

    /// See [`merge_patch`]. A conflict means that somebody else wrote meanwhile.
    async fn merge_status(
        &self,
        claim: &ClaimRef,
        driver: &DriverName,
        devices: &[DeviceStatus<'_>],
    ) -> Result<StatusWrite, ClaimApiError> {
        let Some(answer) = self.get(claim).await? else { return Ok(StatusWrite::MovedOn) };
        let patch = merge_patch(&answer.json, claim, driver, devices).map_err(ClaimApiError::Unreadable)?;
        let Some(patch) = patch else { return Ok(StatusWrite::MovedOn) };
        let params = PatchParams { field_manager: Some(driver.to_string()), ..PatchParams::default() };
        self.patch_status(claim, &params, &Patch::Merge(patch)).await
    }

    /// The metadata is asked for in answer, instead of the claim, and not kept either.
    async fn patch_status<P: Serialize + Debug>(
        &self,
        claim: &ClaimRef,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> Result<StatusWrite, ClaimApiError> {
        let request = path(claim).patch_metadata(&format!("{}/status", claim.name), params, patch);
        match self.client.request_stream(request.map_err(ClaimApiError::Make)?).await {
            // To its end, so that the connection can be used again. It is written already, whatever becomes of the answer.
            Ok(answer) => _ = copy(pin!(answer.take(MAX_BYTES)), &mut sink()).await,
            Err(error) if code(&error) == Some(NOT_FOUND) => return Ok(StatusWrite::MovedOn),
            Err(error) => return Err(ClaimApiError::Request(Box::new(error))),
        }
        Ok(StatusWrite::Written)
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
            Err(error) if code(&error) == Some(NOT_FOUND) => Ok(None),
            Err(error) => Err(ClaimApiError::Request(Box::new(error))),
        }
    }
}

/// What the API server refused with.
fn code(error: &kube::Error) -> Option<u16> {
    if let kube::Error::Api(refusal) = error { Some(refusal.code) } else { None }
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
