// SPDX-License-Identifier: Apache-2.0
//! The report of one reconciliation.

use std::borrow::Cow;
use std::path::PathBuf;

use dra_cdi::{HookProgramError, SpecStoreError};
use dra_checkpoint::{Quarantined, StoreError};
use dra_hardware::{BootIdError, DaemonError, DriverFilesError};
use dra_model::{Advice, ClaimRef, DeviceName, GpuUuid};

use crate::effects::error::EffectError;
use crate::effects::gpu_settings::Drift;
use crate::error::{PrepareError, UnprepareError};
use crate::state::lock_error::NotLocked;
use crate::state::locks::LockError;
use crate::state::other_claims::OtherClaimsError;

/// What a reconciliation found and did.
#[derive(Debug, Default)]
pub struct Reconciliation {
    /// Ready claims that are unknown to the API server or not allocated to this node. A later reconciliation unprepares them,
    /// unless the kubelet does first.
    pub missing: Vec<ClaimRef>,
    /// Ready claims that were repaired.
    pub repaired: Vec<ClaimRef>,
    /// Claims that were unprepared.
    pub undone: Vec<ClaimRef>,
    /// Unused specs and hook programs of this driver that were removed.
    pub removed: Vec<PathBuf>,
    /// Every quarantined record that still reserves devices.
    pub quarantined: Vec<Quarantined>,
    /// Files of other programs in the directories of this driver. They were not touched.
    pub foreign: Vec<PathBuf>,
    /// MIG devices that exist and that a claim without a record had: its record was lost. They are an administrator's now.
    pub without_record: Vec<DeviceName>,
    /// GPUs whose pending restore was finished.
    pub restored: Vec<GpuUuid>,
    /// Settings that were changed outside this driver although claims rely on them.
    pub drifted: Vec<Drift>,
    pub problems: Vec<Problem>,
}

/// A failure after which the next reconciliation tries again.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("failed to reconcile the CDI specs")]
    Specs {
        #[source]
        source: SpecStoreError,
    },
    #[error("base specs have no hook")]
    Hook {
        #[source]
        source: HookProgramError,
    },
    #[error("failed to bring the hook programs into line with the CDI specs")]
    Hooks {
        #[source]
        source: HookProgramError,
    },
    #[error("failed to reconcile the claim records")]
    Records {
        #[source]
        source: StoreError,
    },
    #[error("failed to remove unused lock files")]
    Locks {
        #[source]
        source: LockError,
    },
    /// The first of the claims and GPUs that could not be locked.
    #[error("failed to lock claims or GPUs, so they are not reconciled")]
    NotLocked {
        #[source]
        source: NotLocked,
    },
    #[error("failed to tell whether the node was rebooted, so no claim is repaired")]
    Boot {
        #[source]
        source: BootIdError,
    },
    #[error("the NVIDIA driver is incomplete on this node, so no base spec is removed")]
    DriverFiles {
        #[source]
        source: DriverFilesError,
    },
    #[error("failed to repair a prepared claim")]
    Repair {
        #[source]
        source: PrepareError,
    },
    #[error("failed to read what claims rely on, so a GPU is not reconciled")]
    OtherClaims {
        #[source]
        source: OtherClaimsError,
    },
    #[error("failed to list the GPU state records")]
    Ledgers {
        #[source]
        source: StoreError,
    },
    #[error("GPU state record {} is {reason}, the original settings are lost", path.display())]
    DamagedLedger { path: PathBuf, reason: String },
    /// For the restore of all GPUs.
    #[error("failed to lock a GPU, so it is not restored")]
    Lock {
        #[source]
        source: NotLocked,
    },
    #[error("failed to reconcile the settings and MPS daemons of {gpu}")]
    Gpu {
        gpu: GpuUuid,
        #[source]
        source: EffectError,
    },
    #[error("failed to list the MPS daemons")]
    Daemons {
        #[source]
        source: DaemonError,
    },
    #[error("failed to stop an MPS daemon without a claim")]
    OrphanedDaemon {
        #[source]
        source: EffectError,
    },
    #[error("failed to undo a claim that is gone")]
    Undo {
        #[source]
        source: UnprepareError,
    },
}

impl Advice for Problem {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Specs { source } => source.advice(),
            Self::Hook { source } | Self::Hooks { source } => source.advice(),
            Self::Records { source } | Self::Ledgers { source } => source.advice(),
            Self::Locks { source } => source.advice(),
            Self::NotLocked { source } | Self::Lock { source } => source.advice(),
            Self::DriverFiles { source } => source.advice(),
            Self::Repair { source } => source.advice(),
            Self::OtherClaims { source } => source.advice(),
            Self::DamagedLedger { .. } => Some(
                "the GPU gets compute mode Default and the default time slice after its claims are unprepared".into(),
            ),
            Self::Gpu { source, .. } | Self::OrphanedDaemon { source } => source.advice(),
            Self::Daemons { source } => source.advice(),
            Self::Undo { source } => source.advice(),
            Self::Boot { .. } => None,
        }
    }
}

impl Reconciliation {
    /// Whether all claims and GPUs were reconciled: the records could be read, and everything could be locked. Problems of
    /// single claims and GPUs leave the reconciliation complete.
    pub fn is_complete(&self) -> bool {
        let is_of_all = |problem: &Problem| match problem {
            Problem::Records { .. } | Problem::Locks { .. } | Problem::NotLocked { .. } => true,
            Problem::Specs { .. }
            | Problem::Hook { .. }
            | Problem::Hooks { .. }
            | Problem::Boot { .. }
            | Problem::DriverFiles { .. }
            | Problem::Repair { .. }
            | Problem::OtherClaims { .. }
            | Problem::Ledgers { .. }
            | Problem::DamagedLedger { .. }
            | Problem::Lock { .. }
            | Problem::Gpu { .. }
            | Problem::Daemons { .. }
            | Problem::OrphanedDaemon { .. }
            | Problem::Undo { .. } => false,
        };
        !self.problems.iter().any(is_of_all)
    }

    /// The value of work under a lock. A failure is recorded as a problem; a lock that another call holds is not one.
    pub(super) fn done_if_idle<T, E>(
        &mut self,
        done: Result<Option<Result<T, E>>, NotLocked>,
        problem: impl FnOnce(E) -> Problem,
    ) -> Option<T> {
        let done = self.locked(done)??;
        done.map_err(|error| self.problems.push(problem(error))).ok()
    }

    /// As `done_if_idle`, for work that names its problem itself.
    pub(super) fn done<T>(&mut self, done: Result<Option<T>, Problem>) -> Option<T> {
        match done {
            Ok(done) => done,
            Err(Problem::NotLocked { source }) => self.locked(Err(source)),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    /// The value of a lock. The next reconciliation handles what another call holds. A lock that fails is recorded once, since
    /// the lock directory fails for all.
    pub(super) fn locked<T>(&mut self, locked: Result<T, NotLocked>) -> Option<T> {
        match locked {
            Ok(locked) => return Some(locked),
            Err(NotLocked::Busy { .. }) => {}
            Err(source @ NotLocked::Failed { .. }) => {
                if !self.problems.iter().any(|problem| matches!(problem, Problem::NotLocked { .. })) {
                    self.problems.push(Problem::NotLocked { source });
                }
            }
        }
        None
    }
}
