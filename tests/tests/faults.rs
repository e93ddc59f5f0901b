// SPDX-License-Identifier: Apache-2.0
//! The world around the driver breaks: what is asked meanwhile is answered with the reason, and all goes on by itself
//! when the cause is gone.
#![expect(clippy::expect_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use dra_sim::state::ComputeMode;
use dra_tests::api_server::{Key, Resource, Verb};
use dra_tests::claim::NAMESPACE;
use dra_tests::disk::{Disk, Hindrance};
use dra_tests::kubelet::{CallError, Claim, Device};
use dra_tests::wait::{until, within};
use dra_tests::{Mode, NewClaim, Node};
use serde_json::json;

/// Prepares as the kubelet does: again and again.
async fn until_prepared(node: &Node, claim: &Claim) -> Vec<Device> {
    let tries = async {
        loop {
            if let Ok(devices) = node.kubelet.prepare(claim).await {
                return devices;
            }
        }
    };
    within(&format!("claim {} is prepared", claim.name), tries).await
}

async fn refused(node: &Node, claim: &Claim, words: &[&str]) {
    let error = node.kubelet.prepare(claim).await.expect_err(&claim.name);
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_is_installed_later() {
    let node = Node::new("t4:1");
    node.gpus.uninstall();
    let plugin = node.start(Mode::Process).await;
    plugin.until_logged("the NVIDIA driver is not available, waiting for it").await;
    let claim = NewClaim::of("early", &node.gpus.name(0)).create(&node.api);
    refused(&node, &claim, &["driver", "libnvidia-ml.so.1"]).await;
    node.kubelet.unprepare(&claim).await.unwrap();
    node.gpus.install();
    let devices = until_prepared(&node, &claim).await;
    assert_eq!(node.own_nodes(&devices), [node.gpus.node(0)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nvidia_driver_may_be_removed_and_installed_again() {
    let node = Node::new("t4:2");
    let _plugin = node.start(Mode::Process).await;
    let running = NewClaim::of("running", &node.gpus.name(0)).create(&node.api);
    node.kubelet.prepare(&running).await.unwrap();
    node.gpus.unload_driver();
    let next = NewClaim::of("next", &node.gpus.name(1)).create(&node.api);
    refused(&node, &next, &["driver"]).await;
    node.kubelet.unprepare(&running).await.unwrap();
    assert_eq!(node.leftovers(), [].into());
    node.gpus.load_driver();
    until_prepared(&node, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_fails_half_of_its_queries_spoils_only_itself() {
    let node = Node::new("t4:3");
    for call in ["nvmlDeviceGetMemoryInfo*", "nvmlDeviceGetName", "nvmlDeviceGetCudaComputeCapability"] {
        node.gpus.fail(call, 999, 1);
    }
    let plugin = node.start(Mode::Process).await;
    plugin.until_logged("GPU cannot be read and gets no new claims").await;
    let counted = |_, body: &str| {
        let all = body.contains("gpu_dra_devices{type=\"gpu\",state=\"healthy\"} 2");
        (all && body.contains("gpu_dra_devices{type=\"gpu\",state=\"unhealthy\"} 1")).then_some(())
    };
    plugin.until_http("/metrics", counted).await;
    let good = NewClaim::of("good", &node.gpus.name(2)).create(&node.api);
    node.kubelet.prepare(&good).await.unwrap();
    let bad = NewClaim::of("bad", &node.gpus.name(1)).create(&node.api);
    refused(&node, &bad, &[&node.gpus.name(1), "repair the GPU, or delete the pod"]).await;
    node.gpus.heal();
    until_prepared(&node, &bad).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_is_readable_again_gets_its_original_settings() {
    let node = Node::new("t4:2");
    let plugin = node.start(Mode::Process).await;
    let config = json!({
        "apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig", "sharing": {"strategy": "Exclusive"},
    });
    let claim = NewClaim::of("exclusive", &node.gpus.name(0)).config(&config).create(&node.api);
    node.kubelet.prepare(&claim).await.unwrap();
    node.gpus.change(|state| state.lose_gpu(0));
    let is_broken = |_, body: &str| body.contains("gpu_dra_devices{type=\"gpu\",state=\"unhealthy\"} 1").then_some(());
    plugin.until_http("/metrics", is_broken).await;
    node.kubelet.unprepare(&claim).await.unwrap();
    assert_eq!(node.gpus.state().gpus[0].compute_mode, ComputeMode::ExclusiveProcess, "it cannot be set");
    node.gpus.change(|state| state.reset_gpu(0));
    let is_restored = || (node.gpus.state().gpus[0].compute_mode == ComputeMode::Default).then_some(());
    until("the GPU is as it was found", is_restored).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_was_deleted_under_its_pod_holds_its_gpu_and_errors_do_not_name_it() {
    let node = Node::new("t4:1");
    let _plugin = node.start(Mode::Process).await;
    let [deleted, next] = ["deleted", "next"].map(|name| NewClaim::of(name, &node.gpus.name(0)).create(&node.api));
    node.kubelet.prepare(&deleted).await.unwrap();
    refused(&node, &next, &["is held by claim default/deleted"]).await;
    let (resource, namespace) = (Resource::ResourceClaims, NAMESPACE.to_owned());
    node.api.remove(&Key { resource, namespace, name: deleted.name.clone() });
    let error = node.kubelet.prepare(&next).await.unwrap_err();
    assert!(error.contains("is not free yet") && !error.contains("default/deleted"), "{error}");
    node.kubelet.unprepare(&deleted).await.unwrap();
    node.kubelet.prepare(&next).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_cannot_be_written() {
    let node = Node::new("t4:2");
    let claims_dir = node.state_dir().join("claims");
    fs::create_dir_all(&claims_dir).unwrap();
    let disk = Disk::at(&claims_dir);
    let _plugin = node.start(Mode::Process).await;
    let held = NewClaim::of("held", &node.gpus.name(0)).create(&node.api);
    let next = NewClaim::of("next", &node.gpus.name(1)).create(&node.api);
    let devices = node.kubelet.prepare(&held).await.unwrap();
    for &hindrance in disk.hindrances() {
        let name = format!("{hindrance:?}");
        disk.hinder(hindrance);
        let error = node.kubelet.prepare(&next).await.expect_err(&name);
        assert!(error.contains("claims/") && error.contains("the kubelet retries"), "{name}: {error}");
        assert_eq!(node.own_nodes(&node.kubelet.prepare(&held).await.unwrap()), node.own_nodes(&devices), "{name}");
        disk.release();
        until_prepared(&node, &next).await;
        node.kubelet.unprepare(&next).await.unwrap();
    }
    node.kubelet.unprepare(&held).await.unwrap();
    assert_eq!(node.leftovers(), [].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_state_directory_blocks_no_unprepare_and_prepares_nothing() {
    let node = Node::new("t4:3");
    fs::create_dir_all(node.state_dir()).unwrap();
    let disk = Disk::at(&node.state_dir());
    let _plugin = node.start(Mode::Process).await;
    let [held, ending, next] = [("held", 0), ("ending", 1), ("next", 2)]
        .map(|(name, gpu)| NewClaim::of(name, &node.gpus.name(gpu)).create(&node.api));
    let devices = node.kubelet.prepare(&held).await.unwrap();
    for &hindrance in disk.hindrances() {
        let name = format!("{hindrance:?}");
        node.kubelet.prepare(&ending).await.unwrap();
        disk.hinder(hindrance);
        refused(
            &node,
            &next,
            &[&node.state_dir().display().to_string(), "free space", "writable; the kubelet retries"],
        )
        .await;
        node.kubelet.unprepare(&next).await.expect(&name);
        assert_eq!(node.kubelet.prepare(&held).await.unwrap(), devices, "{name}: what is prepared needs no disk");
        let ended = node.kubelet.unprepare(&ending).await;
        assert!(!node.leftovers().iter().any(|file| file.contains(&format!("claim_{}", ending.uid))), "{name}");
        if hindrance == Hindrance::ReadOnly {
            let error = ended.expect_err("the record cannot be removed");
            assert!(error.contains(&node.state_dir().display().to_string()), "{error}");
            assert!(error.contains("make its directory writable; the kubelet retries"), "{error}");
        } else {
            ended.expect(&name);
        }
        disk.release();
        until_prepared(&node, &next).await;
        for claim in [&next, &ending] {
            node.kubelet.unprepare(claim).await.expect(&name);
        }
    }
    node.kubelet.unprepare(&held).await.unwrap();
    assert_eq!(node.leftovers(), [].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cdi_directory_that_is_full_or_read_only() {
    let node = Node::new("t4:2");
    let disk = Disk::at(&node.cdi_dir());
    let _plugin = node.start(Mode::Process).await;
    let held = NewClaim::of("held", &node.gpus.name(0)).create(&node.api);
    let next = NewClaim::of("next", &node.gpus.name(1)).create(&node.api);
    node.kubelet.prepare(&held).await.unwrap();
    let before = node.leftovers();
    for &hindrance in disk.hindrances() {
        let name = format!("{hindrance:?}");
        disk.hinder(hindrance);
        let error = node.kubelet.prepare(&next).await.expect_err(&name);
        assert!(
            error.contains(&node.cdi_dir().display().to_string()) && error.contains("the kubelet retries"),
            "{name}: {error}"
        );
        disk.release();
        until_prepared(&node, &next).await;
        node.kubelet.unprepare(&next).await.unwrap();
        assert_eq!(node.leftovers(), before, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cdi_directory_with_garbage_and_files_of_others() {
    let node = Node::new("t4:1");
    let claim = NewClaim::of("c", &node.gpus.name(0)).create(&node.api);
    let own_path = node.cdi_dir().join(format!("k8s.gpu.nvidia.com-claim_{}.json", claim.uid));
    let orphan_path = node.cdi_dir().join("k8s.gpu.nvidia.com-claim_11111111-2222-4333-8444-555555555555.json");
    let foreign = [node.cdi_dir().join("other.json"), node.cdi_dir().join("vendor.com-gpu.yaml")];
    for path in foreign.iter().chain([&own_path]) {
        fs::write(path, "{garbage").unwrap();
    }
    let spec = r#"{"cdiVersion":"0.5.0","kind":"k8s.gpu.nvidia.com/claim","devices":[{"name":"x","containerEdits":{"env":["A=B"]}}]}"#;
    fs::write(&orphan_path, spec).unwrap();
    let _plugin = node.start(Mode::Process).await;
    let gone = |path: &Path| (!path.exists()).then_some(());
    until("a spec that belongs to no claim is collected", || gone(&orphan_path)).await;
    let devices = node.kubelet.prepare(&claim).await.unwrap();
    assert_eq!(node.own_nodes(&devices), [node.gpus.node(0)].into());
    node.kubelet.unprepare(&claim).await.unwrap();
    assert_eq!(node.leftovers(), [].into());
    for path in &foreign {
        assert_eq!(fs::read_to_string(path).unwrap(), "{garbage", "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away() {
    let mut node = Node::new("t4:2");
    let plugin = node.start(Mode::Process).await;
    let running = NewClaim::of("running", &node.gpus.name(0)).create(&node.api);
    let next = NewClaim::of("next", &node.gpus.name(1)).create(&node.api);
    let devices = node.kubelet.prepare(&running).await.unwrap();
    node.api.go_down().await;
    refused(&node, &next, &["default/next", "API server", "the kubelet retries"]).await;
    assert_eq!(node.kubelet.prepare(&running).await.unwrap(), devices, "what is prepared needs no API server");
    node.kubelet.unprepare(&running).await.unwrap();
    assert_eq!(node.leftovers(), [].into());
    assert_eq!(plugin.http("/healthz").await.unwrap().0, 200);
    node.api.come_up();
    until_prepared(&node, &next).await;
    let written = |claims: &[serde_json::Value]| {
        let next = claims.iter().find(|claim| claim["metadata"]["name"] == "next")?;
        next["status"]["devices"].as_array().map(drop)
    };
    node.api.until("the claim shows its device", Resource::ResourceClaims, written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_names_an_api_server_that_never_answers_long_before_the_kubelet_cancels_the_call() {
    let node = Node::new("t4:1");
    let _plugin = node.start(Mode::InProcess).await;
    let claim = NewClaim::of("c", &node.gpus.name(0)).create(&node.api);
    node.api.hang();
    let answers = node.kubelet.prepare_within(Duration::from_secs(20), std::slice::from_ref(&claim)).await;
    let error = answers.unwrap().remove(&claim.uid).unwrap().unwrap_err();
    assert!(error.contains("API server"), "{error}");
    node.api.answer_again();
    until_prepared(&node, &claim).await;
}

/// Cancels a prepare while it waits for the API server.
async fn cancelled_prepare(node: &Node, claim: &Claim) {
    let asked = node.api.requests(Verb::Get, Resource::ResourceClaims);
    node.api.hang();
    let call = node.kubelet.prepare_within(Duration::from_millis(500), std::slice::from_ref(claim));
    let (answer, ()) = tokio::join!(call, node.api.until_requested(Verb::Get, Resource::ResourceClaims, asked + 1));
    let cancelled = matches!(&answer, Err(CallError::Failed(status)) if status.code() == tonic::Code::DeadlineExceeded);
    assert!(cancelled, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_of_a_call_that_the_kubelet_cancels_completes() {
    let node = Node::new("t4:1");
    let _plugin = node.start(Mode::InProcess).await;
    let claim = NewClaim::of("c", &node.gpus.name(0)).create(&node.api);
    cancelled_prepare(&node, &claim).await;
    node.api.answer_again();
    until("the prepare goes on to its end", || (node.leftovers().len() == 2).then_some(())).await;
    let devices = node.kubelet.prepare(&claim).await.unwrap();
    assert_eq!(node.own_nodes(&devices), [node.gpus.node(0)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_never_ends_after_the_unprepare_that_followed_it() {
    let node = Node::new("t4:1");
    let plugin = node.start(Mode::InProcess).await;
    let claim = NewClaim::of("c", &node.gpus.name(0)).create(&node.api);
    cancelled_prepare(&node, &claim).await;
    let unprepare = node.kubelet.unprepare(&claim);
    let answer = async { node.api.answer_again() };
    let (unprepared, ()) = tokio::join!(unprepare, answer);
    unprepared.unwrap();
    let idle =
        |_, body: &str| body.contains("gpu_dra_claim_operations_in_flight{operation=\"prepare\"} 0").then_some(());
    plugin.until_http("/metrics", idle).await;
    assert_eq!(node.leftovers(), [].into());
    let other = NewClaim::of("other", &node.gpus.name(0)).create(&node.api);
    node.kubelet.prepare(&other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_gpu_delays_no_other() {
    let node = Node::new("t4:2");
    let _plugin = node.start(Mode::Process).await;
    let ready = NewClaim::of("ready", &node.gpus.name(1)).create(&node.api);
    until_prepared(&node, &ready).await;
    node.kubelet.unprepare(&ready).await.unwrap();
    let slow = NewClaim::of("slow", &node.gpus.name(0)).create(&node.api);
    let fast = NewClaim::of("fast", &node.gpus.name(1)).create(&node.api);
    let asked = node.api.requests(Verb::Get, Resource::ResourceClaims);
    // The delay is ended before it is over.
    node.gpus.delay("nvmlDeviceGetMemoryInfo*", 3_600_000, 0);
    let waiting = async {
        let answer = node.kubelet.prepare(&slow).await;
        (answer, node.gpus.state().delays.is_empty())
    };
    let others = async {
        node.api.until_requested(Verb::Get, Resource::ResourceClaims, asked + 1).await;
        for _ in 0..2 {
            node.kubelet.prepare(&fast).await.unwrap();
            node.kubelet.unprepare(&fast).await.unwrap();
        }
        node.gpus.heal();
    };
    let ((answer, was_healed), ()) = tokio::join!(waiting, others);
    assert_eq!(node.own_nodes(&answer.unwrap()), [node.gpus.node(0)].into());
    assert!(was_healed, "the slow GPU answered only then");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_refuses() {
    let node = Node::new("t4:1");
    let _plugin = node.start(Mode::InProcess).await;
    let claim = NewClaim::of("c", &node.gpus.name(0)).create(&node.api);
    for (code, reason) in [(500, "InternalError"), (403, "Forbidden")] {
        node.api.refuse(Some((code, reason)));
        refused(&node, &claim, &["default/c", "API server", reason]).await;
    }
    node.api.refuse(None);
    until_prepared(&node, &claim).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_driver_is_never_handed_to_a_container() {
    let node = Node::new("h100:2");
    let cut = node.gpus.cut(1, "1g.10gb");
    let _plugin = node.start(Mode::InProcess).await;
    let devices = [("whole", node.gpus.name(0)), ("part", cut)];
    let claims = devices.map(|(name, device)| NewClaim::of(name, &device).create(&node.api));
    let nodes = node.gpus.state().gpus.iter().map(|gpu| format!("dev/nvidia{}", gpu.minor)).collect::<Vec<_>>();
    for (path, claim) in [
        (nodes[0].as_str(), &claims[0]),
        (nodes[1].as_str(), &claims[1]),
        ("dev/nvidiactl", &claims[0]),
        ("dev/nvidia-uvm", &claims[0]),
        ("usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05", &claims[0]),
    ] {
        let (path, away) = (node.gpus.dir().join(path), node.dir().join("away"));
        fs::rename(&path, &away).unwrap();
        let file_name = path.file_name().unwrap().to_string_lossy();
        // Without its version, which is what names the file for people.
        let name = file_name.split(".580").next().unwrap();
        refused(&node, claim, &[name]).await;
        assert_eq!(node.leftovers(), [].into());
        fs::rename(&away, &path).unwrap();
        until_prepared(&node, claim).await;
        node.kubelet.unprepare(claim).await.unwrap();
    }
}
