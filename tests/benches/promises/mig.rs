// SPDX-License-Identifier: Apache-2.0
//! An administrator cuts a GPU: how long until the slices show the new device.

use std::time::Instant;

use dra_tests::wait::within;
use k8s_openapi::api::resource::v1::{Device, ResourceSlice};
use kube::Api;
use kube::api::ListParams;

use crate::figures::{Figure, Samples, Unit};
use crate::stage::{Stage, ticks};

/// As many as fit on one H100.
const DEVICES: usize = 7;

/// From the moment the hardware has the device to the moment the API server shows it.
#[derive(Debug)]
pub(crate) struct Mig(Samples);

pub(crate) async fn measure(stage: &Stage<'_>) -> Mig {
    let gpu = stage.devices.len() - 1;
    let mut published = Samples::default();
    for _ in 0..DEVICES {
        let device = stage.gpus.cut(gpu, "1g.10gb");
        let made = Instant::now();
        within(&format!("{device} is in a slice"), until_published(stage, &device)).await;
        published.push(made.elapsed());
    }
    Mig(published)
}

async fn until_published(stage: &Stage<'_>, device: &str) {
    let slices: Api<ResourceSlice> = Api::all(stage.admin.clone());
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let found = slices.list(&ListParams::default()).await.expect("the API server answers");
        let mut devices = found.items.iter().flat_map(|slice| slice.spec.devices.iter().flatten());
        // Before it exists it is published too, as one that can be created, without a UUID.
        if devices.any(|it| it.name == device && has_uuid(it)) {
            return;
        }
    }
}

fn has_uuid(device: &Device) -> bool {
    let uuid = device.attributes.iter().find_map(|attributes| attributes.get("uuid")?.string.as_deref());
    uuid.is_some_and(|uuid| uuid.starts_with("MIG-"))
}

impl Mig {
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let Self(published) = self;
        vec![
            Figure::promised(
                "a MIG device made on the node shows in the slices, longest of 7",
                published.longest().as_secs_f64(),
                Unit::Seconds,
                2.0,
            ),
            Figure::measured(
                "a MIG device made on the node shows in the slices, p50",
                published.p50().as_secs_f64(),
                Unit::Seconds,
            ),
        ]
    }
}
