// SPDX-License-Identifier: Apache-2.0
//! The figures of `SPECIFICATION.md`: the real programs, a real API server, eight simulated GPUs, and us as the kubelet.
//!
//! ```text
//! stage (cluster, plugin, controller) -> one_by_one, at_once, idle, mig -> figures -> table and target/bench.json
//! ```
//!
//! All times are taken side by side in one run, because absolute times of a shared machine say little. A missed target
//! is told and is no error: this is a benchmark, not a test.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark stops at the first surprise and says which, and prints what it found"
)]

mod at_once;
mod claims;
mod figures;
mod idle;
mod memory;
mod mig;
mod one_by_one;
mod reports;
mod stage;

use dra_cluster::{Cluster, ClusterOptions};
use dra_proto::dra_v1::Claim;
use dra_tests::source::root_dir;

use crate::at_once::Together;
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

fn main() {
    // `cargo test --all-targets` runs this program too, and asks for nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("figures are taken by `cargo bench`");
        return;
    }
    let cluster = Cluster::start(&ClusterOptions::default()).expect("a cluster starts");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let figures = runtime.block_on(measure(&cluster));
    cluster.stop().expect("the cluster stops");
    print(&figures);
    let path = write(&figures, &root_dir().join("target"));
    println!("written to {}", path.display());
}

async fn measure(cluster: &Cluster) -> Vec<Figure> {
    let stage = Stage::set(cluster).await;
    let started = stage.rss();
    let one_by_one = stage.create_claims("alone", (WARM_UP + ROUNDS) * ALONE).await;
    let at_once = stage.create_claims("together", (WARM_UP + ROUNDS) * stage.devices.len()).await;
    let rounds = || one_by_one.chunks(ALONE).zip(at_once.chunks(stage.devices.len()));
    measure_rounds(&stage, rounds().take(WARM_UP)).await;
    let (alone, together) = measure_rounds(&stage, rounds().skip(WARM_UP)).await;
    let worked = stage.rss();
    eprintln!("one idle minute");
    let quiet = idle::measure(&stage).await;
    let idle = stage.rss();
    let mig = mig::measure(&stage).await;
    let stopped = stage.strike().await;

    let mut figures = alone.figures();
    figures.extend(together.figures(alone.prepare.p50()));
    figures.extend(memory_figures(&started, &worked, &idle));
    figures.extend(quiet.figures());
    figures.extend(mig.figures());
    figures.push(Figure::told("both processes ended cleanly on SIGTERM", f64::from(u8::from(stopped)), Unit::Count));
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
        Figure::told("memory of the plugin, idle", idle.plugin.all, Unit::Mib),
        Figure::told("memory of the plugin, idle, without pages of files", idle.plugin.anonymous, Unit::Mib),
        Figure::told("memory of the controller, idle", idle.controller.all, Unit::Mib),
        Figure::told("memory of the controller, idle, without pages of files", idle.controller.anonymous, Unit::Mib),
        Figure::told("memory of both, after start", started.all(), Unit::Mib),
        Figure::told("memory of both, right after the claims", worked.all(), Unit::Mib),
    ]
}
