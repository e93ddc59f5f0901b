// SPDX-License-Identifier: Apache-2.0
//! Claims for one GPU each, allocated as the scheduler does it, and the calls of the kubelet for them.

use dra_proto::dra_v1::{Claim, NodePrepareResourcesRequest, NodeUnprepareResourcesRequest};
use dra_tests::kubelet::claim_of;
use dra_tests::node::{DRIVER, NODE};
use futures::StreamExt as _;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::stage::{KubeletClient, Stage};

/// Where all claims are.
pub(crate) const NAMESPACE: &str = "default";

/// How many requests are under way at once while claims are made.
const AT_ONCE: usize = 8;

impl Stage<'_> {
    /// Makes claims, the first for the first GPU, the second for the second, and so on in turn.
    pub(crate) async fn create_claims(&self, prefix: &str, count: usize) -> Vec<Claim> {
        let create = |number: usize| {
            let device = self.devices[number % self.devices.len()].clone();
            create(self.admin.clone(), format!("{prefix}-{number}"), device)
        };
        futures::stream::iter(0..count).map(create).buffered(AT_ONCE).collect().await
    }
}

async fn create(client: Client, name: String, device: String) -> Claim {
    let claims: Api<ResourceClaim> = Api::namespaced(client, NAMESPACE);
    let request = json!({"name": "gpu", "exactly": {"deviceClassName": DRIVER}});
    let claim = json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [request]}}});
    let claim = serde_json::from_value(claim).expect("a claim");
    claims.create(&PostParams::default(), &claim).await.expect("the API server takes claims");
    let result = json!({"request": "gpu", "driver": DRIVER, "pool": NODE, "device": device});
    // The selector is what lets the driver write into the status: it ties the allocation to the driver's node.
    let here = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [NODE]}]});
    let allocation = json!({"devices": {"results": [result]}, "nodeSelector": {"nodeSelectorTerms": [here]}});
    let status = json!({"status": {"allocation": allocation}});
    let allocated = claims.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
    claim_of(&serde_json::to_value(allocated.expect("the API server takes allocations")).expect("a claim"))
}

/// The kubelet's call for a pod with this claim.
pub(crate) async fn prepare(mut kubelet: KubeletClient, claim: Claim) {
    let request = NodePrepareResourcesRequest { claims: vec![claim.clone()] };
    let answer = kubelet.node_prepare_resources(request).await.expect("the plugin answers").into_inner();
    let answer = answer.claims.get(&claim.uid).expect("an answer for the claim");
    assert!(answer.error.is_empty() && answer.devices.len() == 1, "{}: {}", claim.name, answer.error);
}

/// The kubelet's call when the pod is gone.
pub(crate) async fn unprepare(mut kubelet: KubeletClient, claim: Claim) {
    let request = NodeUnprepareResourcesRequest { claims: vec![claim.clone()] };
    let answer = kubelet.node_unprepare_resources(request).await.expect("the plugin answers").into_inner();
    let answer = answer.claims.get(&claim.uid).expect("an answer for the claim");
    assert!(answer.error.is_empty(), "{}: {}", claim.name, answer.error);
}
