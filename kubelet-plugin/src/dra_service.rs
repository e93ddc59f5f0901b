// SPDX-License-Identifier: Apache-2.0
//! The DRA services of the kubelet: `v1`, and `v1beta1`, which has no share ids.
//!
//! Each claim of a call has a task of its own, so that a slow claim does not delay the others. If the kubelet cancels a call,
//! started work completes and other work does not start.
//!
//! The kubelet cancels a call after 45 s, and then its Event contains only that. So each call has a deadline from its arrival, and
//! each wait for it ends with an error that names what it waited for. Work that ignores the deadline, for example on a disk that
//! hangs, is answered here and continues; the next call of the kubelet gets its result.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use dra_hardware::Deadline;
use dra_model::ClaimRef;
use dra_prepare::PreparedDevice;
use dra_proto::dra_v1 as v1;
use dra_proto::dra_v1beta1 as v1beta1;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use crate::claims::Claims;
use crate::fetch::Abandoned;
use crate::prepared_claim::PreparedClaim;

/// For all waits of the work on a claim.
const WORK_TIMEOUT: Duration = Duration::from_secs(38);

/// After this time the kubelet gets an answer while the work continues.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

#[derive(Debug, Clone)]
pub struct DraService {
    claims: Claims,
}

impl DraService {
    pub fn new(claims: Claims) -> Self {
        Self { claims }
    }

    async fn prepare(&self, asked: Vec<v1::Claim>) -> v1::NodePrepareResourcesResponse {
        let call = CallGuard::default();
        let order: Vec<String> = asked.iter().map(|claim| claim.uid.clone()).collect();
        let mut claims = each(asked, |claim, deadline| {
            let (claims, abandoned) = (self.claims.clone(), call.0.clone());
            async move { claims.prepare(claim, abandoned, deadline).await }
        })
        .await;
        let responses = claims.iter().map(|(uid, result)| (uid.clone(), prepare_response(result))).collect();
        let prepared: Vec<PreparedClaim> = order.iter().filter_map(|uid| claims.remove(uid)?.ok()).collect();
        self.claims.report_pod(&prepared);
        v1::NodePrepareResourcesResponse { claims: responses }
    }

    async fn unprepare(&self, asked: Vec<v1::Claim>) -> v1::NodeUnprepareResourcesResponse {
        let claims = each(asked, |claim, deadline| {
            let claims = self.claims.clone();
            async move { claims.unprepare(claim, deadline).await }
        })
        .await;
        let response =
            |result: Result<(), String>| v1::NodeUnprepareResourceResponse { error: result.err().unwrap_or_default() };
        let claims = claims.into_iter().map(|(uid, result)| (uid, response(result))).collect();
        v1::NodeUnprepareResourcesResponse { claims }
    }
}

/// Marks a call as cancelled when its caller is gone.
#[derive(Debug, Default)]
struct CallGuard(Abandoned);

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// The results of all claims by UID, worked on in parallel, before [`ANSWER_TIMEOUT`].
async fn each<T, F>(
    asked: Vec<v1::Claim>,
    work: impl Fn(ClaimRef, Deadline) -> F,
) -> BTreeMap<String, Result<T, String>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, String>> + Send + 'static,
{
    let answer_by = Instant::now() + ANSWER_TIMEOUT;
    let start = |claim: v1::Claim| {
        let start = |claim: ClaimRef| {
            let deadline = Deadline::after(WORK_TIMEOUT);
            (claim.clone(), deadline.clone(), tokio::spawn(work(claim, deadline)))
        };
        (claim.uid.clone(), reference(claim).map(start))
    };
    let started: Vec<_> = asked.into_iter().map(start).collect();
    let mut answers = BTreeMap::new();
    for (uid, task) in started {
        let answer = match task {
            Err(refused) => Err(refused),
            Ok((claim, deadline, task)) => {
                timeout_at(answer_by, finished(task)).await.unwrap_or_else(|_elapsed| Err(continues(&claim, &deadline)))
            }
        };
        answers.insert(uid, answer);
    }
    answers
}

fn continues(claim: &ClaimRef, deadline: &Deadline) -> String {
    let seconds = ANSWER_TIMEOUT.as_secs();
    match deadline.goes_on() {
        Some(what) => format!(
            "claim {claim}: still waiting for {what} after {seconds} s; the work continues, and the next call gets its result; \
             with persistence mode on this node it takes milliseconds"
        ),
        None => {
            format!(
                "claim {claim}: work is not finished after {seconds} s; the work continues, and the next call gets its result"
            )
        }
    }
}

async fn finished<T>(task: JoinHandle<Result<T, String>>) -> Result<T, String> {
    match task.await {
        Ok(answer) => answer,
        Err(panic) => Err(format!(
            "a bug in the driver stopped the work on this claim; report it with the log of this time: {panic}"
        )),
    }
}

