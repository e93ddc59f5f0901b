// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu verify`, `doctor` and `clear` on a real cluster, where they run programs in the pods of the driver.

use std::process::Command;

use crate::{
    arena::{Arena, checked},
    kubectl_gpu::{Answer, kubectl_gpu},
    mig, pods,
};
use dra_demo::{driver, text};
use serde_json::{Value, json};

crate::case::cases![
    verify_agrees_for_every_form_and_names_what_was_changed_by_hand,
    clear_ends_the_fault_of_a_gpu,
    doctor_finds_nothing_on_a_healthy_cluster_and_writes_an_archive_without_secrets,
    doctor_names_what_was_removed_from_the_cluster,
    doctor_names_a_wrong_driver_root,
];

const NODE: &str = "node-1";
const HOPPER: &str = "device.attributes['gpu.nvidia.com'].architecture == 'Hopper'";

fn until(arena: &Arena, args: &[&str], code: i32) -> String {
    let mut last = String::new();
    let what = format!("exit code {code} of kubectl gpu {}", args.join(" "));
    arena.until(&what, || {
        let Answer { text, code: found } = kubectl_gpu(arena, args);
        let is_over = found == Some(code);
        if text != last {
            println!("{what}, now {found:?}:\n{text}");
        }
        last = text;
        is_over.then_some(())
    });
    last
}

