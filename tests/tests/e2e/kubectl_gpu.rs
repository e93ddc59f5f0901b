// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu` on a real cluster, compared with what its scheduler then does.

use crate::{
    arena::{Arena, checked},
    pods,
};
use dra_demo::text;
use serde_json::{Value, json};
use std::process::{Command, Output};
use std::time::Duration;

crate::case::cases![
    status_has_every_gpu_and_who_holds_it,
    why_names_the_holder_of_what_a_pod_waits_for,
    events_explain_why_a_pod_waits,
    as_many_replicas_run_as_fit_counts,
];

const NODE: &str = "node-2";
const A100: &str = "device.attributes['gpu.nvidia.com'].architecture == 'Ampere'";
const T4: &str = "device.attributes['gpu.nvidia.com'].architecture == 'Turing'";

/// What a user of the cluster sees.
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) code: Option<i32>,
}

pub(crate) fn kubectl_gpu(arena: &Arena, args: &[&str]) -> Answer {
    let mut program = Command::new(checked(arena.repository.program_path("kubectl-gpu")));
    let Output { status, stdout, stderr } = arena.cluster.equip(&mut program).args(args).output().unwrap();
    let text = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    Answer { text, code: status.code() }
}

fn whole(count: usize, selector: &str) -> Value {
    let mut devices = pods::gpu(selector);
    devices["requests"][0]["exactly"]["count"] = json!(count);
    devices
}

fn status_has_every_gpu_and_who_holds_it(arena: &Arena) {
    pods::start(arena, "holder", NODE, &whole(1, A100));
    checked(arena.stage().saw("holder"));
    let Answer { text, code } = kubectl_gpu(arena, &["status", "-A"]);
    assert!(code == Some(0) && text.starts_with("2 nodes and 12 GPUs"), "{text}");
    assert!(text.contains("default    holder  holder"), "{text}");
    pods::remove(arena, "holder");
}

fn why_names_the_holder_of_what_a_pod_waits_for(arena: &Arena) {
    pods::start(arena, "holder", NODE, &whole(2, A100));
    checked(arena.stage().saw("holder"));
    pods::start(arena, "waiter", NODE, &whole(1, A100));
    arena.until("the scheduler's refusal", || {
        let pod: Value = serde_json::from_str(&arena.kubectl(&["get", "pod", "waiter", "-o", "json"])).unwrap();
        (text(&pod, "/status/conditions/0/reason") == "Unschedulable").then_some(())
    });
    let Answer { text, code } = kubectl_gpu(arena, &["why", "waiter"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("in use by claim default/holder (pod holder)"), "{text}");
    assert!(text.contains("wait until claim default/holder (pod holder) ends: then node node-2 fits"), "{text}");
    pods::remove(arena, "holder");
    checked(arena.stage().saw("waiter"));
    pods::remove(arena, "waiter");
    pods::start(arena, "greedy", NODE, &whole(3, A100));
    let Answer { text, code } = kubectl_gpu(arena, &["why", "greedy"]);
    assert!(code == Some(2) && text.contains("can never fit as it is"), "{text}");
    pods::remove(arena, "greedy");
}

/// A pod is explained after half a minute, and the cluster is read every half minute.
const EXPLAINED: Duration = Duration::from_mins(2);

/// The Deployment of the chart, without a tool of the user.
fn events_explain_why_a_pod_waits(arena: &Arena) {
    pods::start(arena, "holder", NODE, &whole(2, A100));
    checked(arena.stage().saw("holder"));
    pods::start(arena, "waiter", NODE, &whole(1, A100));
    let of = |kind: &str| {
        let fields = format!("reason=DevicesUnavailable,involvedObject.kind={kind},involvedObject.name=waiter");
        let events = || arena.list(&["events", "--field-selector", &fields]);
        let message = || events().first().map(|event| text(event, "/message").to_owned());
        checked(arena.cluster.wait_until(&format!("an Event on the {kind}"), EXPLAINED, || Ok(message())))
    };
    let (on_claim, on_pod) = (of("ResourceClaim"), of("Pod"));
    assert_eq!(on_claim, on_pod);
    assert!(
        on_pod.starts_with("pod default/waiter waits: none of 2 nodes can give it what it asks for now. "),
        "{on_pod}"
    );
    assert!(on_pod.contains("node-2: the devices that match are in use (closest gpu-"), "{on_pod}");
    assert!(on_pod.contains("in use by claim holder)"), "{on_pod}");
    let described = arena.kubectl(&["describe", "resourceclaim", "waiter"]);
    assert!(described.contains("DevicesUnavailable"), "{described}");
    pods::remove(arena, "holder");
    checked(arena.stage().saw("waiter"));
    pods::remove(arena, "waiter");
}

fn as_many_replicas_run_as_fit_counts(arena: &Arena) {
    for (replicas, expect) in [(2, Some(0)), (3, Some(2))] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), deployment(replicas).to_string()).unwrap();
        let Answer { text, code } = kubectl_gpu(arena, &["fit", "-f", &file.path().display().to_string()]);
        assert_eq!(code, expect, "{text}");
        assert!(text.contains("room for 2 now"), "{text}");
    }
    arena.apply(&deployment(3).to_string());
    let states = || {
        let pods = arena.list(&["pods", "-l", "app=turing"]);
        let is_running = |pod: &&Value| crate::arena::is_ready(pod);
        let waits = |pod: &&Value| text(pod, "/status/conditions/0/reason") == "Unschedulable";
        (pods.iter().filter(is_running).count(), pods.iter().filter(waits).count())
    };
    arena.until("two replicas that run and one that waits", || (states() == (2, 1)).then_some(()));
    arena.kubectl(&["delete", "deployment/turing", "resourceclaimtemplate/turing", "--timeout=60s"]);
    arena.until("the end of the replicas", || arena.list(&["pods", "-l", "app=turing"]).is_empty().then_some(()));
}

fn deployment(replicas: usize) -> Value {
    let labels = json!({"app": "turing"});
    let template = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": "turing"},
        "spec": {"spec": {"devices": whole(1, T4)}},
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "turing"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": pods::pod_spec(&json!({"name": "gpu", "resourceClaimTemplateName": "turing"})),
        }},
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [template, deployment]})
}
