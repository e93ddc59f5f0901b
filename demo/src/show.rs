// SPDX-License-Identifier: Apache-2.0
//! The demo, from the start of a cluster to its removal, and a cluster that keeps running.

use crate::{
    args::Up,
    output::{print, print_gap, seconds, step},
};
use dra_cluster::{Build, Cluster, ClusterOptions, NodeOptions};
use dra_demo::{
    Doing, Repository, Result, Stage, driver, monitoring,
    published::Pool,
    scenes::{SCENES, Scene},
};
use std::{collections::BTreeMap, error::Error, iter, process, process::ExitCode, thread, time::Instant};
use tokio::{signal, sync::oneshot};

const NODES: &str = "h100:8 a100-40:2,t4:2";
/// Exit code of a program that Ctrl-C terminates.
const INTERRUPTED: u8 = 130;

/// Runs all scenes and removes the cluster.
pub(crate) fn run() -> ExitCode {
    let name = format!("d{}", process::id());
    let options_name = name.clone();
    until_interrupted(&name, move || {
        let begun = Instant::now();
        let cluster = started(&options_name, NODES)?;
        let repository = Repository::find()?;
        introduce(&deploy(&cluster, &repository)?);
        let stage = Stage { cluster: &cluster, repository: &repository };
        let outcome = (1..).zip(SCENES).try_for_each(|(number, scene)| show(&stage, number, scene));
        print_gap();
        let ended = step("Removing the cluster", || cluster.stop()).doing("remove the cluster");
        outcome?;
        ended?;
        print(
            0,
            format!("Total time {}. `make up` starts such a cluster that keeps running.", seconds(begun.elapsed())),
        );
        Ok(())
    })
}

/// Starts a cluster with the driver that keeps running.
pub(crate) fn up(up: &Up) -> ExitCode {
    let (name, nodes, with_monitoring) = (up.name.clone(), up.nodes.clone(), up.monitoring);
    until_interrupted(&up.name, move || {
        let cluster = started(&name, &nodes)?;
        let repository = Repository::find()?;
        introduce(&deploy(&cluster, &repository)?);
        let prometheus = if with_monitoring { Some(monitoring::start(&cluster, &repository)?) } else { None };
        cluster.leave_running().doing("leave the cluster running")?;
        print_gap();
        print(0, "The cluster is running. In a shell:");
        print(4, format!("eval \"$(target/debug/gpu-cluster env --name {name})\"\nkubectl get resourceslices"));
        print(4, "kubectl apply -f demo/workloads/one-gpu.yaml && kubectl logs -f one-gpu");
        if let Some(prometheus) = prometheus {
            print(0, format!("Prometheus with the rules of the chart: {}", prometheus.url()));
        }
        print(0, format!("Remove it with `target/debug/gpu-cluster down --name {name}`."));
        Ok(())
    })
}

fn started(name: &str, nodes: &str) -> Result<Cluster> {
    let gpu_sim = Repository::find()?.program_path("gpu-sim")?;
    let node = |gpus: &str| NodeOptions { gpus: (gpus != "none").then(|| gpus.to_owned()) };
    let nodes: Vec<_> = nodes.split_whitespace().map(node).collect();
    let what = format!("Starting Kubernetes 1.37 with {} nodes on this machine", nodes.len());
    let options = ClusterOptions {
        name: Some(name.to_owned()),
        nodes,
        gpu_sim: Some(gpu_sim),
        build: Build::of(cfg!(debug_assertions)),
    };
    step(&what, || Cluster::start(&options)).doing("start the cluster")
}

fn deploy(cluster: &Cluster, repository: &Repository) -> Result<BTreeMap<String, Pool>> {
    step("Building the driver's image from deploy/Containerfile", || driver::build_image(cluster, repository))?;
    step("helm install gpu-dra-driver deploy/chart", || driver::install(cluster, repository))
}

fn introduce(pools: &BTreeMap<String, Pool>) {
    print_gap();
    print(0, "The driver runs on every node and publishes these devices:");
    for (node, pool) in pools {
        let pool = pool.to_string().replace('\n', &format!("\n{:w$}  ", "", w = node.len()));
        print(4, format!("{node}  {pool}"));
    }
}

fn show(stage: &Stage<'_>, number: usize, scene: Scene) -> Result<()> {
    let Scene { title, description, command, play } = scene;
    print_gap();
    print(0, format!("{number}. {title}"));
    print(3, description);
    if let Some(command) = command {
        print(3, format!("$ {command}"));
    }
    let begun = Instant::now();
    let answer = play(stage)?;
    print(5, answer);
    print(3, seconds(begun.elapsed()));
    Ok(())
}

/// Runs work until it is complete, or until Ctrl-C, which removes the cluster.
fn until_interrupted(name: &str, work: impl FnOnce() -> Result<()> + Send + 'static) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let (done, answer) = oneshot::channel();
    thread::spawn(move || done.send(work()).ok());
    runtime.block_on(async {
        tokio::select! {
            answer = answer => match answer {
                Ok(Ok(())) => ExitCode::SUCCESS,
                Ok(Err(error)) => fail(&error),
                // The thread panicked: its message is printed, and dropping its cluster removed it.
                Err(_) => ExitCode::FAILURE,
            },
            // Without a signal handler Ctrl-C terminates this process, and with it the cluster.
            Ok(()) = signal::ctrl_c() => interrupted(name),
        }
    })
}

/// The worker thread may be blocked, so the cluster is removed from this thread.
fn interrupted(name: &str) -> ExitCode {
    print(0, "\nInterrupted: removing the cluster ...");
    // An error means that the cluster is not running. Its processes end with this process.
    Cluster::open(name).and_then(Cluster::stop).ok();
    ExitCode::from(INTERRUPTED)
}

fn fail(error: &dyn Error) -> ExitCode {
    let causes = iter::successors(Some(error), |&error| error.source());
    let causes: Vec<_> = causes.map(ToString::to_string).collect();
    eprintln!("gpu-demo: {}", causes.join(": "));
    ExitCode::FAILURE
}
