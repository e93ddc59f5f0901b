// SPDX-License-Identifier: Apache-2.0
//! What `/metrics` shows of GPUs, MIG devices and claims when it is read.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::fs;

use dra_sim::state::{Load, MemoryErrors, NvLinkFaults, Process};
use dra_tests::program::Program;
use dra_tests::{Mode, MpsHost, NewClaim, Node};
use serde_json::json;

const POD_UID: &str = "0d8a9a4f-5b1c-4a57-9d0c-3f4a1b2c3d4e";

/// Waits until the metrics have all of these lines, and returns them.
async fn until_lines(plugin: &Program, lines: &[String]) -> String {
    let has_all = |_, body: &str| {
        let has = |wanted: &String| body.lines().any(|line| line.strip_prefix("gpu_dra_") == Some(wanted.as_str()));
        lines.iter().all(has).then(|| body.to_owned())
    };
    plugin.until_http("/metrics", has_all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn gpus_show_their_load_and_their_errors() {
    let node = Node::new("h100:2,t4:1");
    let plugin = node.start(Mode::Process).await;
    let [loaded, idle, old] = [0, 1, 2].map(|gpu| node.gpus.name(gpu));
    node.gpus.change(|state| {
        state.gpus[0].load = Load { utilization: 50, memory_mib: 1024, throttle: 0x24, ..Load::default() };
        let errors = MemoryErrors { corrected: 7, rows_uncorrected: 2, remap_failed: true, ..MemoryErrors::default() };
        state.gpus[0].memory_errors = errors;
        state.gpus[0].nvlink_faults = NvLinkFaults { down: 2, crc_errors: 5, replays: 6, recoveries: 7 };
        Ok(())
    });
    let body = until_lines(
        &plugin,
        &[
            format!("gpu_utilization_ratio{{device=\"{loaded}\"}} 0.5"),
            format!("gpu_utilization_ratio{{device=\"{idle}\"}} 0.0"),
            format!("gpu_memory_used_bytes{{device=\"{loaded}\"}} 1073741824.0"),
            format!("gpu_temperature_celsius{{device=\"{loaded}\"}} 52.0"),
            format!("gpu_power_limit_watts{{device=\"{idle}\"}} 700.0"),
            format!("gpu_clock_hertz{{device=\"{loaded}\",clock=\"sm\"}} 1980000000.0"),
            format!("gpu_clock_throttled{{device=\"{loaded}\",reason=\"power_cap\"}} 1.0"),
            format!("gpu_clock_throttled{{device=\"{loaded}\",reason=\"sw_thermal\"}} 1.0"),
            format!("gpu_clock_throttled{{device=\"{loaded}\",reason=\"hw_thermal\"}} 0.0"),
            format!("gpu_ecc_errors_total{{device=\"{loaded}\",type=\"corrected\"}} 7.0"),
            format!("gpu_remapped_rows{{device=\"{loaded}\",type=\"uncorrected\"}} 2.0"),
            format!("gpu_row_remap_failed{{device=\"{loaded}\"}} 1.0"),
            format!("gpu_row_remap_failed{{device=\"{idle}\"}} 0.0"),
            format!("gpu_nvlinks{{device=\"{loaded}\",state=\"up\"}} 16.0"),
            format!("gpu_nvlinks{{device=\"{loaded}\",state=\"down\"}} 2.0"),
            format!("gpu_nvlinks{{device=\"{idle}\",state=\"down\"}} 0.0"),
            format!("gpu_nvlink_errors_total{{device=\"{loaded}\",type=\"crc\"}} 5.0"),
            format!("gpu_nvlink_errors_total{{device=\"{loaded}\",type=\"replay\"}} 6.0"),
            format!("gpu_nvlink_errors_total{{device=\"{loaded}\",type=\"recovery\"}} 7.0"),
            format!("gpu_memory_total_bytes{{device=\"{old}\"}} 16106127360.0"),
        ],
    )
    .await;
    assert!(!body.contains(&format!("gpu_nvlinks{{device=\"{old}\"")), "a T4 has no NVLink");
    let uuid = &node.gpus.state().gpus[2].uuid;
    assert!(
        body.contains(&format!("gpu_dra_gpu_info{{device=\"{old}\",gpu_uuid=\"{uuid}\",product=\"Tesla T4\"")),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_hangs_hides_no_other() {
    let node = Node::new("h100:2");
    let plugin = node.start(Mode::Process).await;
    let [hanging, other] = [0, 1].map(|gpu| node.gpus.name(gpu));
    let temperature = |gpu: &str| format!("gpu_temperature_celsius{{device=\"{gpu}\"}} 32.0");
    until_lines(&plugin, &[temperature(&hanging), temperature(&other)]).await;
    node.gpus.delay("nvmlDeviceGetTemperature", 600_000, 0);
    let only_other =
        |_, body: &str| (body.contains(&temperature(&other)) && !body.contains(&temperature(&hanging))).then_some(());
    plugin.until_http("/metrics", only_other).await;
}

/// A node with a process 4711 of the pod `default/train-0`, and a MIG device on the second GPU.
fn node_with_a_pod() -> (Node, String) {
    let mut node = Node::new("h100:3");
    let (processes, logs) = (node.dir().join("host-proc"), node.dir().join("pod-logs"));
    fs::create_dir_all(processes.join("4711")).unwrap();
    fs::write(processes.join("4711/cgroup"), format!("0::/kubepods/pod{POD_UID}/a")).unwrap();
    fs::create_dir_all(logs.join(format!("default_train-0_{POD_UID}"))).unwrap();
    node.flags = vec![format!("--host-proc={}", processes.display()), format!("--pod-logs={}", logs.display())];
    let cut = node.gpus.cut(1, "1g.10gb");
    node.gpus.change(|state| {
        let process = |gpu_instance, mib| Process { pid: 4711, gpu_instance, memory_mib: Some(mib) };
        let instance = state.gpus[1].instances.keys().next().copied();
        state.gpus[0].processes.push(process(None, 512));
        state.gpus[1].processes.push(process(instance, 256));
        Ok(())
    });
    (node, cut)
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_counted_for_their_pods_and_mig_devices() {
    let (mut node, cut) = node_with_a_pod();
    let [first, second] = [0, 1].map(|gpu| node.gpus.name(gpu));
    let of_mig = format!("mig_memory_used_bytes{{device=\"{cut}\",gpu=\"{second}\"}} 268435456.0");
    let of_pod = |gpu: &str, bytes: u64| {
        format!("pod_memory_used_bytes{{namespace=\"default\",pod=\"train-0\",gpu=\"{gpu}\"}} {bytes}.0")
    };
    let mut plugin = node.start(Mode::Process).await;
    let claim = NewClaim::of("a", &first).create(&node.api);
    node.kubelet.prepare(&claim).await.unwrap();
    until_lines(&plugin, &[of_mig.clone(), of_pod(&first, 512 << 20), of_pod(&second, 256 << 20)]).await;

    plugin.kill().await;
    node.flags.push("--claim-metrics=false".to_owned());
    let plugin = node.start(Mode::Process).await;
    let body = until_lines(&plugin, &[of_mig]).await;
    assert!(!body.contains("namespace=") && !body.contains("pod="), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_and_their_pods_join_the_series_of_their_devices() {
    let (node, cut) = node_with_a_pod();
    let _host = MpsHost::start(&node.mps_root());
    let plugin = node.start(Mode::Process).await;
    let [first, second, third] = [0, 1, 2].map(|gpu| node.gpus.name(gpu));
    let share = json!({
        "request": "r", "driver": "gpu.nvidia.com", "pool": "node-1", "device": format!("{third}-mps"), "shareID": "s-1",
        "consumedCapacity": {"memory": "1Gi", "activeThreadPercentage": "10"},
    });
    let whole = NewClaim::of("whole", &first).pod("train-0", POD_UID).create(&node.api);
    let part = NewClaim::of("part", &cut).create(&node.api);
    let shared = NewClaim::new("shared").result(share).create(&node.api);
    for claim in [&whole, &part, &shared] {
        node.kubelet.prepare(claim).await.unwrap();
    }
    let of_share = "namespace=\"default\",claim=\"shared\",request=\"r\"";
    let limit = format!(
        "claim_memory_limit_bytes{{{of_share},device=\"{third}-mps\",share_id=\"s-1\",gpu=\"{third}\"}} 1073741824.0"
    );
    let of_claim = format!("namespace=\"default\",claim=\"whole\",claim_uid=\"{}\"", whole.uid);
    let pod = format!("claim_pod_info{{{of_claim},pod=\"train-0\",pod_uid=\"{POD_UID}\"}} 1.0");
    let body = until_lines(&plugin, &[limit, pod]).await;
    let state = node.gpus.state();
    let uuid = |gpu: usize| &state.gpus[gpu].uuid;
    for (claim, device, rest) in [
        (
            "whole",
            first.clone(),
            format!("form=\"gpu\",gpu_uuid=\"{}\",mig_uuid=\"\",gpu_instance=\"\",profile=\"\"", uuid(0)),
        ),
        ("part", cut, format!("form=\"mig\",gpu_uuid=\"{}\",mig_uuid=\"MIG-", uuid(1))),
        ("shared", format!("{third}-mps"), format!("form=\"mps\",gpu_uuid=\"{}\"", uuid(2))),
    ] {
        let start = format!("gpu_dra_claim_device_info{{namespace=\"default\",claim=\"{claim}\",");
        let is_it = |line: &str| {
            line.starts_with(&start) && line.contains(&format!("device=\"{device}\"")) && line.contains(&rest)
        };
        assert!(body.lines().any(is_it), "{start} {device} {rest}: {body}");
    }
    assert!(body.contains(&format!("gpu=\"{second}\"")) && body.contains("profile=\"1g.10gb\""), "{body}");

    node.kubelet.unprepare(&whole).await.unwrap();
    plugin.until_http("/metrics", |_, body| (!body.contains("claim=\"whole\"")).then_some(())).await;
}
