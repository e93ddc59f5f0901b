// SPDX-License-Identifier: Apache-2.0
//! The calls of the kubelet for claims, with its deadline, in either version of the API.

use std::collections::BTreeMap;
use std::time::Duration;

use dra_proto::dra_v1::dra_plugin_client::DraPluginClient as V1Client;
use dra_proto::dra_v1::{Claim, Device, NodePrepareResourcesRequest, NodeUnprepareResourcesRequest};
use dra_proto::dra_v1beta1 as beta;
use dra_proto::dra_v1beta1::dra_plugin_client::DraPluginClient as V1beta1Client;
use serde_json::Value;
use tonic::{Code, Request, Status};

use super::{Kubelet, Plugin, Service};

/// `defaultClientCallTimeout`.
pub const DEADLINE: Duration = Duration::from_secs(45);

/// The devices of a claim, or the sentence that reaches the pod's event.
pub type Devices = Result<Vec<Device>, String>;

/// Whether a claim was unprepared, or the sentence that says why not.
pub type Undone = Result<(), String>;

/// Why a call had no answer.
#[derive(Debug)]
pub enum CallError {
    /// No plugin is registered.
    NotRegistered,
    /// The call took longer than its deadline, or the plugin went away.
    Failed(Status),
}

/// How the kubelet names a claim object in its calls.
pub fn claim_of(object: &Value) -> Claim {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    Claim { namespace: text("namespace"), uid: text("uid"), name: text("name") }
}

impl Kubelet {
    /// Prepares the claims of one pod.
    pub async fn prepare_all(&self, claims: &[Claim]) -> Result<BTreeMap<String, Devices>, CallError> {
        self.prepare_within(DEADLINE, claims).await
    }

    /// Prepares with another deadline; when it passes, the call is cancelled as the kubelet cancels it.
    pub async fn prepare_within(
        &self,
        deadline: Duration,
        claims: &[Claim],
    ) -> Result<BTreeMap<String, Devices>, CallError> {
        let plugin = self.choose().ok_or(CallError::NotRegistered)?;
        plugin.prepare_within(deadline, claims).await
    }

    /// Unprepares claims no pod needs any more.
    pub async fn unprepare_all(&self, claims: &[Claim]) -> Result<BTreeMap<String, Undone>, CallError> {
        let plugin = self.choose().ok_or(CallError::NotRegistered)?;
        plugin.unprepare_within(DEADLINE, claims).await
    }

    /// Prepares one claim; a call without an answer is a failure of the test.
    pub async fn prepare(&self, claim: &Claim) -> Devices {
        let mut answers = self.prepare_all(std::slice::from_ref(claim)).await.expect("the plugin answers");
        answers.remove(&claim.uid).expect("the answer is for the claim")
    }

    /// Unprepares one claim; a call without an answer is a failure of the test.
    pub async fn unprepare(&self, claim: &Claim) -> Result<(), String> {
        let mut answers = self.unprepare_all(std::slice::from_ref(claim)).await.expect("the plugin answers");
        answers.remove(&claim.uid).expect("the answer is for the claim")
    }
}

impl Plugin {
    /// Calls this instance, whichever the kubelet would call.
    pub async fn unprepare_within(
        &self,
        deadline: Duration,
        claims: &[Claim],
    ) -> Result<BTreeMap<String, Undone>, CallError> {
        let channel = self.channel.clone();
        let answers: BTreeMap<String, String> = match self.service {
            Service::V1 => {
                let request = NodeUnprepareResourcesRequest { claims: claims.to_vec() };
                let call = async { V1Client::new(channel).node_unprepare_resources(Request::new(request)).await };
                in_time(deadline, call).await?.claims.into_iter().map(|(uid, answer)| (uid, answer.error)).collect()
            }
            Service::V1beta1 => {
                let request = beta::NodeUnprepareResourcesRequest { claims: claims.iter().map(to_beta).collect() };
                let call = async { V1beta1Client::new(channel).node_unprepare_resources(Request::new(request)).await };
                in_time(deadline, call).await?.claims.into_iter().map(|(uid, answer)| (uid, answer.error)).collect()
            }
        };
        assert_answered(claims, &answers);
        let done = |error: String| if error.is_empty() { Ok(()) } else { Err(error) };
        Ok(answers.into_iter().map(|(uid, error)| (uid, done(error))).collect())
    }

    /// Calls this instance, whichever the kubelet would call.
    pub async fn prepare_within(
        &self,
        deadline: Duration,
        claims: &[Claim],
    ) -> Result<BTreeMap<String, Devices>, CallError> {
        let channel = self.channel.clone();
        let answers: BTreeMap<String, Devices> = match self.service {
            Service::V1 => {
                let request = NodePrepareResourcesRequest { claims: claims.to_vec() };
                let call = async { V1Client::new(channel).node_prepare_resources(Request::new(request)).await };
                let answer = in_time(deadline, call).await?.claims;
                answer.into_iter().map(|(uid, answer)| (uid, devices(answer.devices, answer.error))).collect()
            }
            Service::V1beta1 => {
                let request = beta::NodePrepareResourcesRequest { claims: claims.iter().map(to_beta).collect() };
                let call = async { V1beta1Client::new(channel).node_prepare_resources(Request::new(request)).await };
                let answer = in_time(deadline, call).await?.claims;
                answer
                    .into_iter()
                    .map(|(uid, answer)| (uid, devices(from_beta(answer.devices), answer.error)))
                    .collect()
            }
        };
        assert_answered(claims, &answers);
        Ok(answers)
    }
}

async fn in_time<T>(
    deadline: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, CallError> {
    let answer = tokio::time::timeout(deadline, call).await;
    let answer = answer.unwrap_or_else(|_elapsed| Err(Status::new(Code::DeadlineExceeded, "the kubelet gave up")));
    answer.map(tonic::Response::into_inner).map_err(CallError::Failed)
}

/// The kubelet fails the pod when an answer is missing or was not requested.
fn assert_answered<T>(claims: &[Claim], answers: &BTreeMap<String, T>) {
    let mut asked: Vec<&str> = claims.iter().map(|claim| claim.uid.as_str()).collect();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(answers.keys().map(String::as_str).collect::<Vec<_>>(), asked, "one answer per claim, and no other");
}

fn devices(devices: Vec<Device>, error: String) -> Devices {
    if error.is_empty() { Ok(devices) } else { Err(error) }
}

fn to_beta(claim: &Claim) -> beta::Claim {
    let Claim { namespace, uid, name } = claim.clone();
    beta::Claim { namespace, uid, name }
}

fn from_beta(devices: Vec<beta::Device>) -> Vec<Device> {
    let device = |device: beta::Device| {
        let beta::Device { request_names, pool_name, device_name, cdi_device_ids } = device;
        Device { request_names, pool_name, device_name, cdi_device_ids, share_id: None }
    };
    devices.into_iter().map(device).collect()
}
