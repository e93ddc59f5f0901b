// SPDX-License-Identifier: Apache-2.0
//! A thousand MPS claims come and go, eight at a time: what is left of them on the node.

use std::time::{Duration, Instant};

use dra_proto::dra_v1::Claim;
use futures::future::join_all;

use crate::claims::{RequestKind, prepare, unprepare};
use crate::figures::{Figure, Samples, Unit, count, milliseconds};
use crate::footprint::{Counts, Footprint};
use crate::stage::Stage;

/// Claims, each with a daemon that is started and stopped.
const ROUNDS: usize = 1000;
/// Before those: more than the driver remembers the last report of, so that such memory is full.
const WARM_UP: usize = 304;
/// What both processes may grow by, in MiB. It levels off: each thread's part of the heap is touched bit by bit.
const GROWTH: f64 = 2.0;

/// The node before and after.
#[derive(Debug)]
pub(crate) struct Rounds {
    before: Footprint,
    after: Footprint,
    took: Took,
}

/// What each eight took.
#[derive(Debug, Default)]
struct Took {
    prepare: Samples,
    unprepare: Samples,
}

pub(crate) async fn measure(stage: &Stage<'_>) -> Rounds {
    let gpus = stage.devices.len();
    let claims = stage.create_claims("round", RequestKind::Mps, gpus, WARM_UP + ROUNDS).await;
    let (warm_up, counted) = claims.split_at(WARM_UP);
    Took::of(stage, warm_up.chunks(gpus)).await;
    let before = stage.footprint(None).await;
    let took = Took::of(stage, counted.chunks(gpus)).await;
    let after = stage.footprint(Some(&before)).await;
    Rounds { before, after, took }
}

impl Took {
    async fn of(stage: &Stage<'_>, rounds: impl Iterator<Item = &[Claim]>) -> Self {
        let mut took = Self::default();
        for claims in rounds {
            let began = Instant::now();
            join_all(claims.iter().map(|claim| prepare(stage.kubelet.clone(), claim.clone()))).await;
            took.prepare.push(began.elapsed());
            join_all(claims.iter().map(|claim| stage.reports.until_reported(claim))).await;
            let began = Instant::now();
            join_all(claims.iter().map(|claim| unprepare(stage.kubelet.clone(), claim.clone()))).await;
            took.unprepare.push(began.elapsed());
        }
        took
    }
}

impl Rounds {
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let Self { before, after, took } = self;
        let left = |what: &str, of: fn(&Counts) -> usize| {
            let name = format!("{what} left by {ROUNDS} MPS claims");
            let left = count(of(&after.counts)) - count(of(&before.counts));
            Figure::promised(&name, left, Unit::Count, 0.0)
        };
        let plugin = after.plugin_memory - before.plugin_memory;
        let mps_host = after.mps_host_memory - before.mps_host_memory;
        let memory = format!("memory of plugin and MPS host left by {ROUNDS} MPS claims");
        let measured = |name: &str, took: Duration| Figure::measured(name, milliseconds(took), Unit::Milliseconds);
        vec![
            left("processes", |counts| counts.processes),
            left("threads", |counts| counts.threads),
            left("open files", |counts| counts.open_files),
            left("files and directories", |counts| counts.files),
            left("mounts", |counts| counts.mounts),
            Figure::promised(&memory, plugin + mps_host, Unit::Mib, GROWTH),
            Figure::measured("memory of the plugin left by those", plugin, Unit::Mib),
            Figure::measured("memory of the MPS host left by those", mps_host, Unit::Mib),
            measured("prepare of eight MPS claims at once, p50", took.prepare.p50()),
            measured("unprepare of eight MPS claims at once, p50", took.unprepare.p50()),
        ]
    }
}
