// SPDX-License-Identifier: Apache-2.0
//! The sharing settings of a device in `status.devices`.

use std::collections::BTreeMap;

use dra_model::{Bytes, ComputeMode, DaemonId, Interval, ThreadPercentage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Map, Value, json};

use crate::quantity::binary;

/// The sharing settings of a device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SharingStatus {
    pub strategy: Strategy,
    /// Time-slice interval.
    pub interval: Option<Interval>,
    pub limits: Limits,
    /// Compute mode of the strategy.
    pub compute_mode: Option<ComputeMode>,
    /// Daemon of the strategy MPS.
    pub daemon: Option<DaemonStatus>,
}

/// The strategies, with the names of the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strategy {
    /// No strategy is configured.
    #[default]
    Plain,
    Exclusive,
    TimeSlicing,
    Mps,
}

impl Strategy {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "None",
            Self::Exclusive => "Exclusive",
            Self::TimeSlicing => "TimeSlicing",
            Self::Mps => "MPS",
        }
    }
}

/// The limits of a claim on a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// For each device.
    pub memory: Option<Bytes>,
    pub threads: Option<ThreadPercentage>,
    /// Memory by UUID of the device; precedes `memory`.
    pub per_device: BTreeMap<String, Bytes>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DaemonStatus {
    pub id: DaemonId,
    pub health: DaemonHealth,
    /// Whether one server serves the processes of several users; absent if unknown.
    pub multi_user: Option<bool>,
    /// Number of restarts since the first claim.
    pub restarts: u32,
    /// Time of the last transition.
    pub since: Time,
}

/// Whether the clients of a daemon can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonHealth {
    Ready,
    /// The clients of one user wait for the clients of another.
    UserWaiting {
        /// UID of the waiting user.
        waiting: u32,
        /// UID of the user whose clients run.
        active: u32,
    },
    /// The daemon exited unexpectedly.
    Exited {
        why: String,
    },
    /// The daemon was not found after a restart of the MPS host.
    Lost,
    /// The daemon was ended, because its GPU failed.
    GpuFailed {
        /// GPU and fault.
        why: String,
    },
    /// The state is unknown, because the MPS host does not respond.
    HostUnreachable,
}

impl SharingStatus {
    /// The keys of `data` for sharing.
    pub(super) fn data(&self) -> impl Iterator<Item = (&'static str, Value)> {
        let Self { strategy, interval, limits, compute_mode, daemon } = self;
        [
            Some(("strategy", json!(strategy.as_str()))),
            interval.map(|interval| ("interval", json!(interval.to_string()))),
            compute_mode.map(|mode| ("computeMode", json!(mode.to_string()))),
            limits.data().map(|limits| ("limits", limits)),
            daemon.as_ref().map(|daemon| ("daemon", daemon.data())),
        ]
        .into_iter()
        .flatten()
    }
}

impl Limits {
    fn data(&self) -> Option<Value> {
        let Self { memory, threads, per_device } = self;
        let spelled = |bytes: Bytes| json!(binary(bytes).0);
        let each = || per_device.iter().map(|(uuid, bytes)| (uuid.clone(), spelled(*bytes))).collect::<Map<_, _>>();
        let all: Map<String, Value> = [
            memory.map(|memory| ("memory", spelled(memory))),
            threads.map(|threads| ("activeThreadPercentage", json!(threads))),
            (!per_device.is_empty()).then(|| ("perDevice", Value::Object(each()))),
        ]
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
        (!all.is_empty()).then_some(Value::Object(all))
    }
}

impl DaemonStatus {
    /// The condition `MPSReady`.
    pub(super) fn condition(&self) -> Condition {
        let status = match &self.health {
            DaemonHealth::Ready => "True",
            DaemonHealth::UserWaiting { .. }
            | DaemonHealth::Exited { .. }
            | DaemonHealth::Lost
            | DaemonHealth::GpuFailed { .. } => "False",
            DaemonHealth::HostUnreachable => "Unknown",
        };
        Condition {
            type_: "MPSReady".to_owned(),
            status: status.to_owned(),
            reason: self.health.event_reason().to_owned(),
            message: self.message(),
            last_transition_time: self.since.clone(),
            observed_generation: None,
        }
    }

    fn data(&self) -> Value {
        let mut data = json!({"id": self.id, "state": self.health.event_reason()});
        if let (Some(data), Some(multi_user)) = (data.as_object_mut(), self.multi_user) {
            data.insert("multiUser".to_owned(), json!(multi_user));
        }
        data
    }

    /// The message of the condition and of the Event, with advice.
    pub fn message(&self) -> String {
        let Self { id, .. } = self;
        match &self.health {
            DaemonHealth::Ready => format!("MPS daemon {id} accepts clients{}", self.history()),
            DaemonHealth::UserWaiting { waiting, active } => format!(
                "Processes of UID {waiting} wait until all MPS clients of UID {active} exit; run all pods sharing this GPU under one UID"
            ),
            DaemonHealth::Exited { why } => format!(
                "MPS daemon {id} exited unexpectedly ({why}); end the processes that use it (restart their pods), then it is restarted{}",
                self.history()
            ),
            DaemonHealth::Lost => format!(
                "MPS daemon {id} stopped with the MPS host; end the processes that use it (restart their pods), then it is restarted"
            ),
            DaemonHealth::GpuFailed { why } => format!(
                "MPS daemon {id} was ended because {why}; it starts again when the GPU is well and the processes that used it have ended"
            ),
            DaemonHealth::HostUnreachable => format!(
                "State of MPS daemon {id} unknown: the MPS host does not respond; check the mps-host pod of this node"
            ),
        }
    }
}

impl DaemonStatus {
    /// The number of restarts, because Events about a daemon that exits repeatedly are limited.
    fn history(&self) -> String {
        match self.restarts {
            0 => String::new(),
            1 => "; restarted once".to_owned(),
            restarts => format!("; restarted {restarts} times, a client that runs as root can stop the daemon"),
        }
    }
}

impl DaemonHealth {
    /// The stable reason of the condition and the Event, also `data.daemon.state`.
    pub const fn event_reason(&self) -> &'static str {
        match self {
            Self::Ready => "MPSDaemonReady",
            Self::UserWaiting { .. } => "MPSUserWaiting",
            Self::Exited { .. } => "MPSDaemonExited",
            Self::Lost => "MPSDaemonLost",
            Self::GpuFailed { .. } => "MPSDaemonEnded",
            Self::HostUnreachable => "MPSHostUnreachable",
        }
    }
}
