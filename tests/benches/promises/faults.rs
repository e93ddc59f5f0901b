// SPDX-License-Identifier: Apache-2.0
//! GPUs fail one after the other, and are cleared: how long until the API server has the taint.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Instant;

use dra_tests::wait::within;
use futures::StreamExt as _;
use k8s_openapi::api::resource::v1::{Device, ResourceSlice};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use crate::figures::{Figure, Samples, Unit, milliseconds};
use crate::stage::Stage;

/// "GSP RPC timeout" in NVIDIA's catalogue.
const XID: u64 = 119;
/// What field 230 advises after it: a reset of the GPU.
const RESET: u32 = 1;

/// From the fault to the taint, for each GPU.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    tainted: Samples,
}

pub(crate) async fn measure(stage: &Stage<'_>) -> Faults {
    let mut faults = Faults::default();
    let mut tainted = follow(stage.admin.clone());
    within("no device is tainted", tainted.wait_for(BTreeSet::is_empty)).await.expect("the watch goes on");
    for (gpu, device) in stage.devices.iter().enumerate() {
        let began = Instant::now();
        stage.gpus.change(|state| {
            state.gpus[gpu].recovery_action = RESET;
            state.raise_xid(gpu, XID, (None, None))
        });
        let seen = tainted.wait_for(|tainted| tainted.contains(device));
        within("the GPU is tainted", seen).await.expect("the watch goes on");
        faults.tainted.push(began.elapsed());
    }
    stage.gpus.change(|state| {
        for gpu in &mut state.gpus {
            gpu.recovery_action = 0;
        }
        Ok(())
    });
    // Two answers, at least 30 s apart, prove a GPU well.
    for _ in 0..3 {
        let cleared = tainted.wait_for(BTreeSet::is_empty);
        if tokio::time::timeout(std::time::Duration::from_secs(30), cleared).await.is_ok() {
            break;
        }
    }
    assert!(tainted.borrow().is_empty(), "the GPUs are cleared");
    faults
}

/// The names of the devices with a taint, from now on.
pub(crate) fn follow(client: Client) -> watch::Receiver<BTreeSet<String>> {
    let (sender, names) = watch::channel(BTreeSet::from(["not listed yet".to_owned()]));
    let slices: Api<ResourceSlice> = Api::all(client);
    tokio::spawn(async move {
        let mut changed = pin!(watcher(slices, Config::default()).default_backoff().applied_objects());
        while let Some(slice) = changed.next().await {
            let slice = slice.expect("the API server lets slices be watched");
            let devices = slice.spec.devices.unwrap_or_default();
            sender.send_modify(|names| {
                names.remove("not listed yet");
                for Device { name, taints, .. } in devices {
                    if taints.is_some_and(|taints| !taints.is_empty()) {
                        names.insert(name);
                    } else {
                        names.remove(&name);
                    }
                }
            });
        }
    });
    names
}

impl Faults {
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let Self { tainted } = self;
        vec![
            Figure::promised(
                "an XID to the taint in the API server, p99",
                milliseconds(tainted.p99()),
                Unit::Milliseconds,
                1000.0,
            ),
            Figure::measured(
                "an XID to the taint in the API server, p50",
                milliseconds(tainted.p50()),
                Unit::Milliseconds,
            ),
        ]
    }
}
