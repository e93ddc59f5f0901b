// SPDX-License-Identifier: Apache-2.0
//! A cluster, and what cases ask it.

use dra_cluster::{Cluster, ClusterOptions, Node, NodeOptions};
use dra_demo::{
    Repository, Stage, driver,
    published::{self, Pool},
    scenes,
    settings::{self, GpuSetting},
    text,
};
use serde_json::Value;
use std::{collections::BTreeMap, error::Error, fs, iter, process::Command, time::Duration};

/// How long anything may take that takes seconds.
pub(crate) const WAIT_TIMEOUT: Duration = Duration::from_mins(1);
/// Labels of the driver's pods.
pub(crate) const DRIVER_PODS: &str = "app.kubernetes.io/component=kubelet-plugin";

/// A cluster with the driver: `node-1` has eight H100, `node-2` two A100 and two T4.
pub(crate) struct Arena {
    pub(crate) cluster: Cluster,
    pub(crate) repository: Repository,
}

impl Arena {
    pub(crate) fn set_up() -> Self {
        let repository = checked(Repository::find());
        let gpu_sim = Some(checked(repository.program_path("gpu-sim")));
        let nodes = ["h100:8", "a100-40:2,t4:2"].map(|gpus| NodeOptions { gpus: Some(gpus.to_owned()) });
        let cluster = checked(Cluster::start(&ClusterOptions {
            name: None,
            nodes: nodes.into(),
            gpu_sim,
            ..ClusterOptions::default()
        }));
        checked(driver::build_image(&cluster, &repository));
        checked(driver::install(&cluster, &repository));
        Self { cluster, repository }
    }

    pub(crate) fn tear_down(self) {
        checked(self.cluster.stop());
    }

