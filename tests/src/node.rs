// SPDX-License-Identifier: Apache-2.0
//! One node in a temporary directory: simulated GPUs, a kubelet, an API server, and the plugins started on it.
//!
//! ```text
//! <dir>/m            the machine: driver root, dev, proc, sys
//! <dir>/k            the kubelet's root: plugins/<driver>, plugins_registry
//! <dir>/c            CDI specs
//! <dir>/*.log        what processes said
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use dra_proto::node_v1::node_client::NodeClient;
use serde_json::json;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::api_server::{ApiServer, Resource};
use crate::containers::{Container, claim_specs, container};
use crate::kubelet::{self, Device, Kubelet, Service};
use crate::machine::Gpus;
use crate::program::{Mode, Program};

/// Name of the driver under test.
pub const DRIVER: &str = "gpu.nvidia.com";
/// Name of the node, which is also its pool.
pub const NODE: &str = "node-1";

/// A node.
#[derive(Debug)]
pub struct Node {
    /// The simulated machine.
    pub gpus: Gpus,
    pub kubelet: Kubelet,
    /// The API server of its cluster.
    pub api: ApiServer,
    /// Further flags of the plugin.
    pub flags: Vec<String>,
    /// Where the host has the machine, as specs name it.
    pub machine_on_host: PathBuf,
    /// Removed with everything in it.
    dir: TempDir,
}

impl Node {
    /// A node with boards such as `h100:2`, on which nothing runs yet but the kubelet.
    pub fn new(boards: &str) -> Self {
        Self::with_services(boards, &[Service::V1, Service::V1beta1])
    }

    /// The same with a kubelet that knows these services only.
    pub fn with_services(boards: &str, services: &[Service]) -> Self {
        // Short, because socket paths are.
        let dir = tempfile::Builder::new().prefix("n").tempdir().expect("a writable temporary directory");
        for name in ["m", "k/plugins_registry", "c"] {
            fs::create_dir_all(dir.path().join(name)).expect("a writable temporary directory");
        }
        let gpus = Gpus::create(&dir.path().join("m"), boards, NODE);
        let kubelet = Kubelet::with_services(&dir.path().join("k"), services);
        let api = ApiServer::start();
        api.put(Resource::Nodes, "", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}));
        Self { gpus, kubelet, api, flags: Vec::new(), machine_on_host: PathBuf::from("/"), dir }
    }

    /// Starts the plugin and waits until it is registered.
    pub async fn start(&self, mode: Mode) -> Program {
        let before = self.kubelet.registrations();
        let plugin = self.start_instance(mode, "1");
        let registered = |plugins: &[kubelet::Plugin]| plugins.last().filter(|last| last.serial > before).map(drop);
        self.kubelet.until_plugins("the plugin that was started registers", registered).await;
        plugin
    }

    /// Starts the plugin of one pod and does not wait.
    pub fn start_instance(&self, mode: Mode, pod_uid: &str) -> Program {
        Program::plugin(mode, self.flags(pod_uid), self.api.client(), self.dir.path(), pod_uid)
    }

    /// Gives the GPUs back, as an uninstallation does.
    pub fn start_restore(&self) -> Program {
        let flags = [self.flags("restore"), vec!["--restore".to_owned()]].concat();
        Program::plugin(Mode::Process, flags, self.api.client(), self.dir.path(), "restore")
    }

    /// Declares a GPU well as an administrator does in the plugin's container.
    pub async fn clear_health(&self, gpu: &str) -> ExitStatus {
        let flags = [self.flags("clear"), vec![format!("--clear-health={gpu}")]].concat();
        Program::plugin(Mode::Process, flags, self.api.client(), self.dir.path(), "clear").ended().await
    }

    /// Starts the controller beside the plugin of a pod.
    pub fn start_controller(&self, pod_uid: &str) -> Program {
        let socket_path = self.node_socket_path(pod_uid);
        let flags = [
            format!("--node-name={NODE}"),
            format!("--driver-name={DRIVER}"),
            format!("--node-socket={}", socket_path.display()),
            format!("--api-server={}", self.api.url()),
        ];
        Program::controller(flags.into(), self.dir.path())
    }

    fn flags(&self, pod_uid: &str) -> Vec<String> {
        let machine_dir = self.gpus.dir().display();
        let dir = self.dir.path().display();
        let flags = vec![
            format!("--node-name={NODE}"),
            format!("--pod-uid={pod_uid}"),
            format!("--driver-name={DRIVER}"),
            format!("--kubelet-root-dir={dir}/k"),
            format!("--cdi-root={dir}/c"),
            format!("--driver-root={machine_dir}"),
            format!("--driver-root-host={}", self.machine_on_host.display()),
            format!("--proc-root={machine_dir}/proc"),
            format!("--sys-root={machine_dir}/sys"),
            format!("--run-dir={dir}/r"),
            format!("--node-socket={dir}/node-{pod_uid}.sock"),
            format!("--api-server={}", self.api.url()),
        ];
        [flags, self.flags.clone()].concat()
    }

    /// Where the plugin of a pod streams the state of the node.
    pub fn node_socket_path(&self, pod_uid: &str) -> PathBuf {
        self.dir.path().join(format!("node-{pod_uid}.sock"))
    }

    /// As the controller beside the plugin of a pod connects.
    pub async fn node_client(&self, pod_uid: &str) -> NodeClient<Channel> {
        let socket = format!("unix://{}", self.node_socket_path(pod_uid).display());
        let endpoint = Endpoint::from_shared(socket).expect("a path");
        NodeClient::new(endpoint.connect().await.expect("the plugin listens"))
    }

    /// Everything of this node.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The kubelet's root.
    pub fn kubelet_dir(&self) -> PathBuf {
        self.dir.path().join("k")
    }

    /// Where the plugin keeps its state.
    pub fn state_dir(&self) -> PathBuf {
        self.kubelet_dir().join("plugins").join(DRIVER)
    }

    /// Where an MPS host would be heard.
    pub fn mps_root(&self) -> PathBuf {
        self.dir.path().join("r/mps")
    }

    /// Where container runtimes read.
    pub fn cdi_dir(&self) -> PathBuf {
        self.dir.path().join("c")
    }

    /// What a container with these devices gets.
    pub fn container(&self, devices: &[Device]) -> Container {
        let ids: Vec<String> = devices.iter().flat_map(|device| device.cdi_device_ids.clone()).collect();
        container(&self.cdi_dir(), self.gpus.dir(), &ids)
    }

    /// The GPUs and MIG capabilities a container with these devices can open, without the nodes every one gets.
    pub fn own_nodes(&self, devices: &[Device]) -> BTreeSet<String> {
        let common = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"];
        self.container(devices).nodes.into_iter().filter(|path| !common.contains(&path.as_str())).collect()
    }

    /// What is on disk for claims: records and CDI files. Empty when no claim is prepared.
    pub fn leftovers(&self) -> BTreeSet<String> {
        let records = fs::read_dir(self.state_dir().join("claims")).into_iter().flatten().flatten();
        let records = records.map(|entry| entry.file_name().to_string_lossy().into_owned());
        records.chain(claim_specs(&self.cdi_dir())).collect()
    }
}
