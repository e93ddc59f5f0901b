// SPDX-License-Identifier: Apache-2.0
//! How a claim shares a device, as `status.devices` says it.

use std::collections::BTreeMap;

use dra_model::{Bytes, ComputeMode, DaemonId, Interval, ThreadPercentage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Map, Value, json};

use crate::quantity::binary;

/// How the users of a device share it, and what is in force for that.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SharingStatus {
    /// By which strategy.
    pub strategy: Strategy,
    /// How long a turn is.
    pub interval: Option<Interval>,
    /// What the claim may use.
    pub limits: Limits,
    /// The compute mode the strategy needs.
    pub compute_mode: Option<ComputeMode>,
    /// The daemon of the strategy MPS.
    pub daemon: Option<DaemonStatus>,
}

/// A strategy, with the words of the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strategy {
    /// None: nothing was configured.
    #[default]
    Plain,
    /// One process at a time.
    Exclusive,
    /// By turns.
    TimeSlicing,
    /// By an MPS daemon.
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

/// What a claim may use of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory, of each device.
    pub memory: Option<Bytes>,
    /// Threads.
    pub threads: Option<ThreadPercentage>,
    /// Memory, of the devices with these UUIDs; goes before `memory`.
    pub per_device: BTreeMap<String, Bytes>,
}

/// How an MPS daemon is.
#[derive(Debug, Clone, PartialEq)]
pub struct DaemonStatus {
    /// Which.
    pub id: DaemonId,
    /// How it is.
    pub health: DaemonHealth,
    /// Whether the processes of several users share one server, as far as that is known.
    pub multi_user: Option<bool>,
    /// How often it was started again since the first claim came.
    pub restarts: u32,
    /// Since when it is so.
    pub since: Time,
}

/// Whether clients of a daemon can work, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonHealth {
    /// They can.
    Ready,
    /// Those of one user wait for those of another.
    UserWaiting {
        /// Who waits.
        waiting: u32,
        /// Whose turn it is.
        active: u32,
    },
    /// It ended by itself.
    Exited {
        /// What was seen of it.
        why: String,
    },
    /// It was not found again after a restart of the MPS host.
    Lost,
    /// Nobody can tell: the MPS host is away.
    HostUnreachable,
}

impl SharingStatus {
    /// The keys of `data` that are about sharing.
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
    /// `MPSReady`.
    pub(super) fn condition(&self) -> Condition {
        let status = match &self.health {
            DaemonHealth::Ready => "True",
            DaemonHealth::UserWaiting { .. } | DaemonHealth::Exited { .. } | DaemonHealth::Lost => "False",
            DaemonHealth::HostUnreachable => "Unknown",
        };
        Condition {
            type_: "MPSReady".to_owned(),
            status: status.to_owned(),
            reason: self.health.reason().to_owned(),
            message: self.message(),
            last_transition_time: self.since.clone(),
            observed_generation: None,
        }
    }

    fn data(&self) -> Value {
        let mut data = json!({"id": self.id, "state": self.health.reason()});
        if let (Some(data), Some(multi_user)) = (data.as_object_mut(), self.multi_user) {
            data.insert("multiUser".to_owned(), json!(multi_user));
        }
        data
    }

    /// What is so, and what its reader can do about it.
    pub fn message(&self) -> String {
        let Self { id, .. } = self;
        match &self.health {
            DaemonHealth::Ready => format!("MPS daemon {id} takes clients{}", self.history()),
            DaemonHealth::UserWaiting { waiting, active } => format!(
                "a process of user {waiting} waits until those of user {active} have ended: run the sharers as one user"
            ),
            DaemonHealth::Exited { why } => format!(
                "MPS daemon {id} ended by itself ({why}): end the processes that used it, then it is started again{}",
                self.history()
            ),
            DaemonHealth::Lost => format!(
                "MPS daemon {id} ended with the MPS host: end the processes that used it, then it is started again"
            ),
            DaemonHealth::HostUnreachable => format!(
                "whether MPS daemon {id} takes clients is not known, since the MPS host is away: see that the MPS pod of this node runs"
            ),
        }
    }
}

impl DaemonStatus {
    /// Said of a daemon that keeps ending, of which Events tell rarely.
    fn history(&self) -> String {
        match self.restarts {
            0 => String::new(),
            1 => "; it was started again once".to_owned(),
            restarts => format!("; it was started again {restarts} times: a sharer that runs as root can end it"),
        }
    }
}

impl DaemonHealth {
    /// The stable word for programs.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Ready => "DaemonReady",
            Self::UserWaiting { .. } => "UserWaits",
            Self::Exited { .. } => "DaemonDied",
            Self::Lost => "DaemonLost",
            Self::HostUnreachable => "MPSHostAway",
        }
    }
}
