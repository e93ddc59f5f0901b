// SPDX-License-Identifier: Apache-2.0
//! A node with eight GPUs on a real control plane: the release programs run as the chart runs them, without a kubelet.
//!
//! The driver's account, its rights and the admission policy are the chart's, and its token is bound to a pod on the
//! node. A flow schema of the API server counts that account's writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dra_cluster::Cluster;
use dra_proto::dra_v1::dra_plugin_client::DraPluginClient;
use dra_tests::disk::Disk;
use dra_tests::machine::Gpus;
use dra_tests::node::{DRIVER, NODE};
use dra_tests::program::Program;
use dra_tests::source::root_dir;
use dra_tests::wait::{until, within};
use dra_tests::{Kubelet, Mode};
use k8s_openapi::api::resource::v1::ResourceSlice;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::transport::{Channel, Endpoint};

use crate::mps_host::MpsHost;
use crate::reports::Reports;

/// The kubelet's side of the DRA socket.
pub(crate) type KubeletClient = DraPluginClient<Channel>;

/// Name and namespace of the release, and the name of its account.
const RELEASE: &str = "gpu-dra-driver";
/// Counts the writes of the driver's account.
const FLOW: &str = "driver-writes";

/// Everything that is measured, running.
pub(crate) struct Stage<'a> {
    cluster: &'a Cluster,
    plugin: Program,
    controller: Program,
    /// Runs the MPS daemons.
    pub mps_host: MpsHost,
    /// The simulated machine.
    pub gpus: Gpus,
    /// The names under which its GPUs are published.
    pub devices: Vec<String>,
    pub admin: Client,
    /// With the credentials of the driver.
    pub as_driver: Client,
    /// Calls the plugin.
    pub kubelet: KubeletClient,
    /// The claims whose status is written.
    pub reports: Reports,
    /// For CDI specs, locks and MPS daemons: in memory, as `/run` is on every host.
    _run: Disk,
    dir: TempDir,
}

impl<'a> Stage<'a> {
    /// Starts the programs and waits until they are registered and have published.
    pub(crate) async fn set(cluster: &'a Cluster) -> Self {
        // The path of a socket is short, and the temporary directory of some systems is in memory.
        let dir = tempfile::Builder::new().prefix("b").tempdir_in("/var/tmp").expect("/var/tmp is writable");
        for name in ["m", "k/plugins_registry", "r"] {
            fs::create_dir_all(dir.path().join(name)).expect("a directory of our own");
        }
        let run = Disk::run_dir(&dir.path().join("r"));
        install(cluster, dir.path());
        let admin = client(&cluster.kubeconfig_path()).await;
        let as_driver = client(&dir.path().join("kubeconfig")).await;
        let gpus = Gpus::create(&dir.path().join("m"), "h100:8", NODE);
        let devices = (0..gpus.state().gpus.len()).map(|gpu| gpus.name(gpu)).collect();
        let kubelet = Kubelet::start(&dir.path().join("k"));
        let mps_host = MpsHost::start(&gpus, &dir.path().join("r/mps"), dir.path()).await;
        let with_account = |flags: Vec<String>| [flags, account_flags(dir.path())].concat();
        let flags = with_account(plugin_flags(dir.path()));
        let plugin = Program::plugin(Mode::Process, flags, as_driver.clone(), dir.path(), "bench");
        let controller = Program::controller(with_account(controller_flags(dir.path())), dir.path());
        let registered = kubelet.until_registered().await;
        let kubelet = connect(registered.endpoint).await;
        let reports = Reports::follow(admin.clone());
        let stage = Self {
            cluster,
            plugin,
            controller,
            mps_host,
            gpus,
            devices,
            admin,
            as_driver,
            kubelet,
            reports,
            _run: run,
            dir,
        };
        stage.until_published().await;
        stage
    }

    /// Where the driver keeps its records.
    pub(crate) fn records_dir(&self) -> PathBuf {
        self.dir.path().join("k/plugins").join(DRIVER).join("claims")
    }

