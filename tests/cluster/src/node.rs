// SPDX-License-Identifier: Apache-2.0
//! One node: its namespaces, its programs, and operations of an administrator.

use crate::{
    command,
    error::{ClusterError, Result},
    files,
    images::Image,
    namespaces::{self, Namespaces},
    network::{self, POD_RANGE, Subnet},
    run_dir::RunDir,
    wait,
};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const INIT: &str = include_str!("scripts/node-init.sh");
const KUBELET: &str = include_str!("scripts/kubelet.sh");
/// Timeout for the start or termination of a program.
const LIMIT: Duration = Duration::from_secs(30);

/// A program of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The container runtime.
    Containerd,
    /// The node agent.
    Kubelet,
    /// The service network.
    KubeProxy,
}

impl Service {
    /// Name of the program and of its log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
        }
    }
}

/// A machine of the cluster.
#[derive(Debug, Clone)]
pub struct Node {
    pub(crate) name: String,
    /// Counted from 1.
    pub(crate) number: usize,
    pub(crate) peers: usize,
    pub(crate) subnet: Subnet,
    pub(crate) run_dir: RunDir,
    pub(crate) programs_dir: PathBuf,
    pub(crate) gpu_sim: Option<PathBuf>,
}

impl Node {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The IP address, reachable from the host.
    pub fn address(&self) -> String {
        self.subnet.node(self.number)
    }

    /// Its directory on the host.
    pub fn dir(&self) -> PathBuf {
        self.run_dir.node_dir(&self.name)
    }

    /// The tree of its simulated GPUs on the host; on the node it is `/run/nvidia/driver`.
    pub fn gpu_dir(&self) -> PathBuf {
        self.dir().join("gpu")
    }

    /// The log of one of its programs, from the cluster's start.
    pub fn log(&self, service: Service) -> Result<String> {
        files::read(&self.log_path(service))
    }

    /// A command that runs on the node, as root, outside of any container.
    pub fn command(&self, program: &str) -> Result<Command> {
        Ok(self.namespaces()?.command(program))
    }

    /// Runs a shell script on the node and returns what it prints.
    pub fn shell(&self, script: &str) -> Result<String> {
        command::output(self.command("sh")?.args(["-ec", script]))
    }

    /// Runs `gpu-sim` on the node's tree: `args` follow the subcommand and the tree.
    pub fn gpu_sim(&self, subcommand: &str, args: &[&str]) -> Result<String> {
        let program = self.gpu_sim.as_ref().ok_or_else(|| ClusterError::NoSimulator { node: self.name.clone() })?;
        let mut gpu_sim = Command::new(program);
        command::output(gpu_sim.arg(subcommand).arg(self.gpu_dir()).args(args))
    }

    /// Runs the `nvidia-smi` of the node's driver root, as its administrator would.
    pub fn nvidia_smi(&self, args: &[&str]) -> Result<String> {
        let root = "/run/nvidia/driver";
        let mut env = self.command("env")?;
        env.arg(format!("LD_LIBRARY_PATH={root}/usr/lib/x86_64-linux-gnu"));
        command::output(env.arg(format!("{root}/usr/bin/nvidia-smi")).args(args))
    }

    /// Puts an image into the node's container store.
    pub fn import_image(&self, image: &Image) -> Result<()> {
        let path = &image.archive_path;
        let file = File::open(path).map_err(files::error("open", path))?;
        let mut ctr = self.command("ctr")?;
        ctr.args(["-n", "k8s.io", "-a", "/run/containerd/containerd.sock"]);
        ctr.args(["images", "import", "-"]).stdin(Stdio::from(file));
        command::output_with_own_input(&mut ctr).map(drop)
    }

    /// Kills the kubelet and waits until it is terminated; its containers keep running.
    pub fn stop_kubelet(&self) -> Result<()> {
        self.stop(Service::Kubelet)
    }

    /// Starts the kubelet.
    pub fn start_kubelet(&self) -> Result<()> {
        self.start(Service::Kubelet)
    }

    /// Kills the kubelet and starts it again.
    pub fn restart_kubelet(&self) -> Result<()> {
        self.stop_kubelet()?;
        self.start_kubelet()
    }

    /// Kills all processes of the node, containers included, empties `/run`,
    /// changes the boot id of simulated GPUs, and starts the node again.
    pub fn reboot(&self) -> Result<()> {
        let pid = self.namespaces()?.pid().to_string();
        let pid_path = self.pid_path();
        std::fs::remove_file(&pid_path).map_err(files::error("remove", &pid_path))?;
        command::output(Command::new("kill").args(["-KILL", &pid]))?;
        // The first process of a PID namespace terminates after all others.
        let process_dir = Path::new("/proc").join(&pid);
        let terminated = || Ok((!process_dir.exists()).then_some(()));
        wait::until("the termination of the node's processes", LIMIT, &self.run_dir.logs_dir(), terminated)?;
        let leave = format!("find /sys/fs/cgroup -depth -type d -path '*/{}*' -exec rmdir {{}} +", self.group());
        wait::until("the removal of the node's control groups", LIMIT, &self.run_dir.logs_dir(), || {
            command::output(Command::new("sh").args(["-c", &leave])).map(Some)
        })?;
        if self.gpu_dir().exists() {
            self.gpu_sim("reboot", &[])?;
        }
        self.boot()?;
        self.start(Service::Kubelet)?;
        self.start(Service::KubeProxy)
    }

