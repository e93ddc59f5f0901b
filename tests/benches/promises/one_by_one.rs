// SPDX-License-Identifier: Apache-2.0
//! One claim after the other, each beside one request to the API server and one durable write of our own.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use dra_proto::dra_v1::Claim;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::Api;

use crate::claims::{prepare, unprepare};
use crate::figures::{Figure, Samples, Unit, milliseconds};
use crate::namespace::NAMESPACE;
use crate::stage::Stage;

/// About the size of a record.
const RECORD: [u8; 2048] = [b'.'; 2048];

/// What each claim took.
#[derive(Debug, Default)]
pub(crate) struct Alone {
    request: Samples,
    pub write: Samples,
    prepare: Samples,
    unprepare: Samples,
}

impl Alone {
    /// One round: these claims, one after the other.
    pub(crate) async fn round(&mut self, stage: &Stage<'_>, claims: &[Claim]) {
        let api: Api<ResourceClaim> = Api::namespaced(stage.as_driver.clone(), NAMESPACE);
        for claim in claims {
            let began = Instant::now();
            api.get(&claim.name).await.expect("the claim is there");
            self.request.push(began.elapsed());

            self.write.push(durable_write(&stage.records_dir(), &claim.uid));

            let began = Instant::now();
            prepare(stage.kubelet.clone(), claim.clone()).await;
            self.prepare.push(began.elapsed());
            stage.reports.until_reported(claim).await;

            let began = Instant::now();
            unprepare(stage.kubelet.clone(), claim.clone()).await;
            self.unprepare.push(began.elapsed());
        }
    }
}

/// A new file in the file system of the records, made durable with its directory.
fn durable_write(records_dir: &Path, name: &str) -> Duration {
    let dir = records_dir.with_file_name("of-the-benchmark");
    fs::create_dir_all(&dir).expect("the state directory is writable");
    let path = dir.join(name);
    let began = Instant::now();
    let written = File::create(&path).and_then(|mut file| file.write_all(&RECORD).and_then(|()| file.sync_all()));
    written.and_then(|()| File::open(&dir)?.sync_all()).expect("the state directory is writable");
    let took = began.elapsed();
    fs::remove_dir_all(&dir).expect("an own directory");
    took
}

impl Alone {
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let Self { request, write, prepare, unprepare } = self;
        let unavoidable = request.p50() + write.p50();
        let ratio = prepare.p50().as_secs_f64() / unavoidable.as_secs_f64();
        let measured = |name: &str, took: Duration| Figure::measured(name, milliseconds(took), Unit::Milliseconds);
        vec![
            Figure::promised("prepare of one GPU, p50, to (one API GET + one fsync)", ratio, Unit::Ratio, 1.5),
            measured("prepare of one GPU, p50", prepare.p50()),
            measured("prepare of one GPU, p99", prepare.p99()),
            measured("unprepare of one GPU, p50", unprepare.p50()),
            measured("unprepare of one GPU, p99", unprepare.p99()),
            measured("one API GET of a claim, p50", request.p50()),
            measured("one API GET of a claim, p99", request.p99()),
            measured("one durable write of 2 KiB, p50", write.p50()),
            measured("one durable write of 2 KiB, p99", write.p99()),
        ]
    }
}
