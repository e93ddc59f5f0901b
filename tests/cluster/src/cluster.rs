// SPDX-License-Identifier: Apache-2.0
//! Starts, uses and stops a cluster.

use crate::{
    certificates::Authority,
    command, control_plane,
    error::{ClusterError, Result},
    files,
    images::{self, Image},
    namespaces::Namespaces,
    network::{self, Subnet},
    node::{Node, Service},
    node_files::{self, NodeFacts},
    programs::{self, Build, Programs},
    run_dir::{self, Record, RunDir},
    sweep, wait,
    watchdog::Watchdog,
};
use std::{
    collections::BTreeSet,
    env, iter,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Options of a node.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    /// GPUs in the syntax of `gpu-sim`, such as `h100:8` or `a100-40:2,t4:2`; none for a node without.
    pub gpus: Option<String>,
}

/// Options of a cluster. Nodes are named `node-1`, `node-2` and so on.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// At most 10 lower-case letters, digits and dashes; without it a new name is generated.
    pub name: Option<String>,
    /// One entry per node.
    pub nodes: Vec<NodeOptions>,
    /// The `gpu-sim` program; needed where a node has GPUs.
    pub gpu_sim: Option<PathBuf>,
    /// Which programs run, Kubernetes among them; those that are missing are built.
    pub build: Build,
}

impl ClusterOptions {
    /// A cluster that ends with this process, of this many nodes without GPUs.
    pub fn plain(node_count: usize) -> Self {
        Self { nodes: vec![NodeOptions::default(); node_count], ..Self::default() }
    }
}

/// A running cluster. It is removed when it is dropped or when the process that started it
/// exits, unless it was left running.
#[derive(Debug)]
pub struct Cluster {
    run_dir: RunDir,
    programs: Programs,
    nodes: Vec<Node>,
    watchdog: Watchdog,
}

impl Cluster {
    /// Starts a cluster and waits until all its nodes are ready.
    ///
    /// First builds missing programs and removes the leftovers of killed clusters.
    pub fn start(options: &ClusterOptions) -> Result<Self> {
        let programs = programs::build_programs(options.build)?;
        let images = [images::pause_image()?, images::demo_image()?];
        let begun = Instant::now();
        let (record, cluster) = Self::hold(options, programs)?;
        let authority = control_plane::write_identities(&cluster.run_dir, record.subnet)?;
        cluster.boot(&record, options, &authority, &images)?;
        report(begun, "the programs of all nodes run");
        cluster.wait_for_nodes()?;
        // The controller manager creates it after the API server is ready; pods need it.
        cluster.wait_until("the default service account", Duration::from_mins(1), || {
            cluster.kubectl(&["get", "serviceaccount", "default"]).map(Some)
        })?;
        report(begun, "all nodes are ready");
        Ok(cluster)
    }

    /// The cluster that another process left running under this name.
    pub fn open(name: &str) -> Result<Self> {
        let run_dir = RunDir::of(name)?;
        if !run_dir.is_held() {
            return Err(ClusterError::NotRunning { name: name.to_owned() });
        }
        let record = run_dir.read_record()?;
        Ok(Self {
            nodes: nodes_of(&record, &run_dir),
            programs: Programs::at(record.programs_dir),
            watchdog: Watchdog::of_running(&run_dir),
            run_dir,
        })
    }

    /// Lets the cluster outlive this process, until it is opened and stopped.
    pub fn leave_running(mut self) -> Result<()> {
        self.watchdog.release()
    }

    /// Removes the cluster and waits until it is removed completely.
    pub fn stop(mut self) -> Result<()> {
        self.watchdog.stop()
    }

