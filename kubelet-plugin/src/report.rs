// SPDX-License-Identifier: Apache-2.0
//! The reports about claims that become `status.devices` and Events.

use std::sync::Arc;

use dra_hardware::Setting;
use dra_model::{ClaimRef, DeviceName, Disposition, GpuUuid};
use dra_prepare::PreparedDevice;
use dra_resource::status::DaemonStatus;

use crate::event_text::EventText;

/// The devices of a claim, for its status and its Event.
pub type Devices = Arc<[PreparedDevice]>;

#[derive(Debug, Clone)]
pub enum Report {
    Prepared {
        claim: ClaimRef,
        devices: Vec<PreparedDevice>,
        /// Whether the claim was not prepared before the call. If the claim was deallocated since its last report, the API server
        /// dropped the statuses of its devices.
        is_new: bool,
    },
    /// Configurations of the claim do not apply to some of its shares.
    ConfigIgnored {
        claim: ClaimRef,
        text: EventText,
    },
    /// The claim is the last one of a pod whose claims cannot be used together in one container.
    Pod {
        claim: ClaimRef,
        text: EventText,
    },
    Failed {
        claim: ClaimRef,
        /// The text that the kubelet gets too.
        error: String,
        disposition: Disposition,
        /// The claim of another namespace that holds the device, which `error` does not name.
        unnamed_holder: Option<String>,
    },
    /// The health of the MPS daemon changed.
    Daemon {
        claim: ClaimRef,
        devices: Vec<PreparedDevice>,
        daemon: DaemonStatus,
    },
    /// The status of the MPS daemon in `status.devices` may be outdated.
    Status {
        claim: ClaimRef,
        devices: Vec<PreparedDevice>,
    },
    /// A partition of the claim was created or destroyed.
    MigDevice {
        claim: ClaimRef,
        device: DeviceName,
        text: EventText,
    },
    /// A setting that the claim relies on was changed outside this driver.
    Drift {
        claim: ClaimRef,
        gpu: GpuUuid,
        setting: Setting,
        text: EventText,
    },
    /// The health of a GPU of the claim changed.
    Health {
        claim: ClaimRef,
        devices: Vec<PreparedDevice>,
        gpu: GpuUuid,
        text: EventText,
    },
    Unprepared {
        claim: ClaimRef,
    },
}

impl Report {
    pub fn claim(&self) -> &ClaimRef {
        match self {
            Self::Prepared { claim, .. }
            | Self::ConfigIgnored { claim, .. }
            | Self::Pod { claim, .. }
            | Self::Failed { claim, .. }
            | Self::Daemon { claim, .. }
            | Self::Status { claim, .. }
            | Self::MigDevice { claim, .. }
            | Self::Drift { claim, .. }
            | Self::Health { claim, .. }
            | Self::Unprepared { claim } => claim,
        }
    }
}
