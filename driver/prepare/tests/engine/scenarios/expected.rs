// SPDX-License-Identifier: Apache-2.0
//! The claims that come and go in random lives, of every strategy and form.

use dra_model::{Claim, ComputeMode, Interval};
use serde_json::{Value, json};

use crate::node::{allocate, request_sharing, share, shares};

pub(super) type Settings = (Option<ComputeMode>, Option<Interval>);

/// A claim, and what is true of it by how it was made.
pub(super) struct Expected {
    pub(super) claim: Claim,
    /// As what it uses each of its GPUs.
    pub(super) uses: Vec<(u32, Use)>,
    pub(super) daemon: Option<String>,
    pub(super) mib: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Whole(Option<ComputeMode>, Option<Interval>),
    Mig,
    /// With the requested interval, and the mode.
    Shared(&'static str, ComputeMode),
}

impl Expected {
    pub(super) fn excludes(&self, other: &Self) -> bool {
        let both = |(gpu, one): &(u32, Use)| other.uses.iter().any(|(its, other)| its == gpu && one.excludes(*other));
        self.uses.iter().any(both)
    }
}

impl Use {
    fn excludes(self, other: Self) -> bool {
        match (self, other) {
            (Self::Shared(one, _), Self::Shared(other, _)) => one != other,
            (Self::Whole(..) | Self::Mig, _) | (_, Self::Whole(..) | Self::Mig) => true,
        }
    }

    /// Whether it needs a compute mode and an interval.
    pub(super) fn needs(self) -> (bool, bool) {
        match self {
            Self::Whole(mode, interval) => (mode.is_some(), interval.is_some()),
            Self::Mig => (false, false),
            Self::Shared(form, _) => (true, form == "ts"),
        }
    }

    pub(super) fn settings(self) -> Settings {
        match self {
            Self::Whole(mode, interval) => (mode, interval),
            Self::Mig => (None, None),
            Self::Shared(_, mode) => (Some(mode), None),
        }
    }
}

pub(super) const EXCLUSIVE: ComputeMode = ComputeMode::ExclusiveProcess;

fn time_slices(interval: Interval) -> Value {
    json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": interval.to_string()}})
}

fn whole(name: &str, gpus: &[u32], sharing: &Value, settings: Settings) -> Expected {
    let devices: Vec<(&str, String)> = gpus.iter().map(|gpu| ("gpu", format!("gpu-{gpu:08x}"))).collect();
    let devices: Vec<(&str, &str)> = devices.iter().map(|(request, device)| (*request, device.as_str())).collect();
    let claim = request_sharing(allocate(name, &devices), &[], "GpuConfig", sharing);
    let uses = gpus.iter().map(|gpu| (*gpu, Use::Whole(settings.0, settings.1))).collect();
    Expected { claim, uses, daemon: None, mib: 0 }
}

fn time_sliced(name: &str, mib: u64, interval: Option<Interval>) -> Expected {
    let claim = shares(name, vec![share("some", "gpu-00000000-ts", &format!("s-{name}"), mib, None)]);
    let claim = match interval {
        Some(interval) => request_sharing(claim, &["some"], "GpuConfig", &time_slices(interval)),
        None => claim,
    };
    Expected { claim, uses: vec![(0, Use::Shared("ts", ComputeMode::Default))], daemon: None, mib }
}

fn by_mps(name: &str, gpu: u32, mib: u64, percent: u64) -> Expected {
    let device = format!("gpu-{gpu:08x}-mps");
    let claim = shares(name, vec![share("some", &device, &format!("s-{name}"), mib, Some(percent))]);
    let daemon = format!("gpu-{gpu:08x}111122223333444444444444");
    Expected { claim, uses: vec![(gpu, Use::Shared("mps", EXCLUSIVE))], daemon: Some(daemon), mib }
}

pub(super) fn expected() -> Vec<Expected> {
    let mps = json!({"strategy": "MPS"});
    let mig = request_sharing(allocate("c9", &[("mig", "gpu-00000002-mig-19-0")]), &[], "MigDeviceConfig", &mps);
    vec![
        whole("c0", &[0], &Value::Null, (None, None)),
        whole("c1", &[0], &json!({"strategy": "Exclusive"}), (Some(EXCLUSIVE), None)),
        whole("c2", &[0, 1], &time_slices(Interval::Long), (Some(ComputeMode::Default), Some(Interval::Long))),
        Expected { daemon: Some("claim-uid-c3-0".to_owned()), ..whole("c3", &[0, 1], &mps, (Some(EXCLUSIVE), None)) },
        time_sliced("c4", 40_000, Some(Interval::Long)),
        time_sliced("c5", 41_000, None),
        time_sliced("c6", 30_000, Some(Interval::Short)),
        by_mps("c7", 0, 40_000, 50),
        by_mps("c8", 0, 30_000, 60),
        Expected { claim: mig, uses: vec![(2, Use::Mig)], daemon: Some("claim-uid-c9-0".to_owned()), mib: 0 },
        by_mps("c10", 1, 50_000, 30),
        by_mps("c11", 0, 20_000, 40),
    ]
}
