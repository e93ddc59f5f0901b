// SPDX-License-Identifier: Apache-2.0
//! Random faults, recoveries and crashes: what the slices, the health stream, the metrics and a prepare say of a GPU never
//! disagrees, and no more GPUs are evicted than the budget allows.
//!
//! The model is the promise: a GPU has the faults that it shows, a lost GPU has those from before as well because it cannot
//! disprove them, and one that came back three times stays out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dra_proto::health_v1::dra_resource_health_client::DraResourceHealthClient;
use dra_proto::health_v1::{HealthStatus, NodeWatchResourcesRequest};
use dra_sim::Code;
use dra_sim::state::{Fabric, State};
use dra_tests::api_server::Resource;
use dra_tests::program::Program;
use dra_tests::wait::within;
use dra_tests::{Mode, NewClaim, Node};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use tokio::time::timeout;

use crate::{by_name, channel, taints};

const GPUS: usize = 4;
/// Half of the GPUs.
const BUDGET: usize = 2;
const ROUNDS: usize = 20;
/// Shorter than other waits, so that what is published instead is printed.
const CONVERGENCE_TIMEOUT: Duration = Duration::from_secs(45);
/// Nodes at a time, each with rounds of its own.
const NODES: usize = 3;

/// What a GPU shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Well,
    Lost,
    NeedsDrain,
    NoImexDomain,
    RowRemap,
    NeedsDrainAndRowRemap,
    NoFabric,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    Nothing,
    /// Killed before the GPUs change, started after.
    PluginBefore,
    /// Killed and started right after the GPUs change.
    PluginAfter,
    Controller,
}

#[derive(Debug, Clone)]
struct Round {
    changes: BTreeMap<usize, Condition>,
    crash: Crash,
}

fn round() -> impl Strategy<Value = Round> {
    use Condition::{Lost, NeedsDrain, NeedsDrainAndRowRemap, NoFabric, NoImexDomain, RowRemap, Well};
    let condition = prop_oneof![
        3 => Just(Well),
        3 => Just(Lost),
        4 => prop::sample::select(vec![NeedsDrain, NoImexDomain, RowRemap, NeedsDrainAndRowRemap, NoFabric]),
    ];
    let crash = prop_oneof![
        3 => Just(Crash::Nothing),
        3 => prop::sample::select(vec![Crash::PluginBefore, Crash::PluginAfter, Crash::Controller]),
    ];
    let changes = prop::collection::btree_map(0..GPUS, condition, 1..=GPUS);
    (changes, crash).prop_map(|(changes, crash)| Round { changes, crash })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Lost,
    NeedsDrain,
    NoImexDomain,
    RowRemap,
    NoFabric,
    Unstable,
}

impl Fault {
    /// Cause, value and effect of its taint without a budget.
    const fn taint(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Lost => ("gpu-lost", "lost", "NoExecute"),
            Self::NeedsDrain => ("recovery", "drain-p2p", "NoSchedule"),
            Self::NoImexDomain => ("recovery", "imex-domain", "None"),
            Self::RowRemap => ("reset-advised", "row-remap", "None"),
            Self::NoFabric => ("fabric", "pending", "NoSchedule"),
            Self::Unstable => ("unstable", "unstable", "NoSchedule"),
        }
    }

    const fn health(self) -> HealthStatus {
        match self {
            Self::Lost | Self::NeedsDrain | Self::Unstable => HealthStatus::Unhealthy,
            Self::NoFabric => HealthStatus::Unknown,
            Self::NoImexDomain | Self::RowRemap => HealthStatus::Healthy,
        }
    }
}

impl Condition {
    fn faults(self) -> BTreeSet<Fault> {
        match self {
            Self::Well => [].into(),
            Self::Lost => [Fault::Lost].into(),
            Self::NeedsDrain => [Fault::NeedsDrain].into(),
            Self::NoImexDomain => [Fault::NoImexDomain].into(),
            Self::RowRemap => [Fault::RowRemap].into(),
            Self::NeedsDrainAndRowRemap => [Fault::NeedsDrain, Fault::RowRemap].into(),
            Self::NoFabric => [Fault::NoFabric].into(),
        }
    }

    fn set(self, state: &mut State, gpu: usize) -> Result<(), Code> {
        let faults = self.faults();
        let simulated = &mut state.gpus[gpu];
        simulated.recovery_action = match self {
            Self::NeedsDrain | Self::NeedsDrainAndRowRemap => 3,
            Self::NoImexDomain => 5,
            Self::Well | Self::Lost | Self::RowRemap | Self::NoFabric => 0,
        };
        simulated.memory_errors.remap_pending = faults.contains(&Fault::RowRemap);
        simulated.fabric = if self == Self::NoFabric { Fabric::Pending } else { Fabric::Completed };
        match (self, simulated.lost) {
            (Self::Lost, false) => state.lose_gpu(gpu),
            (Self::Lost, true) => Ok(()),
            _ => {
                simulated.lost = false;
                Ok(())
            }
        }
    }
}

