// SPDX-License-Identifier: Apache-2.0
//! `gpu-cluster`: starts and stops clusters from a shell. See `gpu-cluster --help`.

use clap::{Parser, Subcommand};
use dra_cluster::{Build, Cluster, ClusterOptions, NodeOptions, Result};
use std::{
    error::Error,
    io::Write,
    path::PathBuf,
    process::{Command, ExitCode},
};

const BUILD: Build = Build::of(cfg!(debug_assertions));

/// Runs a real Kubernetes cluster with simulated GPUs on this machine.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build the programs and images of the cluster into the cache.
    Build,
    /// Start a cluster that runs until `down`.
    Up(Up),
    /// Start a cluster, run a command with it, and remove it.
    Run(Run),
    /// Stop and remove a cluster.
    Down(Named),
    /// Print the environment for a shell: eval "$(gpu-cluster env)".
    Env(Named),
    /// Run a command on a node, outside of any container.
    Exec(Exec),
    /// Remove the leftovers of killed clusters.
    Sweep,
}

#[derive(Debug, clap::Args)]
struct Named {
    /// The cluster's name.
    #[arg(long, default_value = "gpu")]
    name: String,
}

#[derive(Debug, clap::Args)]
struct Up {
    #[command(flatten)]
    cluster: Named,
    /// A node and its GPUs, such as h100:8 or a100-40:2,t4:2; "none" for a node without. Once per node.
    #[arg(long = "node", default_values_t = ["none".to_owned(), "none".to_owned()])]
    nodes: Vec<String>,
    /// The gpu-sim program, needed where a node has GPUs.
    #[arg(long, value_name = "PATH")]
    gpu_sim: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Run {
    #[command(flatten)]
    up: Up,
    /// The command and its arguments; it finds kubectl, helm and the kubeconfig in its environment.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Exec {
    #[command(flatten)]
    cluster: Named,
    /// The node, such as node-1.
    node: String,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            eprintln!("gpu-cluster: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Build => {
            dra_cluster::build_programs(BUILD)?;
            dra_cluster::demo_image()?;
        }
        Verb::Up(up) => Cluster::start(&options_of(up))?.leave_running()?,
        Verb::Run(run) => return run_with_cluster(run),
        Verb::Down(named) => Cluster::open(&named.name)?.stop()?,
        Verb::Env(named) => print_env(&Cluster::open(&named.name)?),
        Verb::Exec(exec) => return run_on_node(&exec),
        Verb::Sweep => {
            for name in dra_cluster::sweep()? {
                eprintln!("removed the leftovers of {name}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn options_of(up: Up) -> ClusterOptions {
    let Up { cluster, nodes, gpu_sim } = up;
    let node = |gpus: String| NodeOptions { gpus: (gpus != "none").then_some(gpus) };
    ClusterOptions { name: Some(cluster.name), nodes: nodes.into_iter().map(node).collect(), gpu_sim, build: BUILD }
}

fn print_env(cluster: &Cluster) {
    let text = format!(
        "export KUBECONFIG='{}'; export PATH='{}':\"$PATH\"\n",
        cluster.kubeconfig_path().display(),
        cluster.programs().dir().display()
    );
    // Errors mean that the reader closed standard output.
    std::io::stdout().write_all(text.as_bytes()).ok();
}

fn run_with_cluster(run: Run) -> Result<ExitCode> {
    let cluster = Cluster::start(&options_of(run.up))?;
    // The command is terminated with this process.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).args(&run.command);
    let code = code_of(cluster.equip(&mut command));
    cluster.stop()?;
    Ok(code)
}

fn run_on_node(exec: &Exec) -> Result<ExitCode> {
    let cluster = Cluster::open(&exec.cluster.name)?;
    let mut command = cluster.node(&exec.node)?.command("env")?;
    Ok(code_of(command.args(&exec.command)))
}

/// Runs a command with our own input and output; its exit status is ours.
fn code_of(command: &mut Command) -> ExitCode {
    let code = command.status().map_or(None, |status| status.code());
    let code = code.and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
