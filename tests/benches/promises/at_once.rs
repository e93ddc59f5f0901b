// SPDX-License-Identifier: Apache-2.0
//! Eight pods start at once on eight GPUs: a call of the kubelet for each, beside eight requests to the API server at once.

use std::time::{Duration, Instant};

use dra_proto::dra_v1::Claim;
use futures::future::join_all;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::Api;

use crate::claims::{prepare, unprepare};
use crate::figures::{Figure, Samples, Unit, milliseconds};
use crate::namespace::NAMESPACE;
use crate::stage::Stage;

/// From the first call to the last answer, for each round.
#[derive(Debug, Default)]
pub(crate) struct Together {
    request: Samples,
    prepare: Samples,
    unprepare: Samples,
}

impl Together {
    /// One round: these claims, one for each GPU, at once.
    pub(crate) async fn round(&mut self, stage: &Stage<'_>, claims: &[Claim]) {
        let api: Api<ResourceClaim> = Api::namespaced(stage.as_driver.clone(), NAMESPACE);
        let began = Instant::now();
        let answers = join_all(claims.iter().map(|claim| api.get(&claim.name))).await;
        self.request.push(began.elapsed());
        assert!(answers.iter().all(Result::is_ok), "the claims are there");

        let began = Instant::now();
        join_all(claims.iter().map(|claim| prepare(stage.kubelet.clone(), claim.clone()))).await;
        self.prepare.push(began.elapsed());
        join_all(claims.iter().map(|claim| stage.reports.until_reported(claim))).await;

        let began = Instant::now();
        join_all(claims.iter().map(|claim| unprepare(stage.kubelet.clone(), claim.clone()))).await;
        self.unprepare.push(began.elapsed());
    }

    /// `write` is the median of one durable write.
    pub(crate) fn figures(&self, write: Duration) -> Vec<Figure> {
        let Self { request, prepare, unprepare } = self;
        let unavoidable = request.p50() + write;
        let ratio = prepare.p50().as_secs_f64() / unavoidable.as_secs_f64();
        let measured = |name: &str, took: Duration| Figure::measured(name, milliseconds(took), Unit::Milliseconds);
        vec![
            Figure::promised(
                "prepare of eight GPUs at once, p50, to (eight API GETs at once + one fsync)",
                ratio,
                Unit::Ratio,
                2.2,
            ),
            measured("eight API GETs at once, p50", request.p50()),
            measured("prepare of eight GPUs at once, p50", prepare.p50()),
            measured("prepare of eight GPUs at once, p99", prepare.p99()),
            measured("unprepare of eight GPUs at once, p50", unprepare.p50()),
        ]
    }
}
