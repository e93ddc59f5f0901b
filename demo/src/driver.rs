// SPDX-License-Identifier: Apache-2.0
//! Installs the driver on the cluster: image, chart, DaemonSets.

use crate::{
    error::{DemoError, Doing, Result},
    published::{self, Pool},
    repository::Repository,
};
use dra_cluster::{Cluster, Image};
use std::{collections::BTreeMap, fs, time::Duration};

/// Namespace of the release.
pub const NAMESPACE: &str = "gpu-dra-driver";
/// Name of the release, its DaemonSet and its service account.
pub const RELEASE: &str = "gpu-dra-driver";

/// The image of the driver on the nodes of a cluster.
pub const IMAGE: &str = concat!("localhost/gpu-dra-driver:", env!("CARGO_PKG_VERSION"));
/// The programs that the Containerfile copies.
const PROGRAMS: [&str; 6] =
    ["gpu-kubelet-plugin", "gpu-mps-host", "gpu-controller", "gpu-explain", "gpu-import", "gpu-cdi-hook"];
/// A simulated node has its driver root at the path of a driver container.
const SETTINGS: [&str; 5] = [
    "driver.root=/run/nvidia/driver",
    "driver.procRoot=/run/nvidia/driver/proc",
    "driver.sysRoot=/run/nvidia/driver/sys",
    "tests.claim.enabled=true",
    "deviceClasses.mig.models={h100-80gb}",
];
const LIMIT: Duration = Duration::from_mins(2);

/// Builds the image from the released programs and loads it on every node.
pub fn build_image(cluster: &Cluster, repository: &Repository) -> Result<Image> {
    let context_dir = cluster.dir().join("image");
    fs::create_dir_all(&context_dir).map_err(file_error("create directory", &context_dir))?;
    for name in PROGRAMS {
        let program_path = repository.program_path(name)?;
        fs::copy(&program_path, context_dir.join(name)).map_err(file_error("copy", &program_path))?;
    }
    let image = dra_cluster::build_image(IMAGE, &repository.containerfile_path(), &context_dir, &cluster.dir())
        .doing("build the driver's image")?;
    cluster.load_image(&image).doing("load the driver's image on the nodes")?;
    Ok(image)
}

/// Installs the chart and waits until every node has published its devices and has its MPS host.
pub fn install(cluster: &Cluster, repository: &Repository) -> Result<BTreeMap<String, Pool>> {
    helm(cluster, repository, "install", &["--create-namespace"])?;
    wait_for_pods(cluster)?;
    wait_for_mps_hosts(cluster)?;
    wait_for_pools(cluster)
}

/// Upgrades the release with further arguments for Helm, such as `--values FILE`, and returns at once.
pub fn upgrade(cluster: &Cluster, repository: &Repository, further: &[&str]) -> Result<()> {
    helm(cluster, repository, "upgrade", further)
}

/// Uninstalls the release and waits for its hooks.
pub fn uninstall(cluster: &Cluster) -> Result<()> {
    let args = ["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "120s"];
    cluster.helm(&args).map(drop).doing("uninstall the chart")
}

/// Waits until the newest pods of the DaemonSet are ready and older ones are deleted.
pub fn wait_for_pods(cluster: &Cluster) -> Result<()> {
    let daemon_set = format!("daemonset/{RELEASE}");
    let args = ["rollout", "status", &daemon_set, "--namespace", NAMESPACE, "--timeout=120s"];
    cluster.kubectl(&args).map(drop).doing("wait for the driver's pods")
}

/// Waits until every node has a ready MPS host. `kubectl rollout status` does not support the update strategy OnDelete.
pub fn wait_for_mps_hosts(cluster: &Cluster) -> Result<()> {
    let daemon_set = format!("daemonset/{RELEASE}-mps");
    let ready = || {
        let counts = "jsonpath={.status.numberReady} {.status.desiredNumberScheduled}";
        let counts = cluster.kubectl(&["get", &daemon_set, "--namespace", NAMESPACE, "-o", counts])?;
        let nodes = cluster.nodes().len().to_string();
        Ok((counts == format!("{nodes} {nodes}")).then_some(()))
    };
    cluster.wait_until("an MPS host on every node", LIMIT, ready).doing("wait for the MPS hosts")
}

/// Waits until the pools of all nodes are complete.
pub fn wait_for_pools(cluster: &Cluster) -> Result<BTreeMap<String, Pool>> {
    let complete = || {
        let pools = published::pools(cluster)?;
        let all = cluster.nodes().iter().all(|node| pools.get(node.name()).is_some_and(Pool::is_complete));
        Ok(all.then_some(pools))
    };
    cluster.wait_until("the slices of all nodes", LIMIT, complete).doing("wait for the devices")
}

fn helm(cluster: &Cluster, repository: &Repository, verb: &str, further: &[&str]) -> Result<()> {
    let chart_dir = repository.chart_dir().display().to_string();
    let mut args = vec![verb, RELEASE, &chart_dir, "--namespace", NAMESPACE];
    args.extend(SETTINGS.iter().flat_map(|setting| ["--set", setting]));
    args.extend(further);
    cluster.helm(&args).map(drop).doing(format!("{verb} the chart"))
}

fn file_error(operation: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> DemoError {
    let path = path.to_owned();
    move |source| DemoError::File { operation, path, source }
}
