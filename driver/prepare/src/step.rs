// SPDX-License-Identifier: Apache-2.0
//! The effects a claim has on the machine: each with how it is done and, beside it, how it is undone.
//!
//! Doing is "let it be so": what is there already is checked and repaired. Undoing what was never done is success. So
//! either may be repeated after a crash in the middle. What belongs to a GPU, its settings and daemons, several claims may
//! need: it is undone with the last of them, and what cannot be undone then is owed to the GPU and keeps no claim.

mod daemon;
mod debts;
mod ledger;
mod settings;

use std::path::PathBuf;

use dra_cdi::{Kind, RenderedSpec, SpecStore, SpecStoreError};
use dra_checkpoint::{ClaimRecord, LedgerStore, Step, StoreError};
use dra_hardware::{BoundedHost, DaemonError, GpuError};
use dra_model::{ClaimUid, DaemonId, Disposition, GpuUuid};

use crate::engine::Call;
use crate::tally::Tally;
use crate::users::Users;
pub(crate) use daemon::stop_unused;
pub(crate) use debts::{pay, pay_regardless};
pub use settings::Drift;
pub(crate) use settings::drifts;

/// A promise and everything that keeping it takes, checked and rendered before the first effect.
#[derive(Debug)]
pub struct Work {
    /// The promise.
    pub record: ClaimRecord,
    /// The spec of the driver version, unless another version is loaded now.
    pub base: Option<RenderedSpec>,
    /// The spec of the claim.
    pub claim_spec: RenderedSpec,
}

/// What the effects are made with, and who else relies on them.
#[derive(Debug, Clone, Copy)]
pub struct Tools<'a> {
    /// CDI specs.
    pub specs: &'a SpecStore,
    /// The machine.
    pub host: BoundedHost<'a>,
    /// What is owed to GPUs.
    pub ledgers: &'a LedgerStore,
    /// MPS daemons.
    pub(crate) daemons: &'a Call<'a>,
    /// The other claims.
    pub users: Users<'a>,
    /// Counts.
    pub tally: &'a Tally,
}

/// Why an effect is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// It is promised now.
    New,
    /// The kubelet asks for a promise again that is kept already.
    Repeat,
    /// Nobody asks.
    Reconcile,
}

/// An effect that was not achieved.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The base spec.
    #[error("the driver's files could not be offered to containers")]
    BaseSpec {
        /// Why.
        #[source]
        source: SpecStoreError,
    },
    /// The claim's spec.
    #[error("the claim's devices could not be offered to containers")]
    ClaimSpec {
        /// Why.
        #[source]
        source: SpecStoreError,
    },
    /// Taking the claim's spec away.
    #[error("the claim's devices could not be taken away")]
    RemoveClaimSpec {
        /// Why.
        #[source]
        source: SpecStoreError,
    },
    /// What is owed to a GPU.
    #[error("what is owed to {gpu} could not be kept")]
    Ledger {
        /// Which GPU.
        gpu: GpuUuid,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// What is owed to a GPU, as a newer driver wrote it.
    #[error(
        "what is owed to {gpu} is {reason}: let the version that wrote {path} run again, or remove that file if the GPU \
         may have what it has after a reboot"
    )]
    Newer {
        /// Which GPU.
        gpu: GpuUuid,
        /// The ledger.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The settings that a strategy needs.
    #[error("the GPU could not be set up for its strategy")]
    Settings {
        /// Which GPU.
        gpu: GpuUuid,
        /// Why.
        #[source]
        source: Box<GpuError>,
    },
    /// The settings that were found.
    #[error("the GPU could not be given back its settings")]
    Restore {
        /// Which GPU.
        gpu: GpuUuid,
        /// Why.
        #[source]
        source: Box<GpuError>,
    },
    /// A daemon that is needed.
    #[error("the MPS daemon could not be started")]
    Start {
        /// Which daemon.
        id: DaemonId,
        /// Why.
        #[source]
        source: Box<DaemonError>,
    },
    /// A daemon that is not needed any more.
    #[error("an MPS daemon could not be ended")]
    Stop {
        /// Which daemon.
        id: DaemonId,
        /// Why.
        #[source]
        source: Box<DaemonError>,
    },
}

impl StepError {
    /// Whether retrying helps.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Settings { source, .. } if matches!(**source, GpuError::Unsupported { .. }) => Disposition::Permanent,
            Self::Start { source, .. } => source.disposition(),
            Self::BaseSpec { .. }
            | Self::ClaimSpec { .. }
            | Self::RemoveClaimSpec { .. }
            | Self::Ledger { .. }
            | Self::Newer { .. }
            | Self::Settings { .. }
            | Self::Restore { .. }
            | Self::Stop { .. } => Disposition::Transient,
        }
    }
}

/// Lets the effect be there; says whether anything had to be done.
pub fn apply(step: &Step, work: &Work, occasion: Occasion, tools: &Tools<'_>) -> Result<bool, StepError> {
    let writer = &work.record.claim.uid;
    match step {
        Step::ClaimSpec => {
            // The base comes first, and after the record, which keeps it from being collected as unused.
            let ensure = |spec: &RenderedSpec| tools.specs.ensure(spec, writer);
            let base = work.base.as_ref().map(ensure).transpose();
            let base = base.map_err(|source| StepError::BaseSpec { source })?;
            let claim = ensure(&work.claim_spec).map_err(|source| StepError::ClaimSpec { source })?;
            Ok([base, Some(claim)].into_iter().flatten().any(|ensured| ensured != dra_cdi::Ensured::Unchanged))
        }
        Step::GpuSettings { gpu, wanted } => settings::ensure(gpu, *wanted, occasion, tools),
        Step::MpsDaemon { id, gpus } => daemon::ensure(id, gpus, &work.record, tools),
    }
}

/// Lets the effect be gone, as far as nobody else relies on it. The base spec stays: other claims use it.
pub fn undo(step: &Step, uid: &ClaimUid, tools: &Tools<'_>) -> Result<(), StepError> {
    match step {
        Step::ClaimSpec => {
            tools.specs.remove(&Kind::Claim(uid.clone())).map_err(|source| StepError::RemoveClaimSpec { source })
        }
        Step::GpuSettings { gpu, .. } => {
            settings::undo(gpu, tools);
            Ok(())
        }
        Step::MpsDaemon { id, gpus } => {
            daemon::undo(id, gpus, uid, tools);
            Ok(())
        }
    }
}
