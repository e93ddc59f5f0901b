// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu fit` and the real scheduler about random claims, while others come and go.
//!
//! They are for a node that exists on paper only, with the devices of `node-1`, so that no kubelet prepares anything.
//! `AGREEMENT_ROUNDS` sets the number of claims.

use crate::{
    arena::Arena,
    kubectl_gpu::{Answer, kubectl_gpu},
    paper,
};
use dra_demo::text;
use proptest::prelude::RngExt as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};
use std::{env, time::Duration};

crate::case::cases![fit_agrees_with_the_scheduler_about_random_claims];

const NODE: &str = "paper-1";
const ORIGINAL: &str = "node-1";
const ROUNDS: usize = 60;
/// Of a round, that a pod ends first: fewer than come, so that the GPUs fill.
const END: f64 = 0.4;
/// The scheduler learns a little later than the API server that a claim is deleted.
const LAG: Duration = Duration::from_secs(10);

fn fit_agrees_with_the_scheduler_about_random_claims(arena: &Arena) {
    let rounds = env::var("AGREEMENT_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    create_node(arena);
    let mut running: Vec<String> = Vec::new();
    let mut counts = [0; 3];
    for round in 0..rounds {
        if random.random_bool(END) && !running.is_empty() {
            let ended = running.swap_remove(random.random_range(0..running.len()));
            delete(arena, &ended);
        }
        let name = format!("random-{round}");
        let manifest = manifest(&name, &devices(&mut random)).to_string();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &manifest).unwrap();
        let Answer { text, code } = kubectl_gpu(arena, &["fit", "-f", &file.path().display().to_string()]);
        let code = usize::try_from(code.unwrap()).unwrap();
        assert!(code < counts.len(), "no answer about {manifest}: {text}");
        counts[code] += 1;
        arena.apply(&manifest);
        let expected = if code == 0 { "True" } else { "False" };
        let agreed = arena.cluster.wait_until("the same answer of the scheduler", LAG, || {
            Ok((scheduled(arena, &name) == expected).then_some(()))
        });
        assert!(agreed.is_ok(), "the scheduler has {} about {manifest}: {text}", scheduled(arena, &name));
        if code == 0 {
            running.push(name);
        } else {
            delete(arena, &name);
        }
    }
    println!("{} fit, {} waited, {} could never fit", counts[0], counts[1], counts[2]);
    assert!(counts.iter().all(|count| *count * 20 > rounds), "{counts:?}: claims of each kind");
    for name in &running {
        delete(arena, name);
    }
    arena.kubectl(&["delete", "resourceslices", "-l", &format!("on={NODE}")]);
    paper::delete_nodes(arena);
}

/// The status of the condition `PodScheduled`.
fn scheduled(arena: &Arena, pod: &str) -> String {
    let path = "jsonpath={.status.conditions[?(@.type=='PodScheduled')].status}";
    arena.kubectl(&["get", "pod", pod, "-o", path])
}

fn delete(arena: &Arena, name: &str) {
    let both = [format!("pod/{name}"), format!("resourceclaim/{name}")];
    arena.kubectl(&["delete", &both[0], &both[1], "--grace-period=0", "--force", "--timeout=60s"]);
}

fn create_node(arena: &Arena) {
    paper::create_node(arena, NODE);
    let slices = arena.list(&["resourceslices"]);
    let of_original = slices.into_iter().filter(|slice| text(slice, "/spec/nodeName") == ORIGINAL);
    for (at, mut slice) in of_original.enumerate() {
        slice["metadata"] = json!({"name": format!("{NODE}-{at}"), "labels": {"on": NODE}});
        slice["spec"]["nodeName"] = json!(NODE);
        slice["spec"]["pool"]["name"] = json!(NODE);
        arena.apply(&slice.to_string());
    }
}

fn manifest(name: &str, devices: &Value) -> Value {
    let metadata = json!({"namespace": "default", "name": name});
    let claim = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": metadata, "spec": {"devices": devices},
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": NODE},
            "tolerations": [{"operator": "Exists"}],
            "resourceClaims": [{"name": "gpu", "resourceClaimName": name}],
            "containers": [{"name": "main", "image": "localhost/never-started", "resources": {"claims": [{"name": "gpu"}]}}],
        },
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [claim, pod]})
}