    /// Makes the node's namespaces, connects them and starts containerd.
    pub(crate) fn boot(&self) -> Result<()> {
        let control_plane = self.control_plane()?;
        let mut init = Command::new("nsenter");
        init.args(["--target", &control_plane.pid().to_string(), "--pid", "--"]);
        init.args(["unshare", "--pid", "--net", "--mount", "--uts", "--ipc", "--fork", "--kill-child"]);
        let join = namespaces::joining(&self.group());
        init.arg(join.get_program()).args(join.get_args());
        init.args(["unshare", "--cgroup", "sh", "-c", INIT, "node-init"]);
        init.arg(self.dir()).arg(&self.programs_dir).args([&self.name, &self.group()]);
        command::start(&init, &self.run_dir.logs_dir().join(format!("{}.log", self.name)))?;
        let own_pid = self.namespaces()?.pid();
        let node = (self.name.as_str(), self.number, own_pid);
        network::connect_node(self.subnet, control_plane.pid(), node, self.peers)?;
        self.start(Service::Containerd)?;
        wait::until("containerd", LIMIT, &self.run_dir.logs_dir(), || {
            self.shell("ctr -a /run/containerd/containerd.sock version").map(Some)
        })?;
        Ok(())
    }

    /// Starts a program of the node and leaves its process id on the node.
    pub(crate) fn start(&self, service: Service) -> Result<()> {
        let name = service.name();
        let pid_path = format!("/run/cluster/{name}.pid");
        let mut program = self.command("sh")?;
        program.args(["-c", &format!("echo $$ >{pid_path}; exec \"$@\""), name]);
        match service {
            Service::Containerd => {
                program.args(["containerd", "--config", "/etc/containerd/config.toml"]);
            }
            Service::Kubelet => {
                program.args(["unshare", "--mount", "--propagation", "unchanged"]);
                program.args(["sh", "-c", KUBELET, "kubelet"]);
                program.args(self.kubelet_flags());
            }
            Service::KubeProxy => {
                program.arg("kube-proxy").args(self.kube_proxy_flags());
            }
        }
        command::start(&program, &self.log_path(service))
    }

    fn stop(&self, service: Service) -> Result<()> {
        let pid_path = format!("/run/cluster/{}.pid", service.name());
        self.shell(&format!("kill -KILL $(cat {pid_path})"))?;
        let terminated = || {
            let alive = format!("! kill -0 $(cat {pid_path}) 2>/dev/null");
            self.shell(&alive).map(|_| Some(()))
        };
        wait::until("the termination of the program", LIMIT, &self.run_dir.logs_dir(), terminated)
    }

    fn kubelet_flags(&self) -> Vec<String> {
        vec![
            "--config=/etc/kubernetes/kubelet.json".to_owned(),
            "--kubeconfig=/etc/kubernetes/kubelet.kubeconfig".to_owned(),
            format!("--hostname-override={}", self.name),
            format!("--node-ip={}", self.address()),
        ]
    }

    fn kube_proxy_flags(&self) -> Vec<String> {
        vec![
            "--kubeconfig=/etc/kubernetes/kube-proxy.kubeconfig".to_owned(),
            format!("--hostname-override={}", self.name),
            format!("--cluster-cidr={POD_RANGE}"),
            "--proxy-mode=nftables".to_owned(),
            // The table's size and its time limits belong to the whole machine.
            "--conntrack-max-per-core=0".to_owned(),
            "--conntrack-tcp-timeout-established=0".to_owned(),
            "--conntrack-tcp-timeout-close-wait=0".to_owned(),
        ]
    }

    fn namespaces(&self) -> Result<Namespaces> {
        Namespaces::of_node(&self.pid_path(), &self.run_dir.logs_dir(), self.group())
    }

    fn control_plane(&self) -> Result<Namespaces> {
        Namespaces::of_control_plane(&self.run_dir.init_pid_path(), &self.run_dir.logs_dir())
    }

    /// The node's control group in every hierarchy; `clean.sh` knows where it begins.
    fn group(&self) -> String {
        let name = self.run_dir.path().file_name().unwrap_or_default();
        format!("gpu-dra-{}/{}", name.to_string_lossy(), self.name)
    }

    fn pid_path(&self) -> PathBuf {
        self.dir().join("init.pid")
    }

    fn log_path(&self, service: Service) -> PathBuf {
        let file_name = format!("{}-{}.log", self.name, service.name());
        self.run_dir.logs_dir().join(file_name)
    }
}
