// SPDX-License-Identifier: Apache-2.0
//! The real scheduler with eight GPUs: MIG devices of random profiles come and go until nothing fits, and how long it takes to
//! schedule a pod with all MIG devices published and with none.
//!
//! No kubelet runs on the node: the benchmark makes its calls to the plugin.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dra_proto::dra_v1::Claim;
use dra_tests::kubelet::claim_of;
use dra_tests::node::{DRIVER, NODE};
use dra_tests::wait::within;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};

use crate::claims::{prepare, unprepare};
use crate::figures::{Figure, Samples, Unit, count, milliseconds};
use crate::fragmentation::MIX;
use crate::namespace::NAMESPACE;
use crate::stage::{Stage, ticks};

/// Arrivals of a pod, each after one of those before it may have ended.
const ROUNDS: usize = 500;
/// Of a round, that a pod ends first: fewer than come, so that the GPUs fill.
const END: f64 = 0.45;
/// Pods for each time of the scheduler.
const PODS: usize = 30;

/// What happened, and how long the scheduler took for each pod.
#[derive(Debug, Default)]
pub(crate) struct Scheduling {
    /// Pods for which nothing was free.
    refused: usize,
    /// The most MIG devices at once.
    most: usize,
    /// MIG devices on the GPUs that no claim had, or the other way round.
    leaked: usize,
    whole: Samples,
    partition: Samples,
    without_mig: Samples,
}

/// A pod that the scheduler was given.
pub(crate) enum Scheduled {
    /// With the claim and its device.
    OnNode(Claim, String),
    NothingFree,
}

pub(crate) async fn measure(stage: &mut Stage<'_>) -> Scheduling {
    let mut found = Scheduling::default();
    make_room(stage).await;
    rounds(stage, &mut found).await;
    found.whole = times(stage, "whole", &whole()).await;
    found.partition = times(stage, "partition", &of_profile("1g.10gb")).await;
    stage.publish_again(&["--dynamic-mig=false"], |devices| devices.iter().all(|name| !name.contains("-mig-"))).await;
    found.without_mig = times(stage, "only-whole", &whole()).await;
    stage.publish_again(&[], |devices| devices.iter().any(|name| name.contains("-mig-"))).await;
    found
}

/// A Node without a kubelet has no room for pods.
pub(crate) async fn make_room(stage: &Stage<'_>) {
    let nodes: Api<Node> = Api::all(stage.admin.clone());
    let room = json!({"cpu": "64", "memory": "64Gi", "pods": "1000"});
    let status = json!({"status": {"capacity": room, "allocatable": room}});
    nodes.patch_status(NODE, &PatchParams::default(), &Patch::Merge(status)).await.expect("the node is there");
}

async fn rounds(stage: &Stage<'_>, found: &mut Scheduling) {
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut running: Vec<(String, Claim, String)> = Vec::new();
    for round in 0..ROUNDS {
        let profile = MIX[random.random_range(0..MIX.len())].1;
        let (ends, which) = (random.random_bool(END), random.random_range(0..ROUNDS));
        if ends && !running.is_empty() {
            let (name, claim, _) = running.swap_remove(which % running.len());
            unprepare(stage.kubelet.clone(), claim).await;
            delete(stage, &name).await;
        }
        let name = format!("arrival-{round}");
        match schedule(stage, &name, &of_profile(profile)).await {
            Scheduled::OnNode(claim, device) => {
                prepare(stage.kubelet.clone(), claim.clone()).await;
                running.push((name, claim, device));
            }
            Scheduled::NothingFree => {
                delete(stage, &name).await;
                found.refused += 1;
            }
        }
        found.most = found.most.max(running.len());
        found.leaked += difference(stage, &running.iter().map(|(_, _, device)| device.as_str()).collect());
    }
    for (name, claim, _) in running {
        unprepare(stage.kubelet.clone(), claim).await;
        delete(stage, &name).await;
    }
    found.leaked += difference(stage, &BTreeSet::new());
}

/// How many MIG devices exist that are not of these names, and how many of the names do not exist.
fn difference(stage: &Stage<'_>, expected: &BTreeSet<&str>) -> usize {
    let machine = stage.gpus.state();
    let existing: BTreeSet<String> = (0..machine.gpus.len())
        .flat_map(|gpu| {
            let instances = machine.gpus[gpu].instances.values();
            let parts = instances.map(|instance| (instance.profile_id, instance.placement.start));
            parts.map(move |(profile, start)| format!("{}-mig-{profile}-{start}", stage.gpus.name(gpu)))
        })
        .collect();
    existing.iter().map(String::as_str).collect::<BTreeSet<_>>().symmetric_difference(expected).count()
}

