// SPDX-License-Identifier: Apache-2.0
//! How the devices of a claim are shared, and which settings that takes of their GPUs. Pure.
//!
//! The form of a device decides: a device of one claim is shared as the claim requests, a share as its form says.
//!
//! | device | requested | effect |
//! |---|---|---|
//! | GPU, MIG | none | none: the device as the administrator left it |
//! | GPU | `Exclusive` | compute mode `EXCLUSIVE_PROCESS` |
//! | GPU | `TimeSlicing` | compute mode `DEFAULT`, the interval |
//! | MIG | `TimeSlicing` | none: the time-slice belongs to the whole GPU |
//! | GPU | `MPS` | compute mode `EXCLUSIVE_PROCESS`, so that no process bypasses the daemon; one daemon for its group |
//! | MIG | `MPS` | a daemon; there is no compute mode while MIG mode is on |
//! | share by `TimeSlicing` | none, `TimeSlicing` | as of a GPU, with the interval of the first share |
//! | share by `MPS` | none, `MPS` | as of a GPU, with one daemon for all shares |
//!
//! The group of a GPU is all GPUs of the claim that one configuration is for. A MIG device is a group of its own, since no
//! process sees two.

use std::collections::{BTreeMap, BTreeSet};

use dra_checkpoint::{ClaimRecord, RecordedDevice, RecordedHardware, RecordedSharing, Step};
use dra_model::{
    AllocatedDevice, Claim, ComputeMode, DaemonId, DeviceName, GpuSettings, GpuUuid, Interval, MpsConfig, ShareLimits,
    SharedForm, Sharing,
};

use crate::decide::configuration::{RequestedSharing, contradiction};
use crate::decide::refusal::Refusal;
use crate::decide::shares;
use crate::decide::target::Target;

/// A claim with the hardware and the requested sharing of its devices, in their order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResolvedClaim<'a> {
    pub(crate) claim: &'a Claim,
    pub(crate) targets: &'a [Target],
    pub(crate) sharing: &'a [Option<RequestedSharing<'a>>],
}

/// How each device is shared.
pub(crate) fn decide(resolved: ResolvedClaim<'_>, records: &[ClaimRecord]) -> Result<Vec<RecordedSharing>, Refusal> {
    let decided: Vec<RecordedSharing> = (0_u32..)
        .zip(rows(resolved))
        .map(|(at, row)| of_device(resolved, at, row, records))
        .collect::<Result<_, _>>()?;
    one_daemon_per_request(resolved.claim, &decided)?;
    Ok(decided)
}

/// The effects of devices that were decided: settings, then partitions, then daemons, then the spec, so that no container starts
/// before what it relies on, no daemon before its MIG device, and none before the compute mode keeps other processes off the GPU.
pub(crate) fn steps(devices: &[RecordedDevice]) -> Vec<Step> {
    let mut wanted: BTreeMap<&GpuUuid, GpuSettings> = BTreeMap::new();
    let mut daemons: BTreeMap<&DaemonId, BTreeSet<GpuUuid>> = BTreeMap::new();
    for device in devices {
        let gpu = device.hardware.gpu();
        let settings = settings(&device.hardware, &device.sharing);
        if settings != GpuSettings::default() {
            wanted.insert(gpu, settings);
        }
        if let RecordedSharing::Mps { daemon, .. } = &device.sharing {
            daemons.entry(daemon).or_default().insert(gpu.clone());
        }
    }
    let settings = wanted.into_iter().map(|(gpu, wanted)| Step::GpuSettings { gpu: gpu.clone(), wanted });
    let partitions = devices.iter().filter_map(|device| match &device.hardware {
        RecordedHardware::Partition { identity, .. } => Some(Step::Partition { identity: identity.clone() }),
        RecordedHardware::Gpu { .. } | RecordedHardware::Shared { .. } | RecordedHardware::Mig { .. } => None,
    });
    let daemons =
        daemons.into_iter().map(|(id, gpus)| Step::MpsDaemon { id: id.clone(), gpus: gpus.into_iter().collect() });
    settings.chain(partitions).chain(daemons).chain([Step::ClaimSpec]).collect()
}