    pub(crate) fn stage(&self) -> Stage<'_> {
        Stage { cluster: &self.cluster, repository: &self.repository }
    }

    pub(crate) fn node(&self, name: &str) -> &Node {
        checked(self.cluster.node(name))
    }

    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        checked(self.cluster.kubectl(args))
    }

    pub(crate) fn apply(&self, documents: &str) {
        checked(self.cluster.apply(documents));
    }

    /// The items of `kubectl get`.
    pub(crate) fn list(&self, what: &[&str]) -> Vec<Value> {
        let list: Value = serde_json::from_str(&self.kubectl(&[&["get", "-o", "json"], what].concat())).unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    pub(crate) fn pools(&self) -> BTreeMap<String, Pool> {
        checked(published::pools(&self.cluster))
    }

    /// Asks until there is an answer.
    pub(crate) fn until<T>(&self, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
        checked(self.cluster.wait_until(what, WAIT_TIMEOUT, || Ok(probe())))
    }

    /// The pod of the driver on a node that is not on its way out.
    pub(crate) fn driver_pod(&self, node: &str) -> Value {
        let field = format!("spec.nodeName={node}");
        let pods = self.list(&["pods", "-n", driver::NAMESPACE, "-l", DRIVER_PODS, "--field-selector", &field]);
        pods.into_iter().find(|pod| pod.pointer("/metadata/deletionTimestamp").is_none()).expect("a driver pod")
    }

    /// The log of a container of the driver on a node with those of its former runs, read without the kubelet.
    pub(crate) fn driver_log(&self, node: &str, container: &str) -> String {
        let uid = text(&self.driver_pod(node), "/metadata/uid").to_owned();
        checked(self.node(node).shell(&format!("cat /var/log/pods/*_{uid}/{container}/*.log")))
    }

    /// Waits until the pods with this label are as many and all ready, and returns them.
    pub(crate) fn ready_pods(&self, label: &str, count: usize) -> Vec<Value> {
        self.until(&format!("{count} ready pods {label}"), || {
            let pods = self.list(&["pods", "-l", label]);
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            (ready == count && pods.len() == count).then_some(pods)
        })
    }

    /// How the GPUs of a node are set, as its nvidia-smi reports.
    pub(crate) fn settings(&self, node: &str) -> Vec<GpuSetting> {
        checked(settings::of_node(&self.cluster, node))
    }

    /// How the GPU of this index is set.
    pub(crate) fn setting(&self, node: &str, gpu: &str) -> GpuSetting {
        self.settings(node).into_iter().find(|setting| setting.index == gpu).expect("the GPU")
    }

    /// Sets a GPU as its administrator would.
    pub(crate) fn set(&self, node: &str, gpu: &str, compute_mode: &str, interval: u32) {
        checked(self.node(node).nvidia_smi(&["-i", gpu, "-c", compute_mode]));
        let interval = interval.to_string();
        checked(self.node(node).nvidia_smi(&["compute-policy", "-i", gpu, "--set-timeslice", &interval]));
    }

    /// The names of a node's files in a directory, sorted.
    pub(crate) fn files(&self, node: &str, dir: &str) -> Vec<String> {
        let found = checked(self.node(node).shell(&format!("[ ! -d {dir} ] || find {dir} -mindepth 1 ! -type d")));
        let mut names: Vec<_> = found.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Takes the API server away from the pods of a node, the driver's among them. The node itself still talks.
    pub(crate) fn cut_off(&self, node: &str) {
        let rules = "add table ip away; add chain ip away out { type filter hook forward priority -150; policy drop; }";
        checked(self.node(node).shell(&format!("nft '{rules}'")));
    }

    /// Restores it.
    pub(crate) fn reconnect(&self, node: &str) {
        checked(self.node(node).shell("nft delete table ip away"));
    }

    /// Cuts two GPUs of `node-1` into MIG devices, unless they are.
    pub(crate) fn ensure_mig(&self) {
        if self.pools()["node-1"].of_kind("mig").count() == 0 {
            checked(scenes::cut_into_mig(&self.stage()));
        }
    }

    /// Removes what a failed case left, so that the next one says something of its own.
    pub(crate) fn clean_up(&self) {
        for kinds in ["deployments,pods", "resourceclaims,resourceclaimtemplates"] {
            self.cluster.kubectl(&["delete", kinds, "--all", "--timeout=60s"]).ok();
        }
        let drained = ["delete", "devicetaintrules", "-l", "app.kubernetes.io/managed-by=kubectl-gpu"];
        self.cluster.kubectl(&drained).ok();
        self.cluster.kubectl(&["delete", "nodes", "-l", "paper"]).ok();
        for node in self.cluster.nodes() {
            node.gpu_sim("heal", &[]).ok();
            node.shell("nft delete table ip away 2>/dev/null || :").ok();
        }
    }

    /// Keeps what explains a failed case in a directory with its name.
    pub(crate) fn keep_logs(&self, case: &str) {
        let target_dir = self.repository.workload_path("../../target/e2e").join(case);
        fs::remove_dir_all(&target_dir).ok();
        fs::create_dir_all(&target_dir).unwrap();
        Command::new("cp").arg("-r").arg(self.cluster.logs_dir()).arg(&target_dir).status().unwrap();
        let log = ["logs", "-n", driver::NAMESPACE, "-l", DRIVER_PODS, "--all-containers", "--prefix", "--tail=-1"];
        for (name, args) in [
            ("driver.log", &log[..]),
            ("events.txt", &["get", "events", "-A", "--sort-by=.lastTimestamp"]),
            ("pods.txt", &["describe", "pods", "-A"]),
            ("slices.yaml", &["get", "resourceslices", "-o", "yaml"]),
            ("claims.yaml", &["get", "resourceclaims", "-A", "-o", "yaml"]),
        ] {
            fs::write(target_dir.join(name), self.cluster.kubectl(args).unwrap_or_default()).unwrap();
        }
        println!("the logs are in target/e2e/{case}");
    }
}

/// The value, or a panic with the whole chain of causes.
pub(crate) fn checked<T, E: Error + 'static>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| {
        let first: &dyn Error = &error;
        let causes = iter::successors(Some(first), |&error| error.source());
        let causes: Vec<_> = causes.map(ToString::to_string).collect();
        panic!("{}", causes.join(": "))
    })
}

/// A directory of the driver's state on a node.
pub(crate) fn state_dir(name: &str) -> String {
    format!("/var/lib/kubelet/plugins/{}/{name}", published::DRIVER)
}

/// Whether Kubernetes calls a pod ready.
pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    let ready = |condition: &Value| text(condition, "/type") == "Ready" && text(condition, "/status") == "True";
    conditions.into_iter().flatten().any(ready)
}