    /// Its nodes, in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).ok_or_else(|| {
            let known: Vec<_> = self.nodes.iter().map(Node::name).collect();
            ClusterError::NoSuchNode { name: name.to_owned(), known: known.join(", ") }
        })
    }

    /// The administrator's kubeconfig; the API server is reachable from the host.
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.run_dir.kubeconfig_path()
    }

    /// The directory of the logs of all programs.
    pub fn logs_dir(&self) -> PathBuf {
        self.run_dir.logs_dir()
    }

    /// The cluster's directory, which is removed with the cluster.
    pub fn dir(&self) -> PathBuf {
        self.run_dir.path().to_owned()
    }

    /// The programs the cluster runs, `kubectl` and `helm` among them.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Sets the environment of a command that uses the cluster: `KUBECONFIG` and a `PATH` with `kubectl` and `helm`.
    pub fn equip<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let path = env::var_os("PATH").unwrap_or_default();
        let dirs = iter::once(self.programs.dir().to_owned()).chain(env::split_paths(&path));
        // No directory of PATH holds a colon: they were split at colons, and the cache is below the home directory.
        if let Ok(path) = env::join_paths(dirs) {
            command.env("PATH", path);
        }
        command.env("KUBECONFIG", self.kubeconfig_path())
    }

    /// A `kubectl` command for this cluster as administrator.
    pub fn kubectl_command(&self) -> Command {
        self.client("kubectl")
    }

    /// Runs `kubectl` and returns what it prints.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        command::output(self.client("kubectl").args(args))
    }

    /// Applies these documents, YAML or JSON.
    pub fn apply(&self, documents: &str) -> Result<String> {
        let mut kubectl = self.client("kubectl");
        command::output_with_input(kubectl.args(["apply", "-f", "-"]), documents)
    }

    /// Runs `helm` and returns what it prints.
    pub fn helm(&self, args: &[&str]) -> Result<String> {
        command::output(self.client("helm").args(args))
    }

    /// Puts an image on every node.
    pub fn load_image(&self, image: &Image) -> Result<()> {
        on_all(&self.nodes, |node| node.import_image(image))
    }

    /// Repeats the probe until it has an answer; see [`wait::until`].
    pub fn wait_until<T>(&self, what: &str, limit: Duration, probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        wait::until(what, limit, &self.logs_dir(), probe)
    }

    /// Waits until every node is Ready.
    pub fn wait_for_nodes(&self) -> Result<()> {
        for node in &self.nodes {
            let name = format!("node/{}", node.name);
            self.wait_until(&name, Duration::from_mins(1), || self.kubectl(&["get", &name]).map(Some))?;
            self.kubectl(&["wait", "--for=condition=Ready", &name, "--timeout=120s"])?;
        }
        Ok(())
    }

    fn client(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.path(name));
        command.env("KUBECONFIG", self.kubeconfig_path());
        command
    }

    /// Reserves a name and addresses, and starts the watchdog that holds them.
    fn hold(options: &ClusterOptions, programs: Programs) -> Result<(Record, Self)> {
        let lock = sweep::lock()?;
        sweep::sweep_locked(&lock)?;
        let name = options.name.clone().unwrap_or_else(run_dir::fresh_name);
        let run_dir = RunDir::of(&name)?;
        if run_dir.is_held() {
            return Err(ClusterError::Running { name });
        }
        let record = Record {
            name,
            subnet: Subnet::free(&taken_subnets())?,
            nodes: (1..=options.nodes.len()).map(|n| format!("node-{n}")).collect(),
            programs_dir: programs.dir().to_owned(),
            gpu_sim: options.gpu_sim.clone(),
        };
        run_dir.write_record(&record)?;
        let watchdog = Watchdog::start(&run_dir)?;
        let cluster = Self { nodes: nodes_of(&record, &run_dir), programs, watchdog, run_dir };
        cluster.namespaces()?;
        Ok((record, cluster))
    }

    /// Starts the control plane and the nodes side by side.
    fn boot(&self, record: &Record, options: &ClusterOptions, authority: &Authority, images: &[Image]) -> Result<()> {
        let begun = Instant::now();
        let namespaces = self.namespaces()?;
        network::connect_control_plane(&record.name, record.subnet, namespaces.pid())?;
        let boot_node = |node: &Node, options: &NodeOptions| {
            self.write_node(node, options, authority)?;
            node.boot()?;
            images.iter().try_for_each(|image| node.import_image(image))?;
            node.start(Service::Kubelet)?;
            node.start(Service::KubeProxy)
        };
        thread::scope(|scope| {
            let nodes: Vec<_> = self.nodes.iter().zip(&options.nodes).collect();
            let nodes: Vec<_> =
                nodes.into_iter().map(|(node, options)| scope.spawn(move || boot_node(node, options))).collect();
            control_plane::start(&self.run_dir, &namespaces, &self.programs, record.subnet)?;
            report(begun, "the API server is ready");
            nodes.into_iter().try_for_each(joined)
        })
    }

    fn write_node(&self, node: &Node, options: &NodeOptions, authority: &Authority) -> Result<()> {
        if let Some(gpus) = &options.gpus {
            let driver = crate::cache::dir().join("nvidia").display().to_string();
            let mut args = vec!["--gpus", gpus, "--seed", &node.name];
            if std::path::Path::new(&driver).exists() {
                args.extend(["--nvidia-smi", &driver]);
            }
            files::make_dir(&node.dir())?;
            node.gpu_sim("init", &args)?;
        }
        let facts =
            NodeFacts { name: &node.name, number: node.number, subnet: node.subnet, has_gpus: options.gpus.is_some() };
        node_files::write(&node.dir(), facts, authority, &self.programs)
    }

    /// The address of the control plane, which the host reaches.
    pub(crate) fn control_plane_address(&self) -> Result<String> {
        Ok(self.run_dir.read_record()?.subnet.control_plane())
    }

    pub(crate) fn namespaces(&self) -> Result<Namespaces> {
        Namespaces::of_control_plane(&self.run_dir.init_pid_path(), &self.logs_dir())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.watchdog.is_owned()
            && let Err(error) = self.watchdog.stop()
        {
            eprintln!("failed to remove the cluster: {error}");
        }
    }
}

fn nodes_of(record: &Record, run_dir: &RunDir) -> Vec<Node> {
    let node = |(index, name): (usize, &String)| Node {
        name: name.clone(),
        number: index + 1,
        peers: record.nodes.len(),
        subnet: record.subnet,
        run_dir: run_dir.clone(),
        programs_dir: record.programs_dir.clone(),
        gpu_sim: record.gpu_sim.clone(),
    };
    record.nodes.iter().enumerate().map(node).collect()
}

fn taken_subnets() -> BTreeSet<Subnet> {
    let records = run_dir::all().into_iter().flat_map(|dir| dir.read_record());
    records.map(|record| record.subnet).collect()
}

fn on_all(nodes: &[Node], work: impl Fn(&Node) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = nodes.iter().map(|node| scope.spawn(move || work(node))).collect();
        threads.into_iter().try_for_each(joined)
    })
}

/// The result of a thread; a panic is resumed in this thread.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn report(begun: Instant, what: &str) {
    eprintln!("{:5.1} s  {what}", begun.elapsed().as_secs_f32());
}
