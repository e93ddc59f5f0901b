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
mod stage;

use dra_cluster::{Cluster, ClusterOptions};
use dra_tests::source::root_dir;

use crate::figures::{Figure, Unit, print, write};
use crate::memory::Rss;
use crate::stage::Stage;

/// Claims prepared alone: the first few warm caches and connections, the others are counted.
const ALONE: usize = 300;
/// Rounds of eight claims.
const ROUNDS: usize = 50;

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
    let mut stage = Stage::set(cluster).await;
    let started = stage.rss();
    let claims = stage.create_claims("alone", ALONE).await;
    let alone = one_by_one::measure(&mut stage, &claims).await;
    let claims = stage.create_claims("together", ROUNDS * stage.devices.len()).await;
    let together = at_once::measure(&mut stage, &claims).await;
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
