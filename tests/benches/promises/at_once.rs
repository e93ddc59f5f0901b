// SPDX-License-Identifier: Apache-2.0
//! Eight pods start at once on eight GPUs: a call of the kubelet for each.

use std::time::{Duration, Instant};

use dra_proto::dra_v1::Claim;
use futures::future::join_all;

use crate::claims::{prepare, unprepare};
use crate::figures::{Figure, Samples, Unit, milliseconds};
use crate::stage::Stage;

/// From the first call to the last answer, for each round.
#[derive(Debug, Default)]
pub(crate) struct Together {
    prepare: Samples,
    unprepare: Samples,
}

pub(crate) async fn measure(stage: &mut Stage<'_>, claims: &[Claim]) -> Together {
    let mut together = Together::default();
    for round in claims.chunks(stage.devices.len()) {
        let began = Instant::now();
        join_all(round.iter().map(|claim| prepare(stage.kubelet.clone(), claim.clone()))).await;
        together.prepare.push(began.elapsed());
        join_all(round.iter().map(|claim| stage.until_reported(claim))).await;

        let began = Instant::now();
        join_all(round.iter().map(|claim| unprepare(stage.kubelet.clone(), claim.clone()))).await;
        together.unprepare.push(began.elapsed());
    }
    together
}

impl Together {
    /// `alone` is the median of one claim.
    pub(crate) fn figures(&self, alone: Duration) -> Vec<Figure> {
        let Self { prepare, unprepare } = self;
        let ratio = prepare.p50().as_secs_f64() / alone.as_secs_f64();
        let told = |name: &str, took: Duration| Figure::told(name, milliseconds(took), Unit::Milliseconds);
        vec![
            Figure::promised("prepare of eight GPUs at once, p50, to one claim", ratio, Unit::Ratio, 3.0),
            told("prepare of eight GPUs at once, p50", prepare.p50()),
            told("prepare of eight GPUs at once, p99", prepare.p99()),
            told("unprepare of eight GPUs at once, p50", unprepare.p50()),
        ]
    }
}
