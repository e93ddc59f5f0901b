// SPDX-License-Identifier: Apache-2.0
//! What MPS adds to a claim: plain ones and such that need a daemon, in turn on the same GPUs.

use std::time::{Duration, Instant};

use dra_proto::dra_v1::Claim;

use crate::claims::{RequestKind, prepare, unprepare};
use crate::figures::{Figure, Samples, Unit, milliseconds};
use crate::stage::Stage;

/// Rounds of one claim of each kind.
const ROUNDS: usize = 40;
/// Rounds before those, which are not counted.
const WARM_UP: usize = 5;
/// What starting a daemon and setting its limits may add, in milliseconds.
const MAX_ADDED_MILLISECONDS: f64 = 150.0;

/// What claims of one kind took.
#[derive(Debug, Default)]
struct Took {
    prepare: Samples,
    unprepare: Samples,
}

/// What each kind took.
#[derive(Debug, Default)]
pub(crate) struct Mps {
    plain: Took,
    claim: Took,
    share: Took,
}

pub(crate) async fn measure(stage: &Stage<'_>) -> Mps {
    let rounds = WARM_UP + ROUNDS;
    let gpus = stage.devices.len();
    let plain = stage.create_claims("beside", RequestKind::Plain, gpus, rounds).await;
    let claims = stage.create_claims("mps", RequestKind::Mps, gpus, rounds).await;
    let shares = stage.create_claims("share", RequestKind::Share, gpus, rounds).await;
    let mut mps = Mps::default();
    for (number, ((plain, claim), share)) in plain.iter().zip(&claims).zip(&shares).enumerate() {
        if number == WARM_UP {
            mps = Mps::default();
        }
        mps.plain.round(stage, plain).await;
        mps.claim.round(stage, claim).await;
        mps.share.round(stage, share).await;
    }
    mps
}

impl Took {
    async fn round(&mut self, stage: &Stage<'_>, claim: &Claim) {
        let began = Instant::now();
        prepare(stage.kubelet.clone(), claim.clone()).await;
        self.prepare.push(began.elapsed());
        stage.reports.until_reported(claim).await;
        let began = Instant::now();
        unprepare(stage.kubelet.clone(), claim.clone()).await;
        self.unprepare.push(began.elapsed());
    }
}

impl Mps {
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let Self { plain, claim, share } = self;
        let added = |name: &str, with: &Took| {
            let added = milliseconds(with.prepare.p50()) - milliseconds(plain.prepare.p50());
            Figure::promised(name, added, Unit::Milliseconds, MAX_ADDED_MILLISECONDS)
        };
        let measured = |name: &str, took: Duration| Figure::measured(name, milliseconds(took), Unit::Milliseconds);
        vec![
            added("prepare of an MPS claim, p50, beyond that of a plain one", claim),
            added("prepare of the first share of a GPU by MPS, p50, beyond that of a plain claim", share),
            measured("prepare of a plain claim beside those, p50", plain.prepare.p50()),
            measured("prepare of an MPS claim, p50", claim.prepare.p50()),
            measured("prepare of an MPS claim, p99", claim.prepare.p99()),
            measured("unprepare of an MPS claim, p50", claim.unprepare.p50()),
            measured("prepare of the first share of a GPU by MPS, p50", share.prepare.p50()),
            measured("unprepare of the last share of a GPU by MPS, p50", share.unprepare.p50()),
        ]
    }
}
