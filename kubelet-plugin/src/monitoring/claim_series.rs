// SPDX-License-Identifier: Apache-2.0
//! The metrics of prepared claims and their pods, which join the series of any exporter to their users.

use dra_model::{Bytes, LiveIdentity, SharedForm};
use dra_prepare::{PreparedDevice, PreparedSharing};
use prometheus_client::encoding::DescriptorEncoder;

use super::series::{self, Kind, Sample, number};
use super::snapshot::{PreparedClaim, Snapshot};

pub(super) fn encode(snapshot: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let all = || snapshot.claims.iter().flat_map(|claim| claim.devices.iter().map(move |device| (claim, device)));
    let devices: Vec<Sample> = all().map(|(claim, device)| device_info(snapshot, claim, device)).collect();
    let help = "Devices of a prepared claim, always 1: gpu, mig, mps, time-slicing";
    series::encode(encoder, ("claim_device_info", help, Kind::Gauge), &devices)?;
    let limits: Vec<Sample> = all().filter_map(|(claim, device)| memory_limit(snapshot, claim, device)).collect();
    let help = "Memory of a GPU that is promised to a share of a claim";
    series::encode(encoder, ("claim_memory_limit_bytes", help, Kind::Gauge), &limits)?;
    let pods: Vec<Sample> = snapshot.claims.iter().flat_map(pod_infos).collect();
    series::encode(encoder, ("claim_pod_info", "Pods of a prepared claim, always 1", Kind::Gauge), &pods)?;
    let help = "Memory of a GPU that the processes of a pod use";
    series::encode(encoder, ("pod_memory_used_bytes", help, Kind::Gauge), &memory_of_pods(snapshot))
}

fn device_info(snapshot: &Snapshot, claim: &PreparedClaim, device: &PreparedDevice) -> Sample {
    let (form, mig_uuid, gpu_instance, profile) = match &device.identity {
        LiveIdentity::Gpu { .. } => ("gpu", String::new(), String::new(), String::new()),
        LiveIdentity::Mig { ids, profile, .. } => {
            ("mig", ids.uuid.to_string(), ids.gpu_instance.to_string(), profile.clone())
        }
        LiveIdentity::Shared { form, .. } => {
            let form = match form {
                SharedForm::Mps => "mps",
                SharedForm::TimeSlicing => "time-slicing",
            };
            (form, String::new(), String::new(), String::new())
        }
    };
    let mut labels = of_device(snapshot, claim, device);
    labels.extend([
        ("claim_uid", claim.claim.uid.to_string()),
        ("form", form.to_owned()),
        ("gpu_uuid", device.identity.gpu().to_string()),
        ("mig_uuid", mig_uuid),
        ("gpu_instance", gpu_instance),
        ("profile", profile),
    ]);
    Sample { labels, value: 1.0 }
}

/// Only a share of a GPU has a limit of its own.
fn memory_limit(snapshot: &Snapshot, claim: &PreparedClaim, device: &PreparedDevice) -> Option<Sample> {
    let Bytes(bytes) = match &device.sharing {
        PreparedSharing::Mps { limits, .. } | PreparedSharing::TimeSlicing { limits, .. } => limits.memory?,
        PreparedSharing::Plain | PreparedSharing::Exclusive => return None,
    };
    Some(Sample { labels: of_device(snapshot, claim, device), value: number(bytes) })
}

fn of_device(snapshot: &Snapshot, claim: &PreparedClaim, device: &PreparedDevice) -> Vec<(&'static str, String)> {
    let gpu = snapshot.names.as_ref().map(|names| names.gpu(device.identity.gpu())).unwrap_or_default();
    vec![
        ("namespace", claim.claim.namespace.clone()),
        ("claim", claim.claim.name.clone()),
        ("request", device.request.clone()),
        ("device", device.device.to_string()),
        ("share_id", device.share_id.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("gpu", gpu),
    ]
}

fn pod_infos(claim: &PreparedClaim) -> impl Iterator<Item = Sample> {
    claim.consumers.iter().map(|consumer| {
        let labels = vec![
            ("namespace", claim.claim.namespace.clone()),
            ("claim", claim.claim.name.clone()),
            ("claim_uid", claim.claim.uid.to_string()),
            ("pod", consumer.pod.clone()),
            ("pod_uid", consumer.uid.clone()),
        ];
        Sample { labels, value: 1.0 }
    })
}

fn memory_of_pods(snapshot: &Snapshot) -> Vec<Sample> {
    let all = snapshot.gpus.iter().flat_map(|gpu| gpu.pods.iter().map(move |(pod, bytes)| (gpu, pod, bytes)));
    let sample = |(gpu, pod, bytes): (&super::snapshot::MeasuredGpu, &dra_hardware::Pod, &u64)| {
        let labels = vec![("namespace", pod.namespace.clone()), ("pod", pod.name.clone()), ("gpu", gpu.device.clone())];
        Sample { labels, value: number(*bytes) }
    };
    all.map(sample).collect()
}
