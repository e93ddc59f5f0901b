// SPDX-License-Identifier: Apache-2.0
//! The kubelet's DRA services: `v1`, and `v1beta1` which differs only in having no share ids.
//!
//! Every claim of a call is worked on in a task of its own, so one slow claim delays no other, and a call the kubelet
//! gives up on cuts nothing that has begun. A claim whose work has not begun when its caller leaves is not begun.
//!
//! The kubelet gives a call up after 45 s and shows only that. So each call gets a deadline where it arrives, and every
//! wait on its behalf keeps to it and says what it waited for. Work that has not ended a little later all the same, on a
//! disk that hangs perhaps, is answered for here and goes on beside the call; the kubelet's next call finds what became of it.

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

use crate::claims::{Claims, Prepared};
use crate::fetch::Abandoned;

/// How long the work on a claim may wait for others, in all.
const WORK: Duration = Duration::from_secs(38);

/// When the kubelet is answered at the latest.
const ANSWER: Duration = Duration::from_secs(40);

/// Serves both versions.
#[derive(Debug, Clone)]
pub struct DraService {
    claims: Claims,
}

impl DraService {
    /// A service for the claims of this node.
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
        let prepared: Vec<Prepared> = order.iter().filter_map(|uid| claims.remove(uid)?.ok()).collect();
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

/// Tells the work of a call that its caller has left.
#[derive(Debug, Default)]
struct CallGuard(Abandoned);

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Works on all claims at once and answers for every one of them in time, by UID.
async fn each<T, F>(
    asked: Vec<v1::Claim>,
    work: impl Fn(ClaimRef, Deadline) -> F,
) -> BTreeMap<String, Result<T, String>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, String>> + Send + 'static,
{
    let answer_by = Instant::now() + ANSWER;
    let start = |claim: v1::Claim| {
        let start = |claim: ClaimRef| {
            let deadline = Deadline::after(WORK);
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
                timeout_at(answer_by, finished(task)).await.unwrap_or_else(|_elapsed| Err(goes_on(&claim, &deadline)))
            }
        };
        answers.insert(uid, answer);
    }
    answers
}

fn goes_on(claim: &ClaimRef, deadline: &Deadline) -> String {
    let seconds = ANSWER.as_secs();
    match deadline.goes_on() {
        Some(what) => format!(
            "claim {claim}: still waiting for {what} after {seconds} s; that goes on, and the next call gets its result; \
             with persistence mode on this node it takes milliseconds"
        ),
        None => format!(
            "claim {claim}: still being worked on after {seconds} s; that goes on, and the next call gets its result"
        ),
    }
}

async fn finished<T>(task: JoinHandle<Result<T, String>>) -> Result<T, String> {
    match task.await {
        Ok(answer) => answer,
        Err(panic) => Err(format!("the driver failed on this claim, please report it: {panic}")),
    }
}

fn reference(claim: v1::Claim) -> Result<ClaimRef, String> {
    let uid = claim.uid.parse().map_err(|error| format!("claim {}/{}: {error}", claim.namespace, claim.name))?;
    Ok(ClaimRef { namespace: claim.namespace, name: claim.name, uid })
}

fn prepare_response(result: &Result<Prepared, String>) -> v1::NodePrepareResourceResponse {
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
    async fn every_claim_of_a_call_is_answered_for_before_the_kubelet_gives_the_call_up() {
        let claim = |name: &str| v1::Claim { namespace: "ns".to_owned(), name: name.to_owned(), uid: name.to_owned() };
        let began = Instant::now();
        let answers = each(vec![claim("hangs"), claim("ready"), claim("smi")], |claim, deadline| async move {
            match claim.name.as_str() {
                "ready" => Ok(7),
                "smi" => {
                    let held = deadline.clone();
                    // It ends with the test, which does not wait for it.
                    std::thread::spawn(move || held.beside("nvidia-smi to tell what", std::thread::park));
                    while deadline.goes_on().is_none() {
                        tokio::task::yield_now().await;
                    }
                    pending().await
                }
                _ => pending().await,
            }
        });
        let answers = answers.await;
        assert!(began.elapsed() <= Duration::from_secs(42), "the kubelet waits 45 s");
        let goes_on = |what: &str, advice: &str| {
            Err(format!("claim ns/{what} after 40 s; that goes on, and the next call gets its result{advice}"))
        };
        let hangs = goes_on("hangs: still being worked on", "");
        let advice = "; with persistence mode on this node it takes milliseconds";
        let smi = goes_on("smi: still waiting for nvidia-smi to tell what", advice);
        let expect = [("hangs", hangs), ("ready", Ok(7)), ("smi", smi)];
        assert_eq!(answers, expect.map(|(uid, answer)| (uid.to_owned(), answer)).into());
    }
}