/// One of `all`.
fn one_of<T: Clone>(random: &mut TestRng, all: &[T]) -> T {
    all[random.random_range(0..all.len())].clone()
}

fn exactly(class: &str, count: usize, expression: &str) -> Value {
    let selectors = if expression.is_empty() { json!([]) } else { json!([{"cel": {"expression": expression}}]) };
    json!({"deviceClassName": class, "count": count, "selectors": selectors})
}

fn devices(random: &mut TestRng) -> Value {
    let device = "device.attributes['gpu.nvidia.com']";
    let one = |request: Value| json!([{"name": "gpu", "exactly": request}]);
    match random.random_range(0..9) {
        0 => {
            let expressions = [
                String::new(),
                format!(
                    "{device}.architecture == 'Hopper' && device.capacity['gpu.nvidia.com'].memory.isGreaterThan(quantity('40Gi'))"
                ),
                format!("{device}.productName.lowerAscii().contains('h200')"),
                format!("{device}.driverVersion.isGreaterThan(semver('500.0.0'))"),
            ];
            json!({"requests": one(exactly("gpu.nvidia.com", one_of(random, &[1, 1, 2, 3, 9]), &one_of(random, &expressions)))})
        }
        1 | 2 => {
            let name = one_of(random, &["1g.10gb", "1g.10gb", "2g.20gb", "3g.40gb", "7g.80gb", "9g.90gb"]);
            json!({"requests": one(exactly("mig.nvidia.com", one_of(random, &[1, 1, 2, 4]), &profile(name)))})
        }
        3 => {
            let mut request = exactly("mps.gpu.nvidia.com", 1, "");
            let threads = one_of(random, &["10", "30", "60", "100"]);
            let memory = one_of(random, &["4Gi", "20Gi", "60Gi", "200Gi"]);
            request["capacity"] = json!({"requests": {"activeThreadPercentage": threads, "memory": memory}});
            json!({"requests": one(request)})
        }
        4 => {
            let mut request = exactly("timeslicing.gpu.nvidia.com", 1, "");
            request["capacity"] = json!({"requests": {"shares": one_of(random, &["1", "4", "10", "11"])}});
            json!({"requests": one(request)})
        }
        5 => on_one_gpu(random),
        6 => first_available(random),
        // An attribute that some devices lack fails the expression.
        7 => json!({"requests": one(exactly("gpu.nvidia.com", 1, &format!("{device}.noSuchAttribute == 'x'")))}),
        _ => {
            let mut request = exactly("gpu.nvidia.com", 1, "");
            request["allocationMode"] = json!("All");
            request.as_object_mut().unwrap().remove("count");
            json!({"requests": one(request)})
        }
    }
}

fn profile(name: &str) -> String {
    format!("device.attributes['gpu.nvidia.com'].profile == '{name}'")
}

/// Two MIG devices with something in common.
fn on_one_gpu(random: &mut TestRng) -> Value {
    let both = ["1g.10gb", "3g.40gb"].map(profile);
    let request =
        |name: &str, expression: &str| json!({"name": name, "exactly": exactly("mig.nvidia.com", 1, expression)});
    let attribute = one_of(random, &["gpu.nvidia.com/parentUUID", "gpu.nvidia.com/profile"]);
    json!({
        "requests": [request("small", &both[0]), request("large", &both[1])],
        "constraints": [{"requests": ["small", "large"], "matchAttribute": attribute}],
    })
}

fn first_available(random: &mut TestRng) -> Value {
    let alternative = |name: &str, request: &Value| {
        let mut alternative = request.clone();
        alternative["name"] = json!(name);
        alternative
    };
    let alternatives = [
        alternative("whole", &exactly("gpu.nvidia.com", one_of(random, &[1, 8]), "")),
        alternative("part", &exactly("mig.nvidia.com", 1, &profile(one_of(random, &["2g.20gb", "9g.90gb"])))),
    ];
    json!({"requests": [{"name": "gpu", "firstAvailable": alternatives}]})
}