    /// Where the driver writes: its state, and what does not outlive a boot, CDI specs among it.
    pub(crate) fn driver_dirs(&self) -> [PathBuf; 2] {
        ["k/plugins", "r"].map(|name| self.dir.path().join(name))
    }

    /// The plugin and the controller.
    pub(crate) fn process_ids(&self) -> [u32; 2] {
        [&self.plugin, &self.controller].map(|program| program.process_id().expect("the program runs"))
    }

    /// Writes of the driver that the API server has seen so far.
    pub(crate) fn writes(&self) -> f64 {
        let metrics = self.cluster.kubectl(&["get", "--raw", "/metrics"]).expect("the API server has metrics");
        let flow = format!("flow_schema=\"{FLOW}\"");
        let counts =
            |line: &&str| line.starts_with("apiserver_flowcontrol_dispatched_requests_total{") && line.contains(&flow);
        let count = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        metrics.lines().filter(counts).filter_map(count).sum()
    }

    /// Starts the controller again with further flags and waits until the names of the published devices are as wanted.
    pub(crate) async fn publish_again(&mut self, flags: &[&str], wanted: impl Fn(&[String]) -> bool) {
        assert!(self.controller.stop().await, "the controller ends cleanly");
        let flags = flags.iter().map(|flag| (*flag).to_owned());
        let all = [controller_flags(self.dir.path()), account_flags(self.dir.path()), flags.collect()].concat();
        self.controller = Program::controller(all, self.dir.path());
        let published = async {
            let mut ticks = ticks();
            while !wanted(&published_names(&self.admin).await) {
                ticks.tick().await;
            }
        };
        within("the devices are published", published).await;
    }

    /// Ends the programs and says whether all ended cleanly.
    pub(crate) async fn strike(mut self) -> bool {
        let controller = self.controller.stop().await;
        let plugin = self.plugin.stop().await;
        self.mps_host.stop().await && plugin && controller
    }

    async fn until_published(&self) {
        let published = async {
            let mut ticks = ticks();
            loop {
                ticks.tick().await;
                let names = published_names(&self.admin).await;
                if self.devices.iter().all(|device| names.contains(device)) {
                    return;
                }
            }
        };
        within("the GPUs are published", published).await;
    }
}

async fn published_names(client: &Client) -> Vec<String> {
    let slices: Api<ResourceSlice> = Api::all(client.clone());
    let found = slices.list(&ListParams::default()).await.expect("the API server answers");
    found.items.into_iter().flat_map(|slice| slice.spec.devices.unwrap_or_default()).map(|device| device.name).collect()
}

/// For conditions that can only be asked again.
pub(crate) fn ticks() -> Interval {
    let mut ticks = interval(Duration::from_millis(5));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Lets the cluster have the node, the chart's rights and the pod, and writes the pod's kubeconfig.
fn install(cluster: &Cluster, dir: &Path) {
    let chart = root_dir().join("deploy/chart").display().to_string();
    let mut helm = vec!["template", RELEASE, &chart, "--namespace", RELEASE];
    let parts = ["rbac", "admission-policy", "deviceclasses"].map(|name| format!("templates/{name}.yaml"));
    helm.extend(parts.iter().flat_map(|part| ["--show-only", part]));
    let rendered = cluster.helm(&helm).expect("the chart renders");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RELEASE}});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
    for document in [namespace.to_string(), node.to_string(), rendered, flow_schema().to_string()] {
        cluster.apply(&document).expect("the API server takes it");
    }
    cluster.apply(&pod().to_string()).expect("the API server takes it");
    let pod_uid = ["-n", RELEASE, "get", "pod", RELEASE, "-o", "jsonpath={.metadata.uid}"];
    let pod_uid = cluster.kubectl(&pod_uid).expect("the pod is there");
    let bound = ["--bound-object-kind", "Pod", "--bound-object-name", RELEASE, "--bound-object-uid", &pod_uid];
    let token = [&["-n", RELEASE, "create", "token", RELEASE], &bound[..]].concat();
    let token = cluster.kubectl(&token).expect("accounts have tokens");
    fs::write(dir.join("token"), token.trim()).expect("a directory of our own");
    let kubeconfig = kubeconfig(&cluster.kubeconfig_path(), &dir.join("token"));
    fs::write(dir.join("kubeconfig"), kubeconfig.to_string()).expect("a directory of our own");
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": RELEASE, "namespace": RELEASE},
        "spec": {
            "nodeName": NODE,
            "serviceAccountName": RELEASE,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "plugin", "image": "localhost/never-started"}],
        },
    })
}

