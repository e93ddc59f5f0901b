// SPDX-License-Identifier: Apache-2.0
//! A hundred pods share one GPU by MPS: prepared at once, beside as many one after another.

use std::time::Instant;

use dra_proto::dra_v1::Claim;
use dra_sim::state::ComputeMode;
use futures::future::join_all;

use crate::claims::{RequestKind, prepare, unprepare};
use crate::figures::{Figure, Samples, Unit, count, milliseconds};
use crate::stage::Stage;

/// As many as one percent of the threads for each allows.
const SHARES: usize = 100;
/// Rounds of as many at once and as many one after another.
const ROUNDS: usize = 3;
/// Rounds before those, which are not counted.
const WARM_UP: usize = 1;

/// From the first call to the last answer, for each round.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    at_once: Samples,
    in_turn: Samples,
    /// The first share of a GPU, which starts its daemon.
    first: Samples,
    /// A share of a GPU that has some already.
    joining: Samples,
    unprepare_at_once: Samples,
    unprepare_in_turn: Samples,
    /// The most daemons that were seen while all shares lived.
    daemons: usize,
    /// Daemons and changed compute modes that were seen after the last share.
    left: usize,
}

pub(crate) async fn measure(stage: &Stage<'_>) -> Shares {
    let all = (WARM_UP + ROUNDS) * SHARES;
    let at_once = stage.create_claims("hundred", RequestKind::Share, 1, all).await;
    let in_turn = stage.create_claims("turn", RequestKind::Share, 1, all).await;
    let mut shares = Shares::default();
    for (number, (at_once, in_turn)) in at_once.chunks(SHARES).zip(in_turn.chunks(SHARES)).enumerate() {
        if number == WARM_UP {
            shares = Shares { daemons: shares.daemons, left: shares.left, ..Shares::default() };
        }
        shares.round_in_turn(stage, in_turn).await;
        shares.round_at_once(stage, at_once).await;
    }
    shares
}

impl Shares {
    async fn round_at_once(&mut self, stage: &Stage<'_>, claims: &[Claim]) {
        let began = Instant::now();
        join_all(claims.iter().map(|claim| prepare(stage.kubelet.clone(), claim.clone()))).await;
        self.at_once.push(began.elapsed());
        self.see_while_shared(stage, claims).await;
        let began = Instant::now();
        join_all(claims.iter().map(|claim| unprepare(stage.kubelet.clone(), claim.clone()))).await;
        self.unprepare_at_once.push(began.elapsed());
        self.see_afterwards(stage);
    }

    async fn round_in_turn(&mut self, stage: &Stage<'_>, claims: &[Claim]) {
        let began = Instant::now();
        for (number, claim) in claims.iter().enumerate() {
            let call = Instant::now();
            prepare(stage.kubelet.clone(), claim.clone()).await;
            let samples = if number == 0 { &mut self.first } else { &mut self.joining };
            samples.push(call.elapsed());
        }
        self.in_turn.push(began.elapsed());
        self.see_while_shared(stage, claims).await;
        let began = Instant::now();
        for claim in claims {
            unprepare(stage.kubelet.clone(), claim.clone()).await;
        }
        self.unprepare_in_turn.push(began.elapsed());
        self.see_afterwards(stage);
    }

    async fn see_while_shared(&mut self, stage: &Stage<'_>, claims: &[Claim]) {
        join_all(claims.iter().map(|claim| stage.reports.until_reported(claim))).await;
        let daemons = stage.mps_host.daemons();
        assert!(daemons > 0, "no daemon serves the shares");
        assert_eq!(stage.gpus.state().gpus[0].compute_mode, ComputeMode::ExclusiveProcess);
        self.daemons = self.daemons.max(daemons);
    }

    fn see_afterwards(&mut self, stage: &Stage<'_>) {
        let machine = stage.gpus.state();
        let changed = machine.gpus.iter().filter(|gpu| gpu.compute_mode != ComputeMode::Default).count();
        self.left += stage.mps_host.daemons() + changed;
    }

    pub(crate) fn figures(&self) -> Vec<Figure> {
        let Self { at_once, in_turn, first, joining, unprepare_at_once, unprepare_in_turn, daemons, left } = self;
        let seconds = |took: &Samples| took.p50().as_secs_f64();
        let measured =
            |name: &str, took: &Samples| Figure::measured(name, milliseconds(took.p50()), Unit::Milliseconds);
        vec![
            Figure::promised(
                "prepare of 100 shares of one GPU at once, p50, to one after another",
                seconds(at_once) / seconds(in_turn),
                Unit::Ratio,
                1.0,
            ),
            Figure::promised("MPS daemons of 100 shares of one GPU", count(*daemons), Unit::Count, 1.0),
            Figure::promised("MPS daemons and compute modes left by them", count(*left), Unit::Count, 0.0),
            Figure::measured(
                "prepare of 100 shares of one GPU at once, p50, for each of them, to one alone",
                seconds(at_once) / count(SHARES) / seconds(first),
                Unit::Ratio,
            ),
            measured("prepare of 100 shares of one GPU at once, p50", at_once),
            measured("prepare of 100 shares of one GPU one after another, p50", in_turn),
            measured("prepare of one share beside others, p50", joining),
            measured("unprepare of 100 shares of one GPU at once, p50", unprepare_at_once),
            measured("unprepare of 100 shares of one GPU one after another, p50", unprepare_in_turn),
        ]
    }
}