/// What is expected of one GPU.
#[derive(Debug, Clone, Default)]
struct Expected {
    faults: BTreeSet<Fault>,
    recoveries: usize,
}

impl Expected {
    fn is_out(&self) -> bool {
        self.faults.iter().any(|fault| fault.health() == HealthStatus::Unhealthy)
    }

    fn show(&mut self, condition: Condition) {
        let was_out = self.is_out();
        let stay = |fault: &Fault| condition == Condition::Lost || *fault == Fault::Unstable;
        self.faults = self.faults.iter().copied().filter(stay).chain(condition.faults()).collect();
        if was_out && !self.is_out() {
            self.recoveries += 1;
            if self.recoveries == 3 {
                self.faults.insert(Fault::Unstable);
            }
        }
    }

    fn health(&self) -> HealthStatus {
        let has = |health| self.faults.iter().any(|fault| fault.health() == health);
        let worst = [HealthStatus::Unhealthy, HealthStatus::Unknown].into_iter().find(|health| has(*health));
        worst.unwrap_or(HealthStatus::Healthy)
    }

    /// Cause, value and effect of each taint, by whether its pods are evicted. The strongest fault of a cause counts.
    fn taints(&self, is_evicted: bool) -> BTreeSet<(String, String, String)> {
        let of_fault = |fault: &Fault| {
            let (cause, value, effect) = fault.taint();
            let effect = if effect == "NoExecute" && !is_evicted { "NoSchedule" } else { effect };
            (format!("gpu.nvidia.com/{cause}"), value.to_owned(), effect.to_owned())
        };
        let is_hidden = |fault: &Fault| *fault == Fault::NoImexDomain && self.faults.contains(&Fault::NeedsDrain);
        self.faults.iter().filter(|fault| !is_hidden(fault)).map(of_fault).collect()
    }
}

/// A node with its processes, and what is expected of it.
struct Played {
    node: Node,
    plugin: Program,
    controller: Program,
    gpus: Vec<Expected>,
    evicted: BTreeSet<usize>,
    claims: usize,
}

impl Played {
    async fn start() -> Self {
        let mut node = Node::new(&format!("h100:{GPUS}"));
        node.flags = vec!["--health-eviction-percent=50".to_owned(), "--health-poll-seconds=1".to_owned()];
        let plugin = node.start(Mode::Process).await;
        let controller = node.start_controller("1");
        let gpus = vec![Expected::default(); GPUS];
        let mut played = Self { node, plugin, controller, gpus, evicted: BTreeSet::new(), claims: 0 };
        // A GPU that no plugin has seen cannot be published from what was known.
        played.until_taints().await;
        played
    }

    async fn play(&mut self, round: &Round) {
        if round.crash == Crash::PluginBefore {
            self.plugin.kill().await;
        }
        self.node.gpus.change(|state| round.changes.iter().try_for_each(|(gpu, condition)| condition.set(state, *gpu)));
        for (gpu, condition) in &round.changes {
            self.gpus[*gpu].show(*condition);
        }
        match round.crash {
            Crash::Nothing => {}
            Crash::PluginBefore => self.plugin = self.node.start(Mode::Process).await,
            Crash::PluginAfter => {
                self.plugin.kill().await;
                self.plugin = self.node.start(Mode::Process).await;
            }
            Crash::Controller => {
                self.controller.kill().await;
                self.controller = self.node.start_controller("1");
            }
        }
        self.until_taints().await;
        self.until_metrics().await;
        self.until_stream().await;
        for gpu in 0..GPUS {
            self.prepare(gpu).await;
        }
    }

    /// Of several GPUs that are lost in one round any may be evicted first; one that was evicted before has its place.
    async fn until_taints(&mut self) {
        let lost: BTreeSet<usize> = (0..GPUS).filter(|gpu| self.gpus[*gpu].faults.contains(&Fault::Lost)).collect();
        let stay: BTreeSet<usize> = self.evicted.intersection(&lost).copied().collect();
        let names: Vec<String> = (0..GPUS).map(|gpu| self.node.gpus.name(gpu)).collect();
        let as_expected = |slices: &[Value]| {
            let published: Vec<_> = names.iter().map(|name| taints(slices, name).map(without_unusable)).collect();
            let published: Vec<_> = published.into_iter().collect::<Option<_>>()?;
            let evicts = |gpu: &usize| published[*gpu].iter().any(|(.., effect)| effect == "NoExecute");
            let evicted: BTreeSet<usize> = (0..GPUS).filter(evicts).collect();
            assert!(evicted.len() <= BUDGET, "{evicted:?} are evicted");
            let all = (0..GPUS).all(|gpu| published[gpu] == self.gpus[gpu].taints(evicted.contains(&gpu)));
            (all && evicted.len() == lost.len().min(BUDGET) && evicted.is_superset(&stay)).then_some(evicted)
        };
        let published = self.node.api.until("taints as expected", Resource::ResourceSlices, as_expected);
        self.evicted = timeout(CONVERGENCE_TIMEOUT, published).await.unwrap_or_else(|_elapsed| {
            let slices = self.node.api.list(Resource::ResourceSlices);
            let published: Vec<_> = names.iter().map(|name| taints(&slices, name)).collect();
            panic!("expected {:?} with the evictions {stay:?}, published {published:#?}", self.gpus)
        });
    }