/// Requests that match are counted under the schema's name, and treated as they are without it.
fn flow_schema() -> Value {
    let account = json!({"kind": "ServiceAccount", "serviceAccount": {"name": RELEASE, "namespace": RELEASE}});
    let writes = json!({
        "verbs": ["create", "update", "patch", "delete", "deletecollection"],
        "apiGroups": ["*"],
        "resources": ["*"],
        "clusterScope": true,
        "namespaces": ["*"],
    });
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": FLOW},
        "spec": {
            "matchingPrecedence": 100,
            "priorityLevelConfiguration": {"name": "workload-low"},
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{"subjects": [account], "resourceRules": [writes]}],
        },
    })
}

/// The administrator's with the token in place of the certificate; both are JSON.
fn kubeconfig(admin_path: &Path, token_path: &Path) -> Value {
    let text = fs::read_to_string(admin_path).expect("the cluster has a kubeconfig");
    let mut kubeconfig: Value = serde_json::from_str(&text).expect("the cluster writes JSON");
    kubeconfig["users"][0]["user"] = json!({"tokenFile": token_path});
    kubeconfig
}

async fn client(kubeconfig_path: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig_path).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a kubeconfig");
    Client::try_from(config).expect("usable credentials")
}

fn plugin_flags(dir: &Path) -> Vec<String> {
    let dir = dir.display();
    vec![
        format!("--node-name={NODE}"),
        "--pod-uid=bench".to_owned(),
        format!("--driver-name={DRIVER}"),
        format!("--kubelet-root-dir={dir}/k"),
        format!("--cdi-root={dir}/r/cdi"),
        format!("--cdi-hook-dir={dir}/hook"),
        format!("--cdi-hook-program={}", root_dir().join("target/release/gpu-cdi-hook").display()),
        format!("--run-dir={dir}/r"),
        format!("--driver-root={dir}/m"),
        "--driver-root-host=/".to_owned(),
        format!("--proc-root={dir}/m/proc"),
        format!("--sys-root={dir}/m/sys"),
        format!("--node-socket={dir}/node.sock"),
    ]
}

/// What the pod's environment and its mounts tell the programs.
fn account_flags(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("kubeconfig")).expect("it was written");
    let kubeconfig: Value = serde_json::from_str(&text).expect("it was written as JSON");
    let cluster = &kubeconfig["clusters"][0]["cluster"];
    let value = |name: &str| cluster[name].as_str().expect("the cluster writes it").to_owned();
    vec![
        format!("--api-server={}", value("server")),
        format!("--api-server-ca-file={}", value("certificate-authority")),
        format!("--api-server-token-file={}", dir.join("token").display()),
    ]
}

fn controller_flags(dir: &Path) -> Vec<String> {
    vec![
        format!("--node-name={NODE}"),
        format!("--driver-name={DRIVER}"),
        format!("--node-socket={}/node.sock", dir.display()),
    ]
}

/// One connection for all calls, as the kubelet has.
async fn connect(endpoint: PathBuf) -> KubeletClient {
    until("the plugin's socket is there", || endpoint.exists().then_some(())).await;
    let connector = tower::service_fn(move |_| {
        let path = endpoint.clone();
        async move { UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await;
    DraPluginClient::new(channel.expect("the plugin listens"))
}
