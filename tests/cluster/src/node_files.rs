// SPDX-License-Identifier: Apache-2.0
//! The files of a node's own `/etc`: configuration of kubelet, kube-proxy, containerd and CNI.
//!
//! Paths in them are those that programs inside the node see.

use crate::{
    certificates::{Authority, Subject},
    command, control_plane,
    error::{ClusterError, Result},
    files, kubeconfig,
    network::{Subnet, pod_subnet},
    programs::Programs,
};
use serde_json::{Value, json};
use std::{path::Path, process::Command};

/// The state directory of the simulated driver, on the node and in containers.
const SIMULATOR_STATE_DIR: &str = "/var/lib/gpu-sim";
/// Where a node's driver root is bound.
const DRIVER_ROOT: &str = "/run/nvidia/driver";
/// What is taken over from the machine's `/etc`: what its programs need to start.
const TAKEN_OVER: [&str; 10] = [
    "alternatives",
    "group",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "nsswitch.conf",
    "passwd",
    "protocols",
    "services",
    "ssl/certs",
];

/// A node as its files know it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeFacts<'a> {
    pub name: &'a str,
    pub number: usize,
    pub subnet: Subnet,
    pub has_gpus: bool,
}

/// Lays out a node's directory: `etc`, `var-lib`, `var-log`, `opt`, `dev`, `bin`.
pub(crate) fn write(node_dir: &Path, node: NodeFacts<'_>, authority: &Authority, programs: &Programs) -> Result<()> {
    for name in ["bin", "var-lib/kubelet", "var-lib/containerd", "var-log", "opt", "dev", "etc/cdi"] {
        files::make_dir(&node_dir.join(name))?;
    }
    let etc_dir = node_dir.join("etc");
    take_over(&etc_dir)?;
    files::write(&etc_dir.join("hostname"), format!("{}\n", node.name))?;
    files::write(&etc_dir.join("hosts"), format!("127.0.0.1 localhost {}\n", node.name))?;
    files::write(&etc_dir.join("resolv.conf"), "")?;
    write_kubernetes(&etc_dir.join("kubernetes"), node, authority)?;
    let network = pod_network(node).to_string();
    files::write(&etc_dir.join("cni/net.d/10-pods.conflist"), network)?;
    write_containerd(&etc_dir.join("containerd"), node, programs)
}

fn take_over(etc_dir: &Path) -> Result<()> {
    let mut cp = Command::new("cp");
    cp.current_dir("/etc").args(["-a", "--parents"]);
    cp.args(TAKEN_OVER.iter().filter(|name| Path::new("/etc").join(name).exists()));
    command::output(cp.arg(etc_dir)).map(drop)
}

fn write_kubernetes(dir: &Path, node: NodeFacts<'_>, authority: &Authority) -> Result<()> {
    authority.write_certificate(dir)?;
    let user = format!("system:node:{}", node.name);
    let kubelet = Subject {
        user: &user,
        group: Some("system:nodes"),
        names: vec![node.name.to_owned(), node.subnet.node(node.number)],
    };
    authority.issue(dir, "kubelet", &kubelet)?;
    let proxy = Subject { user: "system:kube-proxy", group: None, names: Vec::new() };
    authority.issue(dir, "kube-proxy", &proxy)?;
    let here = Path::new("/etc/kubernetes");
    for name in ["kubelet", "kube-proxy"] {
        let config = kubeconfig::render(
            &control_plane::server(node.subnet),
            &here.join("ca.crt"),
            &here.join(format!("{name}.crt")),
            &here.join(format!("{name}.key")),
        );
        files::write(&dir.join(format!("{name}.kubeconfig")), config.to_string())?;
    }
    files::write(&dir.join("kubelet.json"), kubelet_configuration().to_string())
}

/// Most of this lets a kubelet live beside others on one machine.
fn kubelet_configuration() -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true},
                           "x509": {"clientCAFile": "/etc/kubernetes/ca.crt"}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": "/etc/kubernetes/kubelet.crt",
        "tlsPrivateKeyFile": "/etc/kubernetes/kubelet.key",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "resolvConf": "/etc/resolv.conf",
        "clusterDomain": "cluster.local",
        "clusterDNS": ["10.96.0.10"],
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        // Machines with cgroup v1 and without systemd are served too.
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        // The disk belongs to the whole machine: nothing is evicted for it.
        "evictionHard": {},
        "localStorageCapacityIsolation": false,
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": false,
        "serializeImagePulls": false,
        // Tests wait for these.
        "syncFrequency": "5s",
        "volumeStatsAggPeriod": "-1s",
        "crashLoopBackOff": {"maxContainerRestartPeriod": "5s"},
    })
}

/// Point-to-point links instead of a bridge: all traffic of pods crosses the
/// node's own network layer, where services are translated, also without br_netfilter.
fn pod_network(node: NodeFacts<'_>) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": pod_subnet(node.number)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

fn write_containerd(dir: &Path, node: NodeFacts<'_>, programs: &Programs) -> Result<()> {
    if node.has_gpus {
        let spec = base_runtime_spec(programs)?;
        files::write(&dir.join("base-spec.json"), spec.to_string())?;
    }
    files::write(&dir.join("config.toml"), containerd_configuration(node.has_gpus))
}

/// The runtime's default container, with the simulated kernel driver's state.
///
/// A real driver's state is in the kernel, which containers share with their
/// node. The state of the simulated driver is in a directory, so that directory is
/// mounted read-only in every container of the node, with or without a GPU. It gives
/// no access to a device, which needs the device node.
fn base_runtime_spec(programs: &Programs) -> Result<Value> {
    let text = command::output(Command::new(programs.path("ctr")).args(["oci", "spec"]))?;
    let mut spec: Value = serde_json::from_str(&text)
        .map_err(|source| ClusterError::Json { what: "the answer of `ctr oci spec`".to_owned(), source })?;
    // Limits of `ctr`, which CRI does not set and a user namespace may not.
    if let Some(process) = spec.get_mut("process").and_then(Value::as_object_mut) {
        process.remove("rlimits");
    }
    if let Some(mounts) = spec.get_mut("mounts").and_then(Value::as_array_mut) {
        mounts.push(json!({
            "destination": SIMULATOR_STATE_DIR,
            "type": "bind",
            "source": format!("{DRIVER_ROOT}{SIMULATOR_STATE_DIR}"),
            "options": ["bind", "ro"],
        }));
    }
    Ok(spec)
}

fn containerd_configuration(has_gpus: bool) -> String {
    let base_spec = if has_gpus { "base_runtime_spec = '/etc/containerd/base-spec.json'" } else { "" };
    format!(
        "version = 3
root = '/var/lib/containerd'
state = '/run/containerd'
disabled_plugins = ['io.containerd.nri.v1.nri']

[grpc]
address = '/run/containerd/containerd.sock'

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{sandbox}'

[plugins.'io.containerd.cri.v1.runtime']
enable_cdi = true
cdi_spec_dirs = ['/etc/cdi', '/var/run/cdi']
# Where CAP_SYS_RESOURCE is missing no process may lower its score.
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['/usr/lib/cni']
conf_dir = '/etc/cni/net.d'

[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
{base_spec}

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '/run/cluster/bin/runc'
SystemdCgroup = false
",
        sandbox = crate::images::PAUSE_NAME,
    )
}