fn reference(claim: v1::Claim) -> Result<ClaimRef, String> {
    let uid = claim.uid.parse().map_err(|error| format!("claim {}/{}: {error}", claim.namespace, claim.name))?;
    Ok(ClaimRef { namespace: claim.namespace, name: claim.name, uid })
}

fn prepare_response(result: &Result<PreparedClaim, String>) -> v1::NodePrepareResourceResponse {
    match result {
        Ok(prepared) => {
            let devices = prepared.devices.iter().map(answer).collect();
            v1::NodePrepareResourceResponse { devices, error: String::new() }
        }
        Err(error) => v1::NodePrepareResourceResponse { devices: Vec::new(), error: error.clone() },
    }
}

fn answer(device: &PreparedDevice) -> v1::Device {
    v1::Device {
        request_names: vec![device.request.clone()],
        pool_name: device.pool.clone(),
        device_name: device.device.to_string(),
        cdi_device_ids: device.cdi_ids.clone(),
        share_id: device.share_id.as_ref().map(ToString::to_string),
    }
}

#[tonic::async_trait]
impl v1::dra_plugin_server::DraPlugin for DraService {
    async fn node_prepare_resources(
        &self,
        request: Request<v1::NodePrepareResourcesRequest>,
    ) -> Result<Response<v1::NodePrepareResourcesResponse>, Status> {
        Ok(Response::new(self.prepare(request.into_inner().claims).await))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<v1::NodeUnprepareResourcesRequest>,
    ) -> Result<Response<v1::NodeUnprepareResourcesResponse>, Status> {
        Ok(Response::new(self.unprepare(request.into_inner().claims).await))
    }
}

#[tonic::async_trait]
impl v1beta1::dra_plugin_server::DraPlugin for DraService {
    async fn node_prepare_resources(
        &self,
        request: Request<v1beta1::NodePrepareResourcesRequest>,
    ) -> Result<Response<v1beta1::NodePrepareResourcesResponse>, Status> {
        let asked = request.into_inner().claims.into_iter().map(from_v1beta1).collect();
        let claims = self.prepare(asked).await.claims.into_iter();
        let claims = claims.map(|(uid, response)| (uid, to_v1beta1(response))).collect();
        Ok(Response::new(v1beta1::NodePrepareResourcesResponse { claims }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<v1beta1::NodeUnprepareResourcesRequest>,
    ) -> Result<Response<v1beta1::NodeUnprepareResourcesResponse>, Status> {
        let asked = request.into_inner().claims.into_iter().map(from_v1beta1).collect();
        let claims = self.unprepare(asked).await.claims.into_iter();
        let response = |error| v1beta1::NodeUnprepareResourceResponse { error };
        let claims = claims.map(|(uid, answer)| (uid, response(answer.error))).collect();
        Ok(Response::new(v1beta1::NodeUnprepareResourcesResponse { claims }))
    }
}

fn from_v1beta1(claim: v1beta1::Claim) -> v1::Claim {
    let v1beta1::Claim { namespace, uid, name } = claim;
    v1::Claim { namespace, uid, name }
}

fn to_v1beta1(response: v1::NodePrepareResourceResponse) -> v1beta1::NodePrepareResourceResponse {
    let v1::NodePrepareResourceResponse { devices, error } = response;
    let device = |device: v1::Device| {
        let v1::Device { request_names, pool_name, device_name, cdi_device_ids, share_id: _ } = device;
        v1beta1::Device { request_names, pool_name, device_name, cdi_device_ids }
    };
    v1beta1::NodePrepareResourceResponse { devices: devices.into_iter().map(device).collect(), error }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_claim_of_a_call_has_an_answer_before_the_kubelet_cancels_the_call() {
        let claim = |name: &str| v1::Claim { namespace: "ns".to_owned(), name: name.to_owned(), uid: name.to_owned() };
        let started = Instant::now();
        let answers = each(vec![claim("hangs"), claim("ready"), claim("smi")], |claim, deadline| async move {
            match claim.name.as_str() {
                "ready" => Ok(7),
                "smi" => {
                    let held = deadline.clone();
                    // The thread ends with the test, which does not wait for it.
                    std::thread::spawn(move || held.beside("nvidia-smi", std::thread::park));
                    while deadline.goes_on().is_none() {
                        tokio::task::yield_now().await;
                    }
                    pending().await
                }
                _ => pending().await,
            }
        });
        let answers = answers.await;
        assert!(started.elapsed() <= Duration::from_secs(42), "the kubelet waits 45 s");
        let continues = |what: &str, advice: &str| {
            Err(format!("claim ns/{what} after 40 s; the work continues, and the next call gets its result{advice}"))
        };
        let hangs = continues("hangs: work is not finished", "");
        let advice = "; with persistence mode on this node it takes milliseconds";
        let smi = continues("smi: still waiting for nvidia-smi", advice);
        let expect = [("hangs", hangs), ("ready", Ok(7)), ("smi", smi)];
        assert_eq!(answers, expect.map(|(uid, answer)| (uid.to_owned(), answer)).into());
    }
}