/// The settings that a device needs of its GPU.
pub(crate) fn settings(hardware: &RecordedHardware, sharing: &RecordedSharing) -> GpuSettings {
    let is_whole = !matches!(hardware, RecordedHardware::Mig { .. } | RecordedHardware::Partition { .. });
    let (compute_mode, interval) = match sharing {
        RecordedSharing::Plain => (None, None),
        RecordedSharing::Exclusive | RecordedSharing::Mps { .. } => (Some(ComputeMode::ExclusiveProcess), None),
        RecordedSharing::TimeSlicing { interval, .. } => (Some(ComputeMode::Default), Some(*interval)),
    };
    if is_whole { GpuSettings { compute_mode, interval } } else { GpuSettings::default() }
}

type Row<'a> = (&'a AllocatedDevice, &'a Target, Option<&'a RequestedSharing<'a>>);

fn rows(resolved: ResolvedClaim<'_>) -> impl Iterator<Item = Row<'_>> {
    let ResolvedClaim { claim, targets, sharing } = resolved;
    let rows = claim.devices.iter().zip(targets).zip(sharing);
    rows.map(|((device, target), requested)| (device, target, requested.as_ref()))
}

fn of_device(
    resolved: ResolvedClaim<'_>,
    at: u32,
    row: Row<'_>,
    records: &[ClaimRecord],
) -> Result<RecordedSharing, Refusal> {
    let (device, target, requested) = row;
    let limits = device.consumed;
    if let (Target::Shared(_, form), Some(requested)) = (target, requested)
        && let Some(refusal) = contradiction(device, *form, requested)
    {
        return Err(refusal);
    }
    match (target, requested) {
        _ if device.admin_access => Ok(RecordedSharing::Plain),
        (Target::Shared(gpu, SharedForm::TimeSlicing), requested) => {
            let interval = requested.and_then(own_interval).unwrap_or_else(|| held_interval(resolved, gpu, records));
            Ok(RecordedSharing::TimeSlicing { interval, limits })
        }
        (Target::Shared(gpu, SharedForm::Mps), _) => {
            Ok(RecordedSharing::Mps { daemon: DaemonId::of_gpu(gpu), config: MpsConfig::default(), limits })
        }
        (Target::Gpu(_) | Target::Mig(_), None) => Ok(RecordedSharing::Plain),
        (Target::Gpu(_) | Target::Mig(_), Some(requested)) => {
            let limits = ShareLimits::default();
            Ok(match &requested.sharing {
                // `Exclusive` for a MIG device is refused where the configuration is read.
                Sharing::Plain => RecordedSharing::Plain,
                Sharing::Exclusive => RecordedSharing::Exclusive,
                Sharing::TimeSlicing(wanted) => {
                    RecordedSharing::TimeSlicing { interval: wanted.unwrap_or(Interval::Default), limits }
                }
                Sharing::Mps(config) => {
                    let daemon =
                        DaemonId::of_claim(&resolved.claim.reference.uid, group(resolved, at, target, requested));
                    RecordedSharing::Mps { daemon, config: config.clone(), limits }
                }
            })
        }
    }
}

/// The position of the first device of the group.
fn group(resolved: ResolvedClaim<'_>, at: u32, target: &Target, requested: &RequestedSharing<'_>) -> u32 {
    let is_of_group = |(other, other_requested): (&Target, Option<&RequestedSharing<'_>>)| {
        let both_whole = matches!((target, other), (Target::Gpu(_), Target::Gpu(_)));
        both_whole && other_requested.is_some_and(|other| other.config.index == requested.config.index)
    };
    let mut positions = (0_u32..).zip(rows(resolved));
    positions
        .find(|(_, (_, other, other_requested))| is_of_group((*other, *other_requested)))
        .map_or(at, |(first, _)| first)
}

/// The interval that is requested for a share by time-slicing.
fn own_interval(requested: &RequestedSharing<'_>) -> Option<Interval> {
    match requested.sharing {
        Sharing::TimeSlicing(interval) => interval,
        Sharing::Plain | Sharing::Exclusive | Sharing::Mps(_) => None,
    }
}

/// The interval of the first share: of another claim, or of this one.
fn held_interval(resolved: ResolvedClaim<'_>, gpu: &GpuUuid, records: &[ClaimRecord]) -> Interval {
    let is_here = |target: &Target| *target == Target::Shared(gpu.clone(), SharedForm::TimeSlicing);
    let of_own =
        || rows(resolved).filter(|(_, target, _)| is_here(target)).find_map(|(_, _, sharing)| own_interval(sharing?));
    let of_others = shares::interval(&resolved.claim.reference.uid, gpu, records).map(|(interval, _)| interval);
    of_others.or_else(of_own).unwrap_or(Interval::Default)
}

/// A process can use one daemon only, and all devices of a request go to the same containers.
fn one_daemon_per_request(claim: &Claim, decided: &[RecordedSharing]) -> Result<(), Refusal> {
    let mut requests: BTreeMap<&str, BTreeMap<&DaemonId, &DeviceName>> = BTreeMap::new();
    for (device, sharing) in claim.devices.iter().zip(decided) {
        if let RecordedSharing::Mps { daemon, .. } = sharing {
            requests.entry(device.base_request()).or_default().entry(daemon).or_insert(&device.device);
        }
    }
    match requests.into_iter().find(|(_, daemons)| daemons.len() > 1) {
        None => Ok(()),
        Some((request, daemons)) => {
            let devices: Vec<&str> = daemons.into_values().map(DeviceName::as_str).collect();
            Err(Refusal::TwoDaemons { request: request.to_owned(), devices: devices.join(" and ") })
        }
    }
}

#[cfg(test)]
mod tests {
    use dra_model::{ClaimConfig, ClaimRef, ComputeShare, ConfigSource, MigIdentity, Placement};

    use super::*;

    const GPU: &str = "GPU-00000000-1111-2222-3333-444444444444";

    fn gpu() -> GpuUuid {
        GPU.parse().unwrap()
    }

    fn mig(start: u32) -> MigIdentity {
        let (placement, share) = (Placement { start, size: 1 }, ComputeShare { start: 0, slices: 1, of: 1 });
        MigIdentity { parent: gpu(), profile_id: 19, placement, share }
    }

    fn hardware(target: &Target) -> RecordedHardware {
        match target {
            Target::Gpu(uuid) => RecordedHardware::Gpu { uuid: uuid.clone() },
            Target::Shared(uuid, form) => RecordedHardware::Shared { uuid: uuid.clone(), form: *form },
            Target::Mig(identity) => {
                RecordedHardware::Partition { identity: identity.clone(), profile: String::new(), created: None }
            }
        }
    }

    /// Devices of one request each, each with the sharing that the configuration of this number requests.
    fn decided(rows: &[(Target, Option<(usize, Sharing)>)]) -> Result<Vec<RecordedSharing>, Refusal> {
        let config = |index| ClaimConfig {
            source: ConfigSource::Claim,
            index,
            requests: Vec::new(),
            parameters: Err(dra_model::config::ConfigError::NotAnObject),
        };
        let configs: Vec<ClaimConfig> = (0..rows.len()).map(config).collect();
        let device = |at: usize| AllocatedDevice {
            request: format!("r{at}"),
            pool: String::new(),
            device: "gpu-00000000".parse().unwrap(),
            admin_access: false,
            share_id: None,
            consumed: ShareLimits::default(),
        };
        let reference = ClaimRef { namespace: String::new(), name: String::new(), uid: "uid".parse().unwrap() };
        let claim = Claim { reference, devices: (0..rows.len()).map(device).collect(), configs: Vec::new() };
        let targets: Vec<Target> = rows.iter().map(|(target, _)| target.clone()).collect();
        let sharing =
            |(at, sharing): &(usize, Sharing)| RequestedSharing { sharing: sharing.clone(), config: &configs[*at] };
        let sharing: Vec<Option<RequestedSharing<'_>>> =
            rows.iter().map(|(_, requested)| requested.as_ref().map(sharing)).collect();
        decide(ResolvedClaim { claim: &claim, targets: &targets, sharing: &sharing }, &[])
    }

    #[test]
    fn what_a_gpu_needs_follows_from_device_and_requested_sharing() {
        use ComputeMode::{Default, ExclusiveProcess};
        let mps = || Sharing::Mps(MpsConfig::default());
        let limited = || Sharing::Mps(MpsConfig { multi_user: true, ..MpsConfig::default() });
        let long = || Sharing::TimeSlicing(Some(Interval::Long));
        let whole = || Target::Gpu(gpu());
        let by = |form| Target::Shared(gpu(), form);
        let (time_sliced, server) = (|| by(SharedForm::TimeSlicing), || by(SharedForm::Mps));
        for (target, requested, expect) in [
            (whole(), None, Some((None, None))),
            (whole(), Some(Sharing::Exclusive), Some((Some(ExclusiveProcess), None))),
            (whole(), Some(Sharing::TimeSlicing(None)), Some((Some(Default), Some(Interval::Default)))),
            (whole(), Some(long()), Some((Some(Default), Some(Interval::Long)))),
            (whole(), Some(limited()), Some((Some(ExclusiveProcess), None))),
            (Target::Mig(mig(0)), None, Some((None, None))),
            (Target::Mig(mig(0)), Some(Sharing::TimeSlicing(None)), Some((None, None))),
            (Target::Mig(mig(0)), Some(limited()), Some((None, None))),
            (time_sliced(), None, Some((Some(Default), Some(Interval::Default)))),
            (time_sliced(), Some(long()), Some((Some(Default), Some(Interval::Long)))),
            (time_sliced(), Some(Sharing::Exclusive), None),
            (time_sliced(), Some(mps()), None),
            (server(), None, Some((Some(ExclusiveProcess), None))),
            (server(), Some(mps()), Some((Some(ExclusiveProcess), None))),
            (server(), Some(limited()), None),
            (server(), Some(long()), None),
            (server(), Some(Sharing::Exclusive), None),
        ] {
            let outcome = decided(&[(target.clone(), requested.clone().map(|requested| (0, requested)))]).ok();
            let needed = outcome.map(|decided| settings(&hardware(&target), &decided[0]));
            let expect = expect.map(|(compute_mode, interval)| GpuSettings { compute_mode, interval });
            assert_eq!(needed, expect, "{target:?} {requested:?}");
        }
    }

    #[test]
    fn the_gpus_of_one_configuration_have_one_daemon_and_a_mig_device_has_its_own() {
        let mps = |config| Some((config, Sharing::Mps(MpsConfig::default())));
        let rows = [
            (Target::Gpu(gpu()), None),
            (Target::Gpu(gpu()), mps(1)),
            (Target::Mig(mig(0)), mps(2)),
            (Target::Gpu(gpu()), mps(0)),
            (Target::Gpu(gpu()), mps(1)),
            (Target::Mig(mig(4)), mps(2)),
            (Target::Shared(gpu(), SharedForm::Mps), None),
        ];
        let daemon = |sharing: &RecordedSharing| match sharing {
            RecordedSharing::Mps { daemon, .. } => daemon.to_string(),
            RecordedSharing::Plain | RecordedSharing::Exclusive | RecordedSharing::TimeSlicing { .. } => String::new(),
        };
        let daemons: Vec<String> = decided(&rows).unwrap().iter().map(daemon).collect();
        let shared = "gpu-00000000111122223333444444444444";
        assert_eq!(daemons, ["", "claim-uid-1", "claim-uid-2", "claim-uid-3", "claim-uid-1", "claim-uid-5", shared]);
    }
}
