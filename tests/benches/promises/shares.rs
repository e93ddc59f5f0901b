// SPDX-License-Identifier: Apache-2.0
//! A hundred pods share one GPU by MPS: prepared at once, beside as many one after another, as many requests to the API server
//! at once, and plain claims on another GPU.

use std::time::{Duration, Instant};

use dra_proto::dra_v1::Claim;
use dra_sim::state::ComputeMode;
use futures::future::join_all;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::Api;

use crate::claims::{RequestKind, prepare, unprepare};
use crate::figures::{Figure, Samples, Unit, count, milliseconds};
use crate::namespace::NAMESPACE;
use crate::stage::Stage;

/// As many as one percent of the threads for each allows.
const SHARES: usize = 100;
/// Shares that are prepared one after another for each plain claim beside them.
const SHARES_PER_PLAIN: usize = 5;
/// Rounds of as many at once and as many one after another.
const ROUNDS: usize = 3;
/// Rounds before those, which are not counted.
const WARM_UP: usize = 1;

/// From the first call to the last answer, for each round.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    at_once: Samples,
    /// As many requests to the API server at once.
    request: Samples,
    in_turn: Samples,
    /// The first share of a GPU, which starts its daemon.
    first: Samples,
    /// A share of a GPU that has some already.
    joining: Samples,
    /// A plain claim on another GPU meanwhile.
    plain: Samples,
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
    // The first claim of each pair is for the GPU of the shares, and is left out.
    let plain = stage.create_claims("other", RequestKind::Plain, 2, 2 * all / SHARES_PER_PLAIN).await;
    let plain: Vec<Claim> = plain.into_iter().skip(1).step_by(2).collect();
    let mut shares = Shares::default();
    let rounds = at_once.chunks(SHARES).zip(in_turn.chunks(SHARES)).zip(plain.chunks(SHARES / SHARES_PER_PLAIN));
    for (number, ((at_once, in_turn), plain)) in rounds.enumerate() {
        if number == WARM_UP {
            shares = Shares { daemons: shares.daemons, left: shares.left, ..Shares::default() };
        }
        shares.round_in_turn(stage, in_turn, plain).await;
        shares.round_at_once(stage, at_once).await;
    }
    shares
}

async fn timed_prepare(stage: &Stage<'_>, claim: &Claim) -> Duration {
    let began = Instant::now();
    prepare(stage.kubelet.clone(), claim.clone()).await;
    began.elapsed()
}

impl Shares {
    async fn round_at_once(&mut self, stage: &Stage<'_>, claims: &[Claim]) {
        let api: Api<ResourceClaim> = Api::namespaced(stage.as_driver.clone(), NAMESPACE);
        let began = Instant::now();
        let answers = join_all(claims.iter().map(|claim| api.get(&claim.name))).await;
        self.request.push(began.elapsed());
        assert!(answers.iter().all(Result::is_ok), "the claims are there");

        let began = Instant::now();
        join_all(claims.iter().map(|claim| prepare(stage.kubelet.clone(), claim.clone()))).await;
        self.at_once.push(began.elapsed());
        self.see_while_shared(stage, claims).await;
        let began = Instant::now();
        join_all(claims.iter().map(|claim| unprepare(stage.kubelet.clone(), claim.clone()))).await;
        self.unprepare_at_once.push(began.elapsed());
        self.see_afterwards(stage);
    }

    async fn round_in_turn(&mut self, stage: &Stage<'_>, claims: &[Claim], plain: &[Claim]) {
        let mut in_turn = Duration::ZERO;
        for (number, claim) in claims.iter().enumerate() {
            let took = timed_prepare(stage, claim).await;
            in_turn += took;
            let samples = if number == 0 { &mut self.first } else { &mut self.joining };
            samples.push(took);
            if let Some(plain) = plain.get(number / SHARES_PER_PLAIN).filter(|_| number % SHARES_PER_PLAIN == 0) {
                self.plain.push(timed_prepare(stage, plain).await);
                unprepare(stage.kubelet.clone(), plain.clone()).await;
            }
        }
        self.in_turn.push(in_turn);
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
        let Self {
            at_once,
            request,
            in_turn,
            first,
            joining,
            plain,
            unprepare_at_once,
            unprepare_in_turn,
            daemons,
            left,
        } = self;
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
            Figure::promised(
                "prepare of 100 shares of one GPU at once, p50, to 100 API GETs at once",
                seconds(at_once) / seconds(request),
                Unit::Ratio,
                12.0,
            ),
            Figure::promised(
                "prepare of a share beside others, p50, to a plain claim",
                seconds(joining) / seconds(plain),
                Unit::Ratio,
                2.0,
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
            measured("prepare of a plain claim beside those shares, p50", plain),
            measured("100 API GETs at once, p50", request),
            measured("unprepare of 100 shares of one GPU at once, p50", unprepare_at_once),
            measured("unprepare of 100 shares of one GPU one after another, p50", unprepare_in_turn),
        ]
    }
}