    async fn until_metrics(&self) {
        let mut lines = BTreeSet::new();
        for (gpu, expected) in self.gpus.iter().enumerate() {
            let device = self.node.gpus.name(gpu);
            let healthy = u8::from(expected.health() == HealthStatus::Healthy);
            lines.insert(format!("gpu_dra_gpu_healthy{{device=\"{device}\"}} {healthy}"));
            for (key, _, effect) in expected.taints(self.evicted.contains(&gpu)) {
                let cause = key.trim_start_matches("gpu.nvidia.com/");
                lines.insert(format!(
                    "gpu_dra_gpu_fault{{device=\"{device}\",cause=\"{cause}\",effect=\"{effect}\"}} 1"
                ));
            }
            if expected.faults.contains(&Fault::Lost) && !self.evicted.contains(&gpu) {
                lines.insert(format!("gpu_dra_gpu_eviction_held_back{{device=\"{device}\"}} 1"));
            }
        }
        let names = ["gpu_dra_gpu_healthy{", "gpu_dra_gpu_fault{", "gpu_dra_gpu_eviction_held_back{"];
        let is_of_health = |line: &&str| names.iter().any(|name| line.starts_with(name));
        let wanted = |_, body: &str| {
            let found: BTreeSet<String> = body.lines().filter(is_of_health).map(str::to_owned).collect();
            (found == lines).then_some(())
        };
        self.plugin.until_http("/metrics", wanted).await;
    }

    /// What the kubelet knows of every device.
    async fn until_stream(&self) {
        let mut client = DraResourceHealthClient::new(channel(&self.node).await);
        let mut stream = client.node_watch_resources(NodeWatchResourcesRequest {}).await.unwrap().into_inner();
        let as_expected = async {
            loop {
                let devices = by_name(stream.message().await.unwrap().unwrap());
                let is_expected = |(name, (health, _)): (&String, &(HealthStatus, String))| {
                    let gpu = (0..GPUS).find(|gpu| name.starts_with(&self.node.gpus.name(*gpu))).unwrap();
                    *health == self.gpus[gpu].health()
                };
                if !devices.is_empty() && devices.iter().all(is_expected) {
                    break;
                }
            }
        };
        within(&format!("the health stream shows {:?}", self.gpus), as_expected).await;
    }

    /// A claim for the GPU is refused while it is unhealthy, and only then.
    async fn prepare(&mut self, gpu: usize) {
        self.claims += 1;
        let claim = NewClaim::of(&format!("claim-{}", self.claims), &self.node.gpus.name(gpu)).create(&self.node.api);
        match (self.node.kubelet.prepare(&claim).await, self.gpus[gpu].is_out()) {
            (Ok(_), false) => self.node.kubelet.unprepare(&claim).await.unwrap(),
            (Err(refused), true) => assert!(refused.contains("cannot be used"), "{refused}"),
            (answer, _) => panic!("GPU {gpu}: {answer:?} of {:?}", self.gpus[gpu]),
        }
    }
}

/// Without the taint of a GPU whose details cannot be read, which says the same as the loss.
fn without_unusable(taints: BTreeSet<(String, String, String)>) -> BTreeSet<(String, String, String)> {
    taints.into_iter().filter(|(key, ..)| key != "gpu.nvidia.com/unusable").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_slices_stream_metrics_and_prepares_agree_within_the_budget() {
    let mut runner = TestRunner::default();
    let sequences: Vec<Vec<Round>> = vec(vec(round(), ROUNDS), NODES).new_tree(&mut runner).unwrap().current();
    let nodes = sequences.into_iter().map(|rounds| {
        tokio::spawn(async move {
            let mut played = Played::start().await;
            for round in &rounds {
                eprintln!("{}: {round:?}", played.node.dir().display());
                played.play(round).await;
            }
        })
    });
    for node in nodes.collect::<Vec<_>>() {
        node.await.unwrap();
    }
}
