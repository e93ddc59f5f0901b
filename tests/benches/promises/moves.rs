// SPDX-License-Identifier: Apache-2.0
//! A GPU with a pod falls off the bus: how long until the real controller evicts the pod, and until its successor is prepared on
//! another GPU.
//!
//! The benchmark is the kubelet, which ends the evicted pod at once, and the ReplicaSet, which creates the successor then.

use std::collections::BTreeSet;
use std::time::Instant;

use dra_proto::dra_v1::Claim;
use dra_tests::wait::within;
use tokio::sync::watch;
use tokio::time::{Duration, timeout};

use crate::claims::{prepare, unprepare};
use crate::faults::follow;
use crate::figures::{Figure, Samples, Unit, milliseconds};
use crate::scheduling::{Scheduled, apis, delete, make_room, schedule, whole};
use crate::stage::{Stage, ticks};

const MOVES: usize = 3;
/// Two polls of a plugin prove that a GPU is back.
const RETURN_TIMEOUT: Duration = Duration::from_secs(40);

/// From the fault, for each pod.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    evicted: Samples,
    prepared: Samples,
}

pub(crate) async fn measure(stage: &Stage<'_>) -> Moves {
    let mut moves = Moves::default();
    let mut tainted = follow(stage.admin.clone());
    make_room(stage).await;
    for number in 0..MOVES {
        let (pod, successor) = (format!("moves-{number}"), format!("moved-{number}"));
        let (claim, device) = start(stage, &pod).await;
        let gpu = stage.devices.iter().position(|name| *name == device).expect("a device of the node");
        let began = Instant::now();
        stage.gpus.change(|state| state.lose_gpu(gpu));
        within("the pod is evicted", until_evicted(stage, &pod)).await;
        moves.evicted.push(began.elapsed());
        unprepare(stage.kubelet.clone(), claim).await;
        delete(stage, &pod).await;
        let (claim, other) = start(stage, &successor).await;
        moves.prepared.push(began.elapsed());
        assert_ne!(device, other, "the GPU is lost");
        unprepare(stage.kubelet.clone(), claim).await;
        delete(stage, &successor).await;
        bring_back(stage, gpu, &mut tainted).await;
    }
    moves
}

/// A pod with a whole GPU, scheduled and prepared, and the device it has.
async fn start(stage: &Stage<'_>, name: &str) -> (Claim, String) {
    let scheduled = match schedule(stage, name, &whole()).await {
        Scheduled::OnNode(claim, device) => Some((claim, device)),
        Scheduled::NothingFree => None,
    };
    let (claim, device) = scheduled.expect("seven GPUs are free");
    prepare(stage.kubelet.clone(), claim.clone()).await;
    (claim, device)
}

async fn until_evicted(stage: &Stage<'_>, name: &str) {
    let (_, pods) = apis(stage);
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        if pods.get(name).await.expect("nothing else deletes it").metadata.deletion_timestamp.is_some() {
            return;
        }
    }
}

/// A GPU that came back three times stays out, and the next pod gets another one.
async fn bring_back(stage: &Stage<'_>, gpu: usize, tainted: &mut watch::Receiver<BTreeSet<String>>) {
    stage.gpus.change(|state| {
        state.gpus[gpu].lost = false;
        Ok(())
    });
    let device = &stage.devices[gpu];
    timeout(RETURN_TIMEOUT, tainted.wait_for(|tainted| !tainted.contains(device))).await.map(|_| ()).ok();
}

impl Moves {
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let figure =
            |name: &str, samples: &Samples| Figure::measured(name, milliseconds(samples.p50()), Unit::Milliseconds);
        vec![
            figure("a GPU that falls off the bus to the eviction of its pod, p50 of 3", &self.evicted),
            figure("the same to its successor prepared on another GPU", &self.prepared),
        ]
    }
}