/// How long the scheduler takes for each of some pods, one after another.
async fn times(stage: &Stage<'_>, prefix: &str, request: &Value) -> Samples {
    let mut took = Samples::default();
    for number in 0..PODS {
        let name = format!("{prefix}-{number}");
        let began = Instant::now();
        let scheduled = schedule(stage, &name, request).await;
        took.push(began.elapsed());
        assert!(matches!(scheduled, Scheduled::OnNode(..)), "{name} has a free node");
        delete(stage, &name).await;
    }
    took
}

pub(crate) fn whole() -> Value {
    json!({"deviceClassName": DRIVER})
}

fn of_profile(profile: &str) -> Value {
    let selector = format!("device.attributes['{DRIVER}'].profile == '{profile}'");
    json!({"deviceClassName": "mig.nvidia.com", "selectors": [{"cel": {"expression": selector}}]})
}

/// Creates a claim and a pod that uses it, and waits for the scheduler.
pub(crate) async fn schedule(stage: &Stage<'_>, name: &str, request: &Value) -> Scheduled {
    let (claims, pods) = apis(stage);
    let claim =
        json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [{"name": "gpu", "exactly": request}]}}});
    let pod = json!({
        "metadata": {"name": name},
        "spec": {
            "automountServiceAccountToken": false,
            "tolerations": [{"operator": "Exists"}],
            "resourceClaims": [{"name": "gpu", "resourceClaimName": name}],
            "containers": [{"name": "main", "image": "localhost/never-started", "resources": {"claims": [{"name": "gpu"}]}}],
        },
    });
    let claim = serde_json::from_value(claim).expect("a claim");
    claims.create(&PostParams::default(), &claim).await.expect("the API server takes claims");
    let pod = serde_json::from_value(pod).expect("a pod");
    pods.create(&PostParams::default(), &pod).await.expect("the API server takes pods");
    let on_node = within(&format!("{name} is scheduled or refused"), until_decided(&pods, name)).await;
    if !on_node {
        return Scheduled::NothingFree;
    }
    let claim = claims.get(name).await.expect("the claim is there");
    let claim = serde_json::to_value(claim).expect("a claim");
    let device = claim["status"]["allocation"]["devices"]["results"][0]["device"].as_str().unwrap_or_default();
    Scheduled::OnNode(claim_of(&claim), device.to_owned())
}

/// Whether the scheduler found a node, once it decided.
async fn until_decided(pods: &Api<Pod>, name: &str) -> bool {
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let pod = pods.get(name).await.expect("the pod is there");
        if pod.spec.is_some_and(|spec| spec.node_name.is_some()) {
            return true;
        }
        let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|one| one.type_ == "PodScheduled" && one.reason.as_deref() == Some("Unschedulable")) {
            return false;
        }
    }
}

/// Deletes the pod and its claim, and waits until the claim's device is free.
pub(crate) async fn delete(stage: &Stage<'_>, name: &str) {
    let (claims, pods) = apis(stage);
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete(name, &at_once).await.expect("the pod is there");
    claims.delete(name, &DeleteParams::default()).await.expect("the claim is there");
    let gone = async {
        let mut ticks = ticks();
        while claims.get_opt(name).await.expect("the API server answers").is_some() {
            ticks.tick().await;
        }
    };
    within(&format!("claim {name} is deleted"), gone).await;
}

pub(crate) fn apis(stage: &Stage<'_>) -> (Api<ResourceClaim>, Api<Pod>) {
    (Api::namespaced(stage.admin.clone(), NAMESPACE), Api::namespaced(stage.admin.clone(), NAMESPACE))
}

impl Scheduling {
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let Self { refused, most, leaked, whole, partition, without_mig } = self;
        let took =
            |name: &str, samples: &Samples| Figure::measured(name, milliseconds(samples.p50()), Unit::Milliseconds);
        let ratio = |took: Duration| took.as_secs_f64() / without_mig.p50().as_secs_f64();
        vec![
            Figure::promised(
                "MIG devices without a claim or claims without one, in 500 rounds",
                count(*leaked),
                Unit::Count,
                0.0,
            ),
            Figure::promised(
                "a pod for a whole GPU scheduled with all MIG devices published, to none, p50",
                ratio(whole.p50()),
                Unit::Ratio,
                2.0,
            ),
            Figure::measured("pods in 500 rounds for which nothing was free", count(*refused), Unit::Count),
            Figure::measured("the most MIG devices at once in these rounds", count(*most), Unit::Count),
            took("a pod for a whole GPU scheduled, no MIG devices published, p50", without_mig),
            took("the same with all MIG devices published", whole),
            took("a pod for a MIG device scheduled", partition),
        ]
    }
}
