// SPDX-License-Identifier: Apache-2.0
//! The MPS host of the node with NVIDIA's own control program, and what there is of its daemons. None outlives the
//! benchmark, however that ends.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dra_tests::machine::Gpus;
use dra_tests::program::Program;
use dra_tests::programs::built;
use dra_tests::wait::until;

/// Of which NVIDIA's own are needed.
const CONTROL: &str = "nvidia-cuda-mps-control";

/// Supervises the daemons, as a process of this machine.
pub(crate) struct MpsHost {
    program: Program,
    root: PathBuf,
    driver_root: PathBuf,
}

impl MpsHost {
    /// Starts it with a root that does not exist yet, and waits until it listens.
    pub(crate) async fn start(gpus: &Gpus, root: &Path, dir: &Path) -> Self {
        let installed = gpus.install_programs(&nvidia_dir());
        assert!(installed.contains(&CONTROL), "there is no {CONTROL}: run tests/cluster/setup.sh as root");
        let (root, driver_root) = (root.to_owned(), gpus.dir().to_owned());
        let program = Program::mps_host(flags(&root, &driver_root), dir);
        let host = Self { program, root, driver_root };
        let socket_path = host.root.join("host.sock");
        until("the MPS host listens", || socket_path.exists().then_some(())).await;
        host
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.program.process_id().expect("the MPS host runs")
    }

    /// Ends it and says whether it ended cleanly.
    pub(crate) async fn stop(&mut self) -> bool {
        self.program.stop().await
    }

    /// The daemons that run, of all claims and GPUs.
    pub(crate) fn daemons(&self) -> usize {
        let is_daemon = |pid: &u32| text_of(*pid, "cmdline").contains(&format!("{CONTROL}\0-f"));
        self.users_of_pipes().into_iter().filter(is_daemon).count()
    }

    /// Everything that was started for a daemon: each process with its pipe directory, whichever its parent is, and the
    /// children of the host, waited for or not.
    pub(crate) fn processes(&self) -> BTreeSet<u32> {
        let mut all = self.users_of_pipes();
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process_id())).expect("the MPS host runs").flatten();
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        for children in children {
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        all
    }

    /// Mounts below its root.
    pub(crate) fn mounts(&self) -> usize {
        let root = self.root.display().to_string();
        text_of(self.process_id(), "mountinfo").lines().filter(|line| line.contains(&root)).count()
    }

    fn users_of_pipes(&self) -> BTreeSet<u32> {
        let pipe = format!("CUDA_MPS_PIPE_DIRECTORY={}/", self.root.display());
        let entries = fs::read_dir("/proc").expect("every Linux has it").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| text_of(*pid, "environ").split('\0').any(|variable| variable.starts_with(&pipe))).collect()
    }
}

impl Drop for MpsHost {
    /// Daemons outlive a host that is killed, as it is when the benchmark stops at a surprise.
    fn drop(&mut self) {
        self.program.kill_now();
        let mut remove = Command::new(built("gpu-mps-host"));
        remove.args(flags(&self.root, &self.driver_root)).args(["--remove", "--http-address=127.0.0.1:0"]);
        let removed = remove.stdin(Stdio::null()).stdout(Stdio::null()).status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("MPS daemons may be left in {}", self.root.display());
        }
    }
}

fn flags(root: &Path, driver_root: &Path) -> Vec<String> {
    vec![format!("--root={}", root.display()), format!("--driver-root={}", driver_root.display())]
}

/// Where the cluster's setup unpacks Debian's packages.
fn nvidia_dir() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache");
    cache.unwrap_or_else(home).join("gpu-dra-cluster/nvidia")
}

/// A file of a process, empty when it has ended.
fn text_of(process_id: u32, name: &str) -> String {
    let bytes = fs::read(format!("/proc/{process_id}/{name}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