fn verify_agrees_for_every_form_and_names_what_was_changed_by_hand(arena: &Arena) {
    let mut share = pods::gpu(HOPPER);
    share["requests"][0]["exactly"]["deviceClassName"] = json!("mps.gpu.nvidia.com");
    let part = mig::one("device.attributes['gpu.nvidia.com'].profile == '1g.10gb'");
    for (name, devices) in [("whole", &pods::gpu(HOPPER)), ("part", &part), ("share", &share)] {
        pods::start(arena, name, NODE, devices);
        let seen = checked(arena.stage().saw(name)).seen;
        let found = until(arena, &["verify", name], 0);
        assert!(
            found.starts_with(&format!("pod default/{name}: claim, status, record, CDI spec and NVML agree")),
            "{found}"
        );
        assert!(seen.uuids().iter().all(|uuid| found.contains(*uuid)), "{found}\n{seen:?}");
    }
    let claim: Value = serde_json::from_str(&arena.kubectl(&["get", "resourceclaim", "part", "-o", "json"])).unwrap();
    let spec = format!("/var/run/cdi/k8s.gpu.nvidia.com-claim_{}.json", text(&claim, "/metadata/uid"));
    checked(
        arena.node(NODE).shell(&format!(r#"sed -i 's,"path":"/dev/nvidia\([0-9]\)","path":"/dev/nvidia9\1",' {spec}"#)),
    );
    let found = until(arena, &["verify", "claim/part"], 2);
    let words = found.split_whitespace().collect::<Vec<_>>().join(" ");
    for expect in ["lacks the device node /dev/nvidia", "has the device node /dev/nvidia9", "delete the pod"] {
        assert!(words.contains(expect), "{expect} in {found}");
    }
    checked(arena.node(NODE).shell(&format!("rm {spec}")));
    let found = until(arena, &["verify", "claim/part"], 2);
    assert!(found.contains(&spec) && found.contains("is missing"), "{found}");
    for name in ["whole", "part", "share"] {
        pods::remove(arena, name);
    }
}

fn clear_ends_the_fault_of_a_gpu(arena: &Arena) {
    let GpuAndName { uuid, name, index } = free_gpu(arena);
    let Answer { text: refused, code } = kubectl_gpu(arena, &["clear", &uuid, "--yes"]);
    assert!(code == Some(3) && refused.contains("has no fault that can be cleared"), "{refused}");
    // Uncontained memory error.
    checked(arena.node(NODE).gpu_sim("xid", &["--gpu", &index, "95"]));
    arena.until("the taint", || {
        kubectl_gpu(arena, &["status", NODE, "-o", "yaml"]).text.contains("gpu.nvidia.com/memory").then_some(())
    });
    let Answer { text: asked, code } = kubectl_gpu(arena, &["clear", &name, "--node", NODE]);
    assert!(code == Some(3) && asked.contains("no confirmation was given, so nothing is changed"), "{asked}");
    assert!(asked.contains("gpu.nvidia.com/memory"), "{asked}");
    let Answer { text: cleared, code } = kubectl_gpu(arena, &["clear", &uuid, "--yes"]);
    assert!(code == Some(0) && cleared.contains("Cleared: the devices of GPU"), "{cleared}");
    assert!(!kubectl_gpu(arena, &["status", NODE, "-o", "yaml"]).text.contains("gpu.nvidia.com/memory"));
}

struct GpuAndName {
    uuid: String,
    name: String,
    index: String,
}

fn free_gpu(arena: &Arena) -> GpuAndName {
    let status: Value = serde_json::from_str(&kubectl_gpu(arena, &["status", NODE, "-o", "json"]).text).unwrap();
    let gpus = status["nodes"][0]["gpus"].as_array().unwrap();
    let gpu = gpus.iter().find(|gpu| gpu["form"] == "free" && gpu["isTainted"] == false).expect("a free GPU");
    let uuid = text(gpu, "/uuid").to_owned();
    let index = arena.settings(NODE).into_iter().find(|setting| setting.uuid == uuid).unwrap().index;
    GpuAndName { name: text(gpu, "/name").to_owned(), uuid, index }
}

fn doctor_finds_nothing_on_a_healthy_cluster_and_writes_an_archive_without_secrets(arena: &Arena) {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("doctor.tar.gz").display().to_string();
    let found = until(arena, &["doctor"], 0);
    assert!(found.contains("Nothing was found.") && !found.contains("note:"), "{found}");
    for expect in ["driver root: NVIDIA driver", "the kubelet has registered the plugin", "CDI is on by default"] {
        assert_eq!(found.matches(expect).count(), 2, "{expect} for each node in {found}");
    }
    let Answer { text: one, code } = kubectl_gpu(arena, &["doctor", NODE, "--archive", &archive]);
    assert!(code == Some(0) && !one.contains("node-2"), "{one}");
    let list = |args: &[&str]| {
        let output = Command::new("tar").args(args).arg(&archive).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let names = list(&["tzf"]);
    for expect in ["diagnosis.json", "resourceslices.json", "pods.json", "plugin.log", "controller.log"] {
        assert!(names.lines().any(|name| name.ends_with(expect)), "{expect} in {names}");
    }
    let content = list(&["xzOf"]);
    let token = crate::publishing::token_of_driver_on(arena, NODE);
    assert!(content.contains("plugin started") && !content.contains(&token) && !content.contains("eyJ"), "a token");
    assert!(!content.contains("\"kind\": \"Secret\""), "a Secret");
    let Answer { text: again, code } = kubectl_gpu(arena, &["doctor", NODE, "--archive", &archive]);
    assert!(code == Some(3) && again.contains("no file is replaced"), "{again}");
    let Answer { text: unknown, code } = kubectl_gpu(arena, &["doctor", "node-9"]);
    assert!(code == Some(2) && unknown.contains("the cluster has no node node-9"), "{unknown}");
}

/// Replaces an object for the time of a check.
fn without(arena: &Arena, object: [&str; 2], change: impl Fn(&mut Value), check: impl Fn()) {
    let mut before: Value = serde_json::from_str(&arena.kubectl(&["get", object[0], object[1], "-o", "json"])).unwrap();
    for field in ["resourceVersion", "uid", "creationTimestamp", "generation"] {
        before["metadata"].as_object_mut().unwrap().remove(field);
    }
    let mut changed = before.clone();
    change(&mut changed);
    arena.kubectl(&["delete", object[0], object[1]]);
    if changed != before {
        arena.apply(&changed.to_string());
    }
    check();
    arena.apply(&before.to_string());
}

fn doctor_names_what_was_removed_from_the_cluster(arena: &Arena) {
    without(
        arena,
        ["deviceclass", "gpu.nvidia.com"],
        |_| {},
        || {
            let found = until(arena, &["doctor"], 1);
            let words = found.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words.contains("no DeviceClass selects whole GPUs"), "{found}");
            assert!(words.contains("fix: `helm upgrade` with deviceClasses.gpu.enabled=true"), "{found}");
        },
    );
    let no_events = |role: &mut Value| {
        let rules = role["rules"].as_array_mut().unwrap();
        rules.retain(|rule| rule["resources"] != json!(["events"]));
    };
    without(arena, ["clusterrole", driver::RELEASE], no_events, || {
        let found = until(arena, &["doctor"], 2);
        let words = found.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("the account of the driver may not create events of events.k8s.io"), "{found}");
        assert!(words.contains("fix: `helm upgrade` restores the ClusterRole"), "{found}");
    });
    until(arena, &["doctor"], 0);
}

fn doctor_names_a_wrong_driver_root(arena: &Arena) {
    checked(driver::upgrade(&arena.cluster, &arena.repository, &["--set", "driver.root=/run/nvidia"]));
    checked(driver::wait_for_pods(&arena.cluster));
    let found = until(arena, &["doctor", NODE], 2);
    let words = found.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("driver.root is /run/nvidia on the node: no libnvidia-ml.so.1"), "{found}");
    assert!(words.contains(" usr/lib64, "), "the directories that were searched: {found}");
    checked(driver::upgrade(&arena.cluster, &arena.repository, &[]));
    checked(driver::wait_for_pods(&arena.cluster));
    checked(driver::wait_for_pools(&arena.cluster));
    until(arena, &["doctor"], 0);
}
