// SPDX-License-Identifier: Apache-2.0
//! The MPS daemon of a GPU that failed: it ends, its claim says why, and it starts again with the GPU. With the real MPS host and
//! NVIDIA's own control program.

use std::fs;
use std::process::{Command, Stdio};

use dra_tests::api_server::Resource;
use dra_tests::chart::cache_dir;
use dra_tests::program::Program;
use dra_tests::programs::built;
use dra_tests::wait::until;
use dra_tests::{Mode, NewClaim, Node};
use serde_json::{Value, json};

/// The MPS host of a node, whose daemons do not outlive the test.
struct MpsHost {
    program: Program,
    flags: Vec<String>,
}

impl MpsHost {
    async fn start(node: &Node) -> Self {
        let installed = node.gpus.install_programs(&cache_dir().join("nvidia"));
        assert!(installed.contains(&"nvidia-cuda-mps-control"), "run `make setup` first");
        let (root, driver_root) = (node.mps_root(), node.gpus.dir().display());
        let flags = vec![format!("--root={}", root.display()), format!("--driver-root={driver_root}")];
        let host = Self { program: Program::mps_host(flags.clone(), node.dir()), flags };
        let socket_path = root.join("host.sock");
        until("the MPS host listens", || socket_path.exists().then_some(())).await;
        host
    }

    async fn until_metric(&self, line: &str) {
        self.program.until_http("/metrics", |_, body| body.contains(&format!("{line}\n")).then_some(())).await;
    }
}

impl Drop for MpsHost {
    fn drop(&mut self) {
        self.program.kill_now();
        let mut remove = Command::new(built("gpu-mps-host"));
        remove.args(&self.flags).args(["--remove", "--http-address=127.0.0.1:0"]);
        remove.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    }
}

/// The processes of the daemon of a claim.
fn processes(node: &Node, uid: &str) -> Vec<u32> {
    let pipe = format!("CUDA_MPS_PIPE_DIRECTORY={}", node.mps_root().join(format!("claim-{uid}-0/run/pipe")).display());
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let uses = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == pipe.as_bytes())
    };
    pids.filter(uses).collect()
}

/// Waits until the condition `MPSReady` of a claim has this reason, and returns its message.
async fn until_mps_ready(node: &Node, claim: &str, reason: &str) -> String {
    let published = |claims: &[Value]| {
        let claim = claims.iter().find(|object| object["metadata"]["name"] == claim)?;
        let conditions = claim["status"]["devices"][0]["conditions"].as_array()?;
        let found = conditions.iter().find(|one| one["type"] == "MPSReady" && one["reason"] == reason)?;
        Some(found["message"].as_str().unwrap_or_default().to_owned())
    };
    node.api.until(&format!("MPSReady of claim {claim} is {reason}"), Resource::ResourceClaims, published).await
}

async fn until_event(node: &Node, claim: &str, reason: &str) -> String {
    let recorded = |events: &[Value]| {
        let is_wanted = |event: &&Value| event["regarding"]["name"] == claim && event["reason"] == reason;
        Some(events.iter().find(is_wanted)?["note"].as_str().unwrap_or_default().to_owned())
    };
    node.api.until(&format!("the Event {reason} on claim {claim}"), Resource::Events, recorded).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mps_daemon_of_a_gpu_that_falls_off_the_bus_ends_with_a_reason_and_starts_again_with_the_gpu() {
    let mut node = Node::new("t4:2");
    node.flags = vec!["--health-poll-seconds=1".to_owned()];
    let host = MpsHost::start(&node).await;
    let mut plugin = node.start(Mode::Process).await;
    let mps = json!({
        "apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig", "sharing": {"strategy": "MPS"},
    });
    let claims = [("failed", 0), ("well", 1)].map(|(name, gpu)| {
        let claim = NewClaim::of(name, &node.gpus.name(gpu)).config(&mps);
        claim.create(&node.api)
    });
    for claim in &claims {
        node.kubelet.prepare(claim).await.unwrap();
        until_mps_ready(&node, &claim.name, "MPSDaemonReady").await;
    }
    let [failed, well] = &claims;
    let running = processes(&node, &well.uid);
    assert_eq!((processes(&node, &failed.uid).len(), running.len()), (1, 1));

    node.gpus.change(|state| state.lose_gpu(0));
    let message = until_mps_ready(&node, "failed", "MPSDaemonEnded").await;
    let uuid = node.gpus.state().gpus[0].uuid.clone();
    let expect = format!(
        "MPS daemon claim-{}-0 was ended because {uuid} fell off the bus (XID 79); it starts again when the GPU is well and the processes that used it have ended",
        failed.uid
    );
    assert_eq!(message, expect);
    assert_eq!(until_event(&node, "failed", "MPSDaemonEnded").await, expect);
    assert!(processes(&node, &failed.uid).is_empty());
    host.until_metric("gpu_dra_mps_daemons_ended_total 1").await;

    // A restart of the plugin, which has no findings at first, starts no daemon.
    plugin.kill().await;
    let _plugin = node.start(Mode::Process).await;
    let connected = |events: &[Value]| {
        let ended = events.iter().filter(|event| event["reason"] == "MPSDaemonEnded");
        let count = |event: &Value| event["series"]["count"].as_u64().unwrap_or(1);
        (ended.map(count).sum::<u64>() >= 2).then_some(())
    };
    node.api.until("the plugin is connected again", Resource::Events, connected).await;
    assert!(processes(&node, &failed.uid).is_empty());

    node.gpus.change(|state| {
        state.gpus[0].lost = false;
        Ok(())
    });
    let message = until_mps_ready(&node, "failed", "MPSDaemonReady").await;
    assert!(message.ends_with("accepts clients; restarted once"), "{message}");
    assert_eq!(processes(&node, &failed.uid).len(), 1);
    host.until_metric("gpu_dra_mps_daemon_starts_total{result=\"success\"} 3").await;
    node.kubelet.prepare(failed).await.unwrap();
    assert_eq!(processes(&node, &well.uid), running, "the daemon of another GPU runs on");
    for claim in &claims {
        node.kubelet.unprepare(claim).await.unwrap();
        assert!(processes(&node, &claim.uid).is_empty());
    }
}
