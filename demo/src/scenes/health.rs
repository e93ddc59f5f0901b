// SPDX-License-Identifier: Apache-2.0
//! A GPU that fails under a pod, and comes back.

use crate::{
    error::{DemoError, Doing, Result},
    published,
    stage::{PodSaw, Stage, list, text},
};
use serde_json::Value;
use std::{
    fmt,
    time::{Duration, Instant},
};

const FILE: &str = "gpu-fails.yaml";
const APP: &str = "gpu-fails";
const NODE: &str = "node-1";
const LIMIT: Duration = Duration::from_mins(2);

/// The pods of a Deployment before and after one of their GPUs fell off the bus.
#[derive(Debug, Clone)]
pub struct GpuFails {
    pub before: Vec<PodSaw>,
    /// UUID of the GPU that fails, which the first pod has.
    pub failed: String,
    /// The taints of the GPU, and the time from the failure to their publication.
    pub taints: Vec<String>,
    pub tainted_after: Duration,
    /// The pod that replaced the first, and the time from the failure until it runs.
    pub moved: PodSaw,
    pub moved_after: Duration,
    /// Reason and text of the Events about it.
    pub events: Vec<(String, String)>,
    /// The time from the reset of the GPU until claims get it again.
    pub back_after: Duration,
}

impl fmt::Display for GpuFails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.before.iter().try_for_each(|pod| writeln!(f, "{pod}"))?;
        writeln!(
            f,
            "{} falls off the bus. After {} ms its slice has the taints",
            self.failed,
            self.tainted_after.as_millis()
        )?;
        self.taints.iter().try_for_each(|taint| writeln!(f, "  {taint}"))?;
        writeln!(f, "$ kubectl get events")?;
        self.events.iter().try_for_each(|(reason, message)| writeln!(f, "  {reason}: {message}"))?;
        writeln!(f, "after {} ms {}", self.moved_after.as_millis(), self.moved)?;
        write!(f, "The GPU is reset. {} s later it is proven well, and claims get it again", self.back_after.as_secs())
    }
}

/// Lets a GPU of a Deployment fall off the bus, and resets it.
pub fn gpu_fails(stage: &Stage<'_>) -> Result<GpuFails> {
    stage.with(FILE, || {
        stage.wait_for_deployment(APP)?;
        let before = stage.all_saw(APP)?;
        let (first, failed) = before
            .first()
            .and_then(|pod| Some((pod.pod.clone(), pod.seen.gpus.first()?.uuid.clone())))
            .ok_or_else(|| DemoError::Incomplete { what: "the GPU of a pod", object: APP.to_owned() })?;
        let index = index_of(stage, &failed)?;
        let began = Instant::now();
        gpu_sim(stage, "lose", &index)?;
        let taints = until(stage, "the taint", || {
            let taints = taints_of(stage, &failed)?;
            Ok(taints.iter().any(|taint| taint.ends_with(":NoExecute")).then_some(taints))
        })?;
        let tainted_after = began.elapsed();
        let names: Vec<String> = before.iter().map(|pod| pod.pod.clone()).collect();
        let pod = until(stage, "the pod that replaces the first", || {
            let pods = list(stage.cluster, &["pods", "-l", &format!("app={APP}")])?;
            let is_new = |pod: &&Value| !names.iter().any(|name| name == text(pod, "/metadata/name")) && is_ready(pod);
            Ok(pods.iter().find(is_new).map(|pod| text(pod, "/metadata/name").to_owned()))
        })?;
        let moved_after = began.elapsed();
        let moved = stage.saw(&pod)?;
        let events = events(stage, &first)?;
        let reset = Instant::now();
        gpu_sim(stage, "reset", &index)?;
        until(stage, "the end of the taints", || Ok(taints_of(stage, &failed)?.is_empty().then_some(())))?;
        let back_after = reset.elapsed();
        Ok(GpuFails { before, failed, taints, tainted_after, moved, moved_after, events, back_after })
    })
}

fn until<T>(stage: &Stage<'_>, what: &str, probe: impl FnMut() -> dra_cluster::Result<Option<T>>) -> Result<T> {
    stage.cluster.wait_until(what, LIMIT, probe).doing(format!("wait for {what}"))
}

fn index_of(stage: &Stage<'_>, uuid: &str) -> Result<String> {
    let node = stage.cluster.node(NODE).doing("find the node")?;
    let rows = node.nvidia_smi(&["--query-gpu=index,uuid", "--format=csv,noheader"]).doing("list the GPUs")?;
    let row = rows.lines().find(|row| row.ends_with(uuid)).and_then(|row| row.split(',').next());
    row.map(str::to_owned).ok_or_else(|| DemoError::Incomplete { what: "the index", object: uuid.to_owned() })
}

fn gpu_sim(stage: &Stage<'_>, command: &str, gpu: &str) -> Result<()> {
    let node = stage.cluster.node(NODE).doing("find the node")?;
    node.gpu_sim(command, &["--gpu", gpu]).map(drop).doing(format!("run gpu-sim {command}"))
}

/// The taints of the whole GPU, as `key=value:effect`.
fn taints_of(stage: &Stage<'_>, uuid: &str) -> dra_cluster::Result<Vec<String>> {
    let slices = published::slices(stage.cluster)?;
    let devices = slices.iter().filter_map(|slice| slice.pointer("/spec/devices")?.as_array()).flatten();
    let is_it = |device: &&Value| {
        text(device, "/attributes/type/string") == "gpu" && text(device, "/attributes/uuid/string") == uuid
    };
    let taints = devices.filter(is_it).filter_map(|device| device.get("taints")?.as_array()).flatten();
    let written =
        |taint: &Value| format!("{}={}:{}", text(taint, "/key"), text(taint, "/value"), text(taint, "/effect"));
    let mut taints: Vec<String> = taints.map(written).collect();
    taints.sort();
    taints.dedup();
    Ok(taints)
}

/// The Events about the failure: of the driver on the Node, and of the eviction on the pod.
fn events(stage: &Stage<'_>, pod: &str) -> Result<Vec<(String, String)>> {
    let of = |what: &str, selector: String, namespace: &str| {
        until(stage, what, || {
            let events = list(stage.cluster, &["events", "-n", namespace, "--field-selector", &selector])?;
            Ok(events.last().map(|event| (text(event, "/reason").to_owned(), text(event, "/message").to_owned())))
        })
    };
    let of_driver = of("the Event of the driver", "reason=GpuLost,involvedObject.kind=Node".to_owned(), "default")?;
    let selector = format!("reason=DeviceTaintManagerEviction,involvedObject.name={pod}");
    Ok(vec![of_driver, of("the Event of the eviction", selector, "default")?])
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.into_iter().any(|one| text(one, "/type") == "Ready" && text(one, "/status") == "True")
}
