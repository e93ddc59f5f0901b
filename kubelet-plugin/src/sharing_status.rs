// SPDX-License-Identifier: Apache-2.0
//! The sharing settings of a prepared device, for `status.devices` and Events. Pure.

use dra_model::{ComputeMode, DaemonId, Interval, ShareLimits};
use dra_prepare::{PreparedDevice, PreparedSharing};
use dra_resource::SharingStatus;
use dra_resource::status::{Limits, Strategy};

use crate::daemon_states::DaemonStates;

/// The sharing settings for `status.devices`; the daemon is absent while its state is unknown.
pub fn status(device: &PreparedDevice, states: &DaemonStates) -> SharingStatus {
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
        daemon: daemon(device).and_then(|id| states.daemons.get(id)).cloned(),
    }
}

/// The MPS daemon of a device.
pub fn daemon(device: &PreparedDevice) -> Option<&DaemonId> {
    match &device.sharing {
        PreparedSharing::Mps { daemon, .. } => Some(daemon),
        PreparedSharing::Plain | PreparedSharing::Exclusive | PreparedSharing::TimeSlicing { .. } => None,
    }
}

/// The sharing settings for an Event, after the name of the device; empty for a device without a strategy.
pub fn description(device: &PreparedDevice) -> String {
    match &device.sharing {
        PreparedSharing::Plain => String::new(),
        PreparedSharing::Exclusive => format!(", compute mode {}", ComputeMode::ExclusiveProcess),
        PreparedSharing::TimeSlicing { interval: Interval::Default, limits } => {
            format!(", time-slicing{}", limits_text(limits))
        }
        PreparedSharing::TimeSlicing { interval, limits } => {
            format!(", time-slicing with interval {interval}{}", limits_text(limits))
        }
        PreparedSharing::Mps { limits, .. } => format!(", MPS{}", limits_text(limits)),
    }
}

fn limits_text(limits: &ShareLimits) -> String {
    let memory = limits.memory.map(|memory| format!("{} MiB", memory.mib()));
    let threads = limits.threads.map(|threads| format!("{threads}% of the threads"));
    match (memory, threads) {
        (None, None) => String::new(),
        (Some(limit), None) | (None, Some(limit)) => format!(", limited to {limit}"),
        (Some(memory), Some(threads)) => format!(", limited to {memory} and {threads}"),
    }
}

#[cfg(test)]
mod tests {
    use dra_model::{Bytes, GpuSettings, LiveIdentity};

    use super::*;

    fn device(sharing: PreparedSharing) -> PreparedDevice {
        PreparedDevice {
            request: "r".to_owned(),
            pool: "node-1".to_owned(),
            device: "gpu-00000000".parse().unwrap(),
            admin_access: false,
            share_id: None,
            cdi_ids: Vec::new(),
            identity: LiveIdentity::Gpu { uuid: "GPU-00000000-0000-0000-0000-000000000000".parse().unwrap() },
            sharing,
            settings: GpuSettings::default(),
        }
    }

    #[test]
    fn a_description_names_the_strategy_and_its_limits() {
        let memory = Some(Bytes::from_mib(8155));
        let threads = Some(10.try_into().unwrap());
        for (sharing, expect) in [
            (PreparedSharing::Plain, ""),
            (PreparedSharing::Exclusive, ", compute mode Exclusive_Process"),
            (
                PreparedSharing::TimeSlicing { interval: Interval::Default, limits: ShareLimits::default() },
                ", time-slicing",
            ),
            (
                PreparedSharing::TimeSlicing {
                    interval: Interval::Long,
                    limits: ShareLimits { memory, threads: None },
                },
                ", time-slicing with interval Long, limited to 8155 MiB",
            ),
            (
                PreparedSharing::Mps { daemon: "gpu-0".parse().unwrap(), limits: ShareLimits { memory, threads } },
                ", MPS, limited to 8155 MiB and 10% of the threads",
            ),
        ] {
            assert_eq!(description(&device(sharing)), expect);
        }
    }
}
