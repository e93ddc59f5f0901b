// SPDX-License-Identifier: Apache-2.0
//! How the sharing of a prepared device is shown in `status.devices` and in Events. Pure.

use dra_model::{ComputeMode, DaemonId, Interval, ShareLimits};
use dra_prepare::{PreparedDevice, PreparedSharing};
use dra_resource::SharingStatus;
use dra_resource::status::{Limits, Strategy};

use crate::daemons::Board;

/// What `status.devices` says; of a daemon that is not on the board nothing is said.
pub fn status(device: &PreparedDevice, board: &Board) -> SharingStatus {
    let (strategy, limits) = match &device.sharing {
        PreparedSharing::Plain => (Strategy::Plain, ShareLimits::default()),
        PreparedSharing::Exclusive => (Strategy::Exclusive, ShareLimits::default()),
        PreparedSharing::TimeSlicing { limits, .. } => (Strategy::TimeSlicing, *limits),
        PreparedSharing::Mps { limits, .. } => (Strategy::Mps, *limits),
    };
    let interval = match device.sharing {
        PreparedSharing::TimeSlicing { interval, .. } => Some(interval),
        PreparedSharing::Plain | PreparedSharing::Exclusive | PreparedSharing::Mps { .. } => None,
    };
    SharingStatus {
        strategy,
        interval,
        limits: Limits { memory: limits.memory, threads: limits.threads, ..Limits::default() },
        compute_mode: device.settings.compute_mode,
        daemon: daemon(device).and_then(|id| board.daemons.get(id)).cloned(),
    }
}

/// The MPS daemon behind a device.
pub fn daemon(device: &PreparedDevice) -> Option<&DaemonId> {
    match &device.sharing {
        PreparedSharing::Mps { daemon, .. } => Some(daemon),
        PreparedSharing::Plain | PreparedSharing::Exclusive | PreparedSharing::TimeSlicing { .. } => None,
    }
}

/// What an Event adds to the name of a device; empty where nothing was wished.
pub fn words(device: &PreparedDevice) -> String {
    match &device.sharing {
        PreparedSharing::Plain => String::new(),
        PreparedSharing::Exclusive => format!(", compute mode {}", ComputeMode::ExclusiveProcess),
        PreparedSharing::TimeSlicing { interval: Interval::Default, limits } => format!(", time-slicing{}", of(limits)),
        PreparedSharing::TimeSlicing { interval, limits } => {
            format!(", time-slicing by {interval} turns{}", of(limits))
        }
        PreparedSharing::Mps { limits, .. } => format!(", MPS{}", of(limits)),
    }
}

fn of(limits: &ShareLimits) -> String {
    let memory = limits.memory.map(|memory| format!("{} MiB", memory.mib()));
    let threads = limits.threads.map(|threads| format!("{threads}% of the threads"));
    match (memory, threads) {
        (None, None) => String::new(),
        (Some(one), None) | (None, Some(one)) => format!(" with {one}"),
        (Some(memory), Some(threads)) => format!(" with {memory} and {threads}"),
    }
}
