// SPDX-License-Identifier: Apache-2.0
//! An effect that was not brought about or not undone.

use std::borrow::Cow;
use std::path::PathBuf;

use dra_cdi::{RenderError, SpecStoreError};
use dra_checkpoint::StoreError;
use dra_hardware::{DaemonError, DriverFilesError, GpuError, NodeError};
use dra_model::{Advice, DaemonId, DeviceName, Disposition, GpuUuid, MigIdentity, MigUuid};

use crate::effects::holders::Holding;

/// One variant per operation.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    #[error("the NVIDIA driver is incomplete on this node")]
    DriverFiles {
        #[source]
        source: DriverFilesError,
    },
    #[error("NVIDIA control device nodes are missing or wrong on this node")]
    ControlNodes {
        #[source]
        source: NodeError,
    },
    #[error("failed to write the CDI spec of the NVIDIA driver")]
    BaseSpec {
        #[source]
        source: SpecStoreError,
    },
    #[error("failed to write the CDI spec of the claim")]
    ClaimSpec {
        #[source]
        source: SpecStoreError,
    },
    #[error("failed to render a CDI spec")]
    Render {
        #[source]
        source: RenderError,
    },
    #[error("device nodes of {device} are missing or wrong on this node")]
    Nodes {
        device: DeviceName,
        #[source]
        source: NodeError,
    },
    /// The GPU of a recorded device was not read before the effect.
    #[error("{device} is on {gpu}, which was not read")]
    UnreadGpu { device: DeviceName, gpu: GpuUuid },
    #[error("failed to remove the CDI spec of the claim")]
    RemoveClaimSpec {
        #[source]
        source: SpecStoreError,
    },
    #[error("failed to read or write the GPU state record of {gpu} (its original settings)")]
    Ledger {
        gpu: GpuUuid,
        #[source]
        source: StoreError,
    },
    #[error("state record {} of {gpu} is from a newer driver version ({reason})", path.display())]
    NewerLedger { gpu: GpuUuid, path: PathBuf, reason: String },
    #[error("failed to apply the sharing settings to {gpu}")]
    Settings {
        gpu: GpuUuid,
        #[source]
        source: Box<GpuError>,
    },
    #[error("failed to restore the original settings of {gpu}")]
    Restore {
        gpu: GpuUuid,
        #[source]
        source: Box<GpuError>,
    },
    #[error("failed to change MIG mode of {gpu}{}", held_by(processes))]
    MigMode {
        gpu: GpuUuid,
        /// Those that hold the GPU.
        processes: Vec<Holding>,
        #[source]
        source: Box<GpuError>,
    },
    #[error("failed to create {}{}", instance(identity), taken_by(occupied))]
    Create {
        identity: MigIdentity,
        /// GPU instances in its place.
        occupied: Vec<u32>,
        #[source]
        source: Box<GpuError>,
    },
    #[error("failed to destroy {}{}", instance(identity), held_by(processes))]
    Destroy {
        identity: MigIdentity,
        /// Those that hold the GPU or its instances.
        processes: Vec<Holding>,
        #[source]
        source: Box<GpuError>,
    },
    #[error("the capabilities of MIG device {uuid} did not appear")]
    Capabilities {
        uuid: MigUuid,
        #[source]
        source: NodeError,
    },
    #[error("{device} is not created: {}", instance(identity))]
    NotCreated { device: DeviceName, identity: MigIdentity },
    #[error("NVML call failed for {device}")]
    ReadGpu {
        device: DeviceName,
        #[source]
        source: Box<GpuError>,
    },
    /// An administrator destroyed the MIG device of the claim and created another one in its place.
    #[error("{} was replaced: {found} is not the MIG device that was created for this claim", instance(identity))]
    Replaced { identity: MigIdentity, found: MigUuid },
    /// The GPU of a partition was not read before the effect.
    #[error("{gpu} was not read")]
    UnreadPartition { gpu: GpuUuid },
    #[error("failed to start MPS daemon {id}")]
    Start {
        id: DaemonId,
        #[source]
        source: Box<DaemonError>,
    },
    #[error("failed to stop MPS daemon {id}")]
    Stop {
        id: DaemonId,
        #[source]
        source: Box<DaemonError>,
    },
}

fn instance(MigIdentity { parent, profile_id, placement, .. }: &MigIdentity) -> String {
    format!("the MIG device of profile {profile_id} at {}:{} of {parent}", placement.start, placement.size)
}

fn held_by(processes: &[Holding]) -> String {
    if processes.is_empty() { String::new() } else { format!(", held by process {}", list(processes)) }
}

fn taken_by(instances: &[u32]) -> String {
    if instances.is_empty() { String::new() } else { format!(", GPU instance {} is in its place", list(instances)) }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl EffectError {
    /// Whether a process holds what was to be changed.
    pub(crate) fn is_in_use(&self) -> bool {
        matches!(self, Self::MigMode { source, .. } | Self::Destroy { source, .. } if source.is_in_use())
    }

    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Settings { source, .. } if matches!(**source, GpuError::Unsupported { .. }) => Disposition::Permanent,
            Self::Start { source, .. } => source.disposition(),
            Self::Render { .. } | Self::Replaced { .. } => Disposition::Permanent,
            Self::DriverFiles { .. }
            | Self::ControlNodes { .. }
            | Self::BaseSpec { .. }
            | Self::ClaimSpec { .. }
            | Self::Nodes { .. }
            | Self::UnreadGpu { .. }
            | Self::RemoveClaimSpec { .. }
            | Self::Ledger { .. }
            | Self::NewerLedger { .. }
            | Self::Settings { .. }
            | Self::Restore { .. }
            | Self::MigMode { .. }
            | Self::Create { .. }
            | Self::Destroy { .. }
            | Self::Capabilities { .. }
            | Self::UnreadPartition { .. }
            | Self::NotCreated { .. }
            | Self::ReadGpu { .. }
            | Self::Stop { .. } => Disposition::Transient,
        }
    }
}

impl Advice for EffectError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::BaseSpec { source } | Self::ClaimSpec { source } | Self::RemoveClaimSpec { source } => {
                source.advice()
            }
            Self::Render { source } => source.advice(),
            Self::DriverFiles { source } => source.advice(),
            Self::ControlNodes { source } | Self::Nodes { source, .. } | Self::Capabilities { source, .. } => {
                source.advice()
            }
            Self::Ledger { source, .. } => source.advice(),
            Self::NewerLedger { .. } => Some(
                "reinstall that version, or reset compute mode and time slice with nvidia-smi, then delete the file"
                    .into(),
            ),
            Self::Create { occupied, .. } if !occupied.is_empty() => Some(
                "destroy that instance (`nvidia-smi mig -dci` and `-dgi`), or delete the pod to reschedule it".into(),
            ),
            Self::Destroy { source, .. } if source.is_in_use() => Some(
                "end the processes that hold it (`nvidia-smi` on the node lists them), or delete their pods".into(),
            ),
            Self::Settings { source, .. }
            | Self::Restore { source, .. }
            | Self::MigMode { source, .. }
            | Self::Create { source, .. }
            | Self::Destroy { source, .. }
            | Self::ReadGpu { source, .. } => source.advice(),
            Self::Replaced { .. } => Some("delete the pod to reschedule it".into()),
            Self::Start { source, .. } | Self::Stop { source, .. } => source.advice(),
            Self::UnreadGpu { .. } | Self::UnreadPartition { .. } | Self::NotCreated { .. } => None,
        }
    }
}
