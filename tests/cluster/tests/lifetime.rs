// SPDX-License-Identifier: Apache-2.0
//! Clusters are removed completely, however they are terminated.
#![allow(clippy::unwrap_used, reason = "a test may fail at any step")]

use dra_cluster::{Cluster, ClusterOptions};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

const LIMIT: Duration = Duration::from_mins(2);

/// Small machines run one of these tests at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The traces of a running cluster on the host.
#[derive(Debug)]
struct Traces {
    name: String,
    dir: PathBuf,
    process_namespaces: BTreeSet<PathBuf>,
    network_namespaces: BTreeSet<PathBuf>,
}

impl Traces {
    fn of(cluster: &Cluster) -> Self {
        let dir = cluster.dir();
        let pid_paths = cluster.nodes().iter().map(|node| node.dir().join("init.pid"));
        let pids: Vec<_> = pid_paths
            .chain([dir.join("init.pid")])
            .map(|path| fs::read_to_string(path).unwrap().trim().to_owned())
            .collect();
        let namespaces = |kind: &str| -> BTreeSet<_> {
            pids.iter().map(|pid| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()).collect()
        };
        let name = dir.file_name().unwrap().to_str().unwrap().to_owned();
        Self { name, process_namespaces: namespaces("pid"), network_namespaces: namespaces("net"), dir }
    }

    /// Descriptions of the remaining traces.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for process in fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
            let is_in = |kind: &str, known: &BTreeSet<PathBuf>| {
                fs::read_link(process.join("ns").join(kind)).is_ok_and(|namespace| known.contains(&namespace))
            };
            let words = fs::read(process.join("cmdline")).unwrap_or_default();
            let names_it = String::from_utf8_lossy(&words).contains(self.dir.to_str().unwrap());
            if is_in("pid", &self.process_namespaces) || is_in("net", &self.network_namespaces) || names_it {
                left.push(format!("process {} {}", process.display(), String::from_utf8_lossy(&words)));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(self.dir.to_str().unwrap())).map(str::to_owned));
        if Path::new("/sys/class/net").join(format!("gd-{}", self.name)).exists() {
            left.push("the link to the host".to_owned());
        }
        left.extend(control_groups(&format!("gpu-dra-{}", self.name)));
        if self.dir.exists() {
            left.push(self.dir.display().to_string());
        }
        left
    }

    fn wait_until_nothing_is_left(&self) {
        let mut last = Vec::new();
        let answer = dra_cluster::until("the cluster's end", LIMIT, &self.dir, || {
            last = self.left();
            Ok(last.is_empty().then_some(()))
        });
        assert!(answer.is_ok(), "left: {last:#?}");
    }
}

fn control_groups(part: &str) -> Vec<String> {
    let mut find = Command::new("find");
    find.args(["/sys/fs/cgroup", "-type", "d", "-path", &format!("*{part}*")]);
    let output = find.output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// A separate process that owns a cluster, killed at the end of the test.
struct Owner(Child);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.kill().ok(); // fails if the owner has already exited
        self.0.wait().ok();
    }
}

/// Starts an owner and waits until its cluster is ready.
fn start_owner(name: &str) -> Owner {
    // A shell starts background jobs with SIGINT ignored, and tests may run in one; but Ctrl-C in a terminal is not ignored.
    let mut owner = Command::new("env");
    owner.args(["--default-signal=INT", env!("CARGO_BIN_EXE_gpu-cluster")]);
    owner.args(["run", "--name", name, "--node", "none", "--", "sh", "-c", "echo ready; exec sleep inf"]);
    let mut owner = owner.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    Owner(owner)
}

/// Starts an owner, gives its cluster a pod, and ends the owner with this signal.
fn check_end_of_owner(name: &str, signal: &str) {
    let _lock = ONE_AT_A_TIME.lock();
    let mut owner = start_owner(name);
    let cluster = Cluster::open(name).unwrap();
    start_pod(&cluster);
    let traces = Traces::of(&cluster);
    assert!(traces.left().len() > 10, "the traces of a live cluster are seen");
    assert!(!control_groups(&format!("gpu-dra-{name}")).is_empty(), "its containers have control groups");
    Command::new("kill").args([signal, &owner.0.id().to_string()]).status().unwrap();
    owner.0.wait().unwrap();
    traces.wait_until_nothing_is_left();
}

fn start_pod(cluster: &Cluster) {
    let command = ["run", "sleeper", "--image=localhost/gpu-demo:latest", "--image-pull-policy=Never"];
    cluster.kubectl(&[&command[..], &["--", "sleep", "inf"]].concat()).unwrap();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s"]).unwrap();
}

#[test]
fn two_clusters_run_side_by_side_and_leave_nothing_when_stopped() {
    let _lock = ONE_AT_A_TIME.lock();
    let (first, second) = (ClusterOptions::plain(1), ClusterOptions::plain(1));
    let first = Cluster::start(&first).unwrap();
    let second = Cluster::start(&second).unwrap();
    start_pod(&first);
    assert_eq!(second.kubectl(&["get", "pods"]).unwrap(), "", "the second cluster knows nothing of the first");
    let traces = [Traces::of(&first), Traces::of(&second)];
    first.stop().unwrap();
    traces[0].wait_until_nothing_is_left();
    start_pod(&second);
    second.stop().unwrap();
    traces[1].wait_until_nothing_is_left();
}

#[test]
fn nothing_is_left_when_the_owner_is_killed() {
    check_end_of_owner("killed", "-KILL");
}

#[test]
fn nothing_is_left_after_ctrl_c() {
    check_end_of_owner("ctrl-c", "-INT");
}

#[test]
fn leftovers_of_a_killed_watchdog_are_swept() {
    let _lock = ONE_AT_A_TIME.lock();
    let cluster = Cluster::start(&ClusterOptions::plain(1)).unwrap();
    start_pod(&cluster);
    let traces = Traces::of(&cluster);
    let watchdog = fs::read_to_string(traces.dir.join("watchdog.pid")).unwrap();
    Command::new("kill").args(["-KILL", watchdog.trim()]).status().unwrap();
    dra_cluster::until("the sweep", LIMIT, &traces.dir, || {
        Ok(dra_cluster::sweep()?.contains(&traces.name).then_some(()))
    })
    .unwrap();
    traces.wait_until_nothing_is_left();
    cluster.stop().unwrap();
}
