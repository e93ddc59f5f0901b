// SPDX-License-Identifier: Apache-2.0
//! MIG devices that are created for claims: one beside a plain claim, and one on each of eight GPUs at once.
//!
//! The simulated GPUs take no time to change MIG mode or to create an instance, so one claim shows the driver's own part. Whether
//! GPUs wait for each other shows when the hardware takes its time.

use std::time::{Duration, Instant};

use dra_proto::dra_v1::Claim;
use futures::future::join_all;

use crate::claims::{RequestKind, prepare, unprepare};
use crate::figures::{Figure, Samples, Unit, milliseconds};
use crate::stage::Stage;

const ROUNDS: usize = 30;
/// Rounds before those, which are not counted.
const WARM_UP: usize = 5;
/// Further rounds with hardware that takes its time.
const SLOW_ROUNDS: usize = 10;
/// Milliseconds of each of the two calls that create an instance, in those rounds.
const CREATION: u64 = 100;

/// From call to answer.
#[derive(Debug, Default)]
pub(crate) struct Partitions {
    plain: Samples,
    one: Samples,
    unprepare: Samples,
    at_once: Samples,
    slow_one: Samples,
    slow_at_once: Samples,
}

pub(crate) async fn measure(stage: &Stage<'_>) -> Partitions {
    let gpus = stage.devices.len();
    let rounds = WARM_UP + ROUNDS;
    let plain = stage.create_claims("plain", RequestKind::Plain, gpus, rounds).await;
    let alone = stage.create_claims("partition", RequestKind::Partition, gpus, rounds).await;
    let together = stage.create_claims("partitions", RequestKind::Partition, gpus, rounds * gpus).await;
    let mut found = Partitions::default();
    for (round, ((plain, alone), together)) in plain.iter().zip(&alone).zip(together.chunks(gpus)).enumerate() {
        let taken = one_round(stage, plain, alone, together).await;
        if round >= WARM_UP {
            found.add(taken);
        }
    }
    let rounds = SLOW_ROUNDS;
    let alone = stage.create_claims("slow-partition", RequestKind::Partition, gpus, rounds).await;
    let together = stage.create_claims("slow-partitions", RequestKind::Partition, gpus, rounds * gpus).await;
    for gpu in 0..gpus {
        stage.gpus.delay("nvmlDeviceCreateGpuInstance*", CREATION, gpu);
        stage.gpus.delay("nvmlGpuInstanceCreateComputeInstance*", CREATION, gpu);
    }
    for (alone, together) in alone.iter().zip(together.chunks(gpus)) {
        found.slow_one.push(both(stage, std::slice::from_ref(alone)).await.0);
        found.slow_at_once.push(both(stage, together).await.0);
    }
    stage.gpus.heal();
    found
}

#[derive(Clone, Copy)]
struct Round {
    plain: Duration,
    one: Duration,
    unprepare: Duration,
    at_once: Duration,
}

async fn one_round(stage: &Stage<'_>, plain: &Claim, alone: &Claim, together: &[Claim]) -> Round {
    let (plain_took, _) = both(stage, std::slice::from_ref(plain)).await;
    let (one, unprepare) = both(stage, std::slice::from_ref(alone)).await;
    let (at_once, _) = both(stage, together).await;
    Round { plain: plain_took, one, unprepare, at_once }
}

/// Prepares claims at once, and unprepares them at once after their status is written.
async fn both(stage: &Stage<'_>, claims: &[Claim]) -> (Duration, Duration) {
    let began = Instant::now();
    join_all(claims.iter().map(|claim| prepare(stage.kubelet.clone(), claim.clone()))).await;
    let prepared = began.elapsed();
    join_all(claims.iter().map(|claim| stage.reports.until_reported(claim))).await;
    let began = Instant::now();
    join_all(claims.iter().map(|claim| unprepare(stage.kubelet.clone(), claim.clone()))).await;
    (prepared, began.elapsed())
}

impl Partitions {
    fn add(&mut self, round: Round) {
        self.plain.push(round.plain);
        self.one.push(round.one);
        self.unprepare.push(round.unprepare);
        self.at_once.push(round.at_once);
    }

    pub(crate) fn figures(&self) -> Vec<Figure> {
        let Self { plain, one, unprepare, at_once, slow_one, slow_at_once } = self;
        let beyond = one.p50().saturating_sub(plain.p50());
        let ratio = |eight: &Samples, one: &Samples| eight.p50().as_secs_f64() / one.p50().as_secs_f64();
        let measured = |name: &str, took: Duration| Figure::measured(name, milliseconds(took), Unit::Milliseconds);
        vec![
            Figure::promised(
                "a MIG device created for a claim, beyond a plain claim, p50",
                milliseconds(beyond),
                Unit::Milliseconds,
                5.0,
            ),
            Figure::promised(
                "eight MIG devices on eight GPUs at once, p50, to one, with hardware of 200 ms",
                ratio(slow_at_once, slow_one),
                Unit::Ratio,
                2.0,
            ),
            Figure::measured("the same with hardware that takes no time", ratio(at_once, one), Unit::Ratio),
            measured("prepare of a claim with a MIG device to create, p50", one.p50()),
            measured("unprepare of such a claim, p50", unprepare.p50()),
            measured("prepare of eight on eight GPUs at once, p50", at_once.p50()),
        ]
    }
}
