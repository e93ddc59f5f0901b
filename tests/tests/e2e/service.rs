// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu drain`, `undrain`, `faults` and `top` on a real cluster: its scheduler and its eviction controller act on what they write.

use crate::{
    arena::{Arena, checked},
    kubectl_gpu::{Answer, kubectl_gpu},
    pods,
};
use dra_demo::{driver, text};
use serde_json::Value;

crate::case::cases![a_gpu_is_drained_by_name_and_returned, what_a_pod_uses_is_listed_by_name];

const NODE: &str = "node-1";

fn a_gpu_is_drained_by_name_and_returned(arena: &Arena) {
    pods::start(arena, "victim", NODE, &pods::gpu(""));
    let gpu = checked(arena.stage().saw("victim")).seen.gpus[0].uuid.clone();
    let Answer { text: plan, code } = kubectl_gpu(arena, &["drain", &gpu, "--dry-run"]);
    assert_eq!(code, Some(0), "{plan}");
    let holder = plan.lines().find(|line| line.starts_with("default")).unwrap_or_default();
    assert!(holder.contains("victim") && holder.ends_with("evicted at once"), "{plan}");
    assert!(plan.contains("1 allocated device selected. 1 pod would be evicted in 1 namespace"), "{plan}");
    assert!(plan.contains("1 pod is evicted") && arena.list(&["devicetaintrules"]).is_empty(), "{plan}");
    assert_eq!(phase_of(arena, "victim").as_deref(), Some("Running"));

    let Answer { text: unconfirmed, code } = kubectl_gpu(arena, &["drain", &gpu]);
    assert!(code == Some(3) && unconfirmed.contains("run it again with --yes"), "{unconfirmed}");
    assert!(arena.list(&["devicetaintrules"]).is_empty(), "{unconfirmed}");

    let Answer { text: drained, code } =
        kubectl_gpu(arena, &["drain", &gpu, "--yes", "--reason", "test", "--wait=60s"]);
    assert!(code == Some(0) && drained.ends_with("No claim holds it.\n"), "{drained}");
    assert_eq!(phase_of(arena, "victim"), None);
    let Answer { text: faults, code } = kubectl_gpu(arena, &["faults", NODE]);
    assert_eq!(code, Some(0), "{faults}");
    assert!(faults.contains("1 GPU out of service by hand") && faults.contains("because of \"test\""), "{faults}");
    let rules = arena.list(&["devicetaintrules"]);
    assert!(rules.iter().any(|rule| faults.contains(text(rule, "/metadata/name"))), "{faults}");

    arena.kubectl(&["delete", "resourceclaim", "victim", "--timeout=60s"]);
    let same = pods::gpu(&format!("device.attributes['gpu.nvidia.com'].uuid == '{gpu}'"));
    pods::start(arena, "waits", NODE, &same);
    arena.until("the scheduler passes over the GPU", || {
        let pod = arena.list(&["pods"]).into_iter().find(|pod| text(pod, "/metadata/name") == "waits")?;
        let conditions = pod["status"]["conditions"].as_array()?;
        conditions.iter().any(|one| text(one, "/reason") == "Unschedulable").then_some(())
    });
    let Answer { text: returned, code } = kubectl_gpu(arena, &["undrain", &gpu]);
    assert!(code == Some(0) && returned.contains("New claims get it again"), "{returned}");
    assert_eq!(checked(arena.stage().saw("waits")).seen.gpus[0].uuid, gpu);
    let Answer { text: faults, .. } = kubectl_gpu(arena, &["faults", NODE]);
    assert!(!faults.contains(&gpu), "{faults}");
    pods::remove(arena, "waits");
}

fn what_a_pod_uses_is_listed_by_name(arena: &Arena) {
    pods::start(arena, "measured", NODE, &pods::gpu(""));
    let uuid = checked(arena.stage().saw("measured")).seen.gpus[0].uuid.clone();
    let Answer { text: top, code } =
        kubectl_gpu(arena, &["top", NODE, "-o", "json", "--driver-namespace", driver::NAMESPACE]);
    assert_eq!(code, Some(0), "{top}");
    let found: Value = serde_json::from_str(&top).unwrap();
    assert_eq!(found["incomplete"], Value::Array(Vec::new()), "{top}");
    let pod = found["pods"].as_array().unwrap().iter().find(|pod| pod["name"] == "measured").expect("the pod");
    let device = text(pod, "/device");
    assert!(uuid.starts_with(&device.replace("gpu-", "GPU-")), "{device} is not {uuid}");
    let gpu = found["gpus"].as_array().unwrap().iter().find(|gpu| text(gpu, "/name") == device).expect("its GPU");
    assert_eq!(
        (pod["memoryLimitBytes"].as_f64(), &gpu["claims"]),
        (gpu["memoryTotalBytes"].as_f64(), &1.into()),
        "{top}"
    );
    let is_measured = |name: &str| gpu[name].as_f64().is_some_and(|value| value > 0.0);
    assert!(["memoryTotalBytes", "temperatureCelsius", "powerWatts"].iter().all(|name| is_measured(name)), "{top}");
    assert!(pod["gpuUtilization"].is_number(), "{top}");
    pods::remove(arena, "measured");
}

fn phase_of(arena: &Arena, pod: &str) -> Option<String> {
    let found: Vec<Value> = arena.list(&["pods"]);
    let pod = found.iter().find(|found| text(found, "/metadata/name") == pod);
    pod.map(|pod| text(pod, "/status/phase").to_owned())
}
