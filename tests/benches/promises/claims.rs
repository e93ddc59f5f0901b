// SPDX-License-Identifier: Apache-2.0
//! Claims for one GPU or a share of one each, allocated as the scheduler does it, and the calls of the kubelet for them.

use dra_proto::dra_v1::{Claim, NodePrepareResourcesRequest, NodeUnprepareResourcesRequest};
use dra_tests::kubelet::claim_of;
use dra_tests::node::{DRIVER, NODE};
use dra_tests::wait::within;
use futures::StreamExt as _;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::namespace::NAMESPACE;
use crate::stage::{KubeletClient, Stage, ticks};

/// How many requests are under way at once while claims are made.
const AT_ONCE: usize = 8;

/// Memory of a share: on an H100 a hundred of them fit.
const SHARE_MEMORY: &str = "800Mi";
/// Threads of a share, in percent.
const SHARE_THREADS: &str = "1";

/// What a claim is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RequestKind {
    /// A GPU as it is.
    Plain,
    /// A GPU with an MPS daemon of the claim's own, which has limits to set.
    Mps,
    /// A hundredth of a GPU by MPS.
    Share,
    /// A MIG device that does not exist.
    Partition,
}

impl Stage<'_> {
    /// Makes claims, the first for the first GPU, the second for the second, and so on in turn over so many GPUs.
    pub(crate) async fn create_claims(&self, prefix: &str, kind: RequestKind, gpus: usize, count: usize) -> Vec<Claim> {
        let create = |number: usize| {
            let device = &self.devices[number % gpus];
            create(self.admin.clone(), format!("{prefix}-{number}"), kind.parts(device, number))
        };
        futures::stream::iter(0..count).map(create).buffered(AT_ONCE).collect().await
    }

    /// The scheduler gives their devices to the claims of the next part then.
    pub(crate) async fn delete_claims(&self) {
        let claims: Api<ResourceClaim> = Api::namespaced(self.admin.clone(), NAMESPACE);
        let all = ListParams::default();
        claims.delete_collection(&DeleteParams::default(), &all).await.expect("the API server deletes claims");
        let gone = async {
            let mut ticks = ticks();
            while !claims.list(&all).await.expect("the API server answers").items.is_empty() {
                ticks.tick().await;
            }
        };
        within("all claims are deleted", gone).await;
    }
}

/// What is asked for and what the scheduler gives, as far as claims differ.
struct Parts {
    request: Value,
    result: Value,
    config: Option<Value>,
}

impl RequestKind {
    fn parts(self, gpu: &str, number: usize) -> Parts {
        match self {
            Self::Plain => whole(gpu, None),
            Self::Mps => {
                let limits = json!({"defaultActiveThreadPercentage": 30, "defaultPinnedDeviceMemoryLimit": "4Gi"});
                let sharing = json!({"strategy": "MPS", "mpsConfig": limits});
                let config =
                    json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig", "sharing": sharing});
                whole(gpu, Some(config))
            }
            Self::Share => share(gpu, number),
            // 1g.10gb in the last memory slice.
            Self::Partition => Parts {
                request: json!({"deviceClassName": "mig.nvidia.com"}),
                result: json!({"device": format!("{gpu}-mig-19-6")}),
                config: None,
            },
        }
    }
}

fn whole(gpu: &str, config: Option<Value>) -> Parts {
    Parts { request: json!({"deviceClassName": DRIVER}), result: json!({"device": gpu}), config }
}

fn share(gpu: &str, number: usize) -> Parts {
    let amounts = json!({"memory": SHARE_MEMORY, "activeThreadPercentage": SHARE_THREADS});
    let request = json!({"deviceClassName": "mps.gpu.nvidia.com", "capacity": {"requests": amounts}});
    let share_id = format!("00000000-0000-4000-8000-{number:012}");
    let result = json!({"device": format!("{gpu}-mps"), "shareID": share_id, "consumedCapacity": amounts});
    Parts { request, result, config: None }
}

async fn create(client: Client, name: String, parts: Parts) -> Claim {
    let Parts { request, mut result, config } = parts;
    let claims: Api<ResourceClaim> = Api::namespaced(client, NAMESPACE);
    let request = json!({"name": "gpu", "exactly": request});
    let opaque: Vec<Value> =
        config.map(|it| json!({"opaque": {"driver": DRIVER, "parameters": it}})).into_iter().collect();
    let claim = json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [request], "config": opaque}}});
    let claim = serde_json::from_value(claim).expect("a claim");
    claims.create(&PostParams::default(), &claim).await.expect("the API server takes claims");
    for (field, value) in [("request", "gpu"), ("driver", DRIVER), ("pool", NODE)] {
        result[field] = json!(value);
    }
    let config: Vec<Value> = opaque.iter().map(|it| json!({"source": "FromClaim", "opaque": it["opaque"]})).collect();
    // The selector is what lets the driver write into the status: it ties the allocation to the driver's node.
    let here = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [NODE]}]});
    let devices = json!({"results": [result], "config": config});
    let allocation = json!({"devices": devices, "nodeSelector": {"nodeSelectorTerms": [here]}});
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
