// SPDX-License-Identifier: Apache-2.0
//! The figures of `SPECIFICATION.md`: the real programs with NVIDIA's own MPS daemons, a real API server, eight simulated
//! GPUs, and us as the kubelet.
//!
//! ```text
//! stage (cluster, plugin, controller, MPS host)
//!   -> one_by_one, at_once, driver, idle, mps, shares, rounds, partitions, scheduling, faults, moves, mig -> figures -> table and
//!      target/bench.json
//! ```
//!
//! All times are taken side by side in one run, because absolute times of a shared machine say little. A missed target is
//! reported at the end and makes the run a failure. `cargo bench -p dra-tests -- PART...` takes only the figures of some
//! parts, and leaves `bench.json` as it is.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark stops at the first surprise and says which, and prints what it found"
)]

mod at_once;
mod claims;
mod driver;
mod faults;
mod figures;
mod footprint;
mod fragmentation;
mod idle;
mod memory;
mod mig;
mod moves;
mod mps;
mod mps_host;
mod namespace;
mod one_by_one;
mod partitions;
mod reports;
mod rounds;
mod scheduling;
mod shares;
mod stage;

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use dra_cluster::{Cluster, ClusterOptions};
use dra_proto::dra_v1::Claim;
use dra_tests::source::root_dir;

use crate::at_once::Together;
use crate::claims::RequestKind;
use crate::figures::{Figure, Unit, print, write};
use crate::memory::Rss;
use crate::one_by_one::Alone;
use crate::stage::Stage;

/// Rounds of a few claims one by one and then as many as there are GPUs at once: both in turn, so that each figure is
/// taken beside the one it is compared with.
const ROUNDS: usize = 50;
/// Rounds before those, which warm caches and connections and are not counted.
const WARM_UP: usize = 10;
/// Claims one by one in each round.
const ALONE: usize = 5;

/// What `cargo bench` is asked for.
#[derive(Debug, Parser)]
struct Args {
    /// Said by `cargo bench` itself.
    #[arg(long, hide = true)]
    bench: bool,
    /// Which figures to take [default: all]
    #[arg(value_enum)]
    parts: Vec<Part>,
}

/// What is measured together, in the order of measuring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Claims for whole GPUs, alone and eight at once
    Claims,
    /// The files of a whole driver
    Driver,
    /// A minute in which nothing happens
    Idle,
    /// MPS claims beside plain ones
    Mps,
    /// A hundred shares of one GPU
    Shares,
    /// A thousand daemons started and stopped
    Rounds,
    /// MIG devices created for claims, alone and eight at once
    Partitions,
    /// What the order of the MIG devices is worth
    Fragmentation,
    /// Pods for MIG devices that come and go, and the time of the scheduler
    Scheduling,
    /// GPUs that fail
    Faults,
    /// MIG devices made on the node, which stay there
    Mig,
}

fn main() -> ExitCode {
    // `cargo test --all-targets` runs this program too, and asks for nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("figures are taken by `cargo bench`");
        return ExitCode::SUCCESS;
    }
    let Args { bench: _, parts } = Args::parse();
    let cluster = Cluster::start(&ClusterOptions::default()).expect("a cluster starts");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let figures = runtime.block_on(measure(&cluster, &parts));
    cluster.stop().expect("the cluster stops");
    let all_reached = print(&figures);
    if parts.is_empty() {
        let path = write(&figures, &root_dir().join("target"));
        println!("written to {}", path.display());
    }
    if all_reached { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn measure(cluster: &Cluster, parts: &[Part]) -> Vec<Figure> {
    let mut stage = Stage::set(cluster).await;
    let started = stage.rss();
    let mut figures = Vec::new();
    for part in Part::value_variants() {
        if parts.is_empty() || parts.contains(part) {
            let began = Instant::now();
            figures.extend(part.measure(&mut stage, &started).await);
            stage.delete_claims().await;
            eprintln!("{:5.0} s for {part:?}", began.elapsed().as_secs_f64());
        }
    }
    let stopped = f64::from(u8::from(stage.strike().await));
    figures.push(Figure::measured("all processes ended cleanly on SIGTERM", stopped, Unit::Count));
    figures
}

impl Part {
    async fn measure(self, stage: &mut Stage<'_>, started: &Rss) -> Vec<Figure> {
        match self {
            Self::Claims => claims_of_gpus(stage).await,
            Self::Driver => driver::measure(),
            Self::Idle => idle_minute(stage, started).await,
            Self::Mps => mps::measure(stage).await.figures(),
            Self::Shares => shares::measure(stage).await.figures(),
            Self::Rounds => rounds::measure(stage).await.figures(),
            Self::Partitions => partitions::measure(stage).await.figures(),
            Self::Fragmentation => fragmentation::measure(),
            Self::Scheduling => scheduling::measure(stage).await.figures(),
            Self::Mig => mig::measure(stage).await.figures(),
            Self::Faults => {
                let faults = faults::measure(stage).await.figures();
                faults.into_iter().chain(moves::measure(stage).await.figures()).collect()
            }
        }
    }
}

async fn claims_of_gpus(stage: &Stage<'_>) -> Vec<Figure> {
    let gpus = stage.devices.len();
    let one_by_one = stage.create_claims("alone", RequestKind::Plain, gpus, (WARM_UP + ROUNDS) * ALONE).await;
    let at_once = stage.create_claims("together", RequestKind::Plain, gpus, (WARM_UP + ROUNDS) * gpus).await;
    let rounds = || one_by_one.chunks(ALONE).zip(at_once.chunks(gpus));
    measure_rounds(stage, rounds().take(WARM_UP)).await;
    let (alone, together) = measure_rounds(stage, rounds().skip(WARM_UP)).await;
    let mut figures = alone.figures();
    figures.extend(together.figures(alone.write.p50()));
    figures
}

async fn idle_minute(stage: &Stage<'_>, started: &Rss) -> Vec<Figure> {
    let worked = stage.rss();
    let quiet = idle::measure(stage).await;
    let mut figures = memory_figures(started, &worked, &stage.rss());
    figures.extend(quiet.figures());
    figures
}

async fn measure_rounds<'a>(
    stage: &Stage<'_>,
    rounds: impl Iterator<Item = (&'a [Claim], &'a [Claim])>,
) -> (Alone, Together) {
    let (mut alone, mut together) = (Alone::default(), Together::default());
    for (one_by_one, at_once) in rounds {
        alone.round(stage, one_by_one).await;
        together.round(stage, at_once).await;
    }
    (alone, together)
}

fn memory_figures(started: &Rss, worked: &Rss, idle: &Rss) -> Vec<Figure> {
    vec![
        Figure::promised("memory of plugin and controller together, idle, 8 GPUs", idle.all(), Unit::Mib, 20.0),
        Figure::measured("memory of the plugin, idle", idle.plugin.all, Unit::Mib),
        Figure::measured("memory of the plugin, idle, without pages of files", idle.plugin.anonymous, Unit::Mib),
        Figure::measured("memory of the controller, idle", idle.controller.all, Unit::Mib),
        Figure::measured(
            "memory of the controller, idle, without pages of files",
            idle.controller.anonymous,
            Unit::Mib,
        ),
        Figure::measured("memory of both, after start", started.all(), Unit::Mib),
        Figure::measured("memory of both, right after the claims", worked.all(), Unit::Mib),
    ]
}
