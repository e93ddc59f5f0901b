// SPDX-License-Identifier: Apache-2.0
//! An effect that was not brought about or not undone.

use std::borrow::Cow;
use std::path::PathBuf;

use dra_cdi::{RenderError, SpecStoreError};
use dra_checkpoint::StoreError;
use dra_hardware::{DaemonError, DriverFilesError, GpuError, NodeError};
use dra_model::{Advice, DaemonId, DeviceName, Disposition, GpuUuid};

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

impl EffectError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Settings { source, .. } if matches!(**source, GpuError::Unsupported { .. }) => Disposition::Permanent,
            Self::Start { source, .. } => source.disposition(),
            Self::Render { .. } => Disposition::Permanent,
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
            Self::ControlNodes { source } | Self::Nodes { source, .. } => source.advice(),
            Self::Ledger { source, .. } => source.advice(),
            Self::NewerLedger { .. } => Some(
                "reinstall that version, or reset compute mode and time slice with nvidia-smi, then delete the file"
                    .into(),
            ),
            Self::Settings { source, .. } | Self::Restore { source, .. } => source.advice(),
            Self::Start { source, .. } | Self::Stop { source, .. } => source.advice(),
            Self::UnreadGpu { .. } => None,
        }
    }
}
