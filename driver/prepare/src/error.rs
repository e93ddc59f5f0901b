// SPDX-License-Identifier: Apache-2.0
//! Why the engine did not do what it was asked: one sentence with the claim, the cause and the reader's next step.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use dra_cdi::SpecStoreError;
use dra_checkpoint::StoreError;
use dra_hardware::{BootIdError, DaemonError, GpuError};
use dra_model::{Advice, ClaimRef, DeviceName, Disposition};

use crate::decide::refusal::Refusal;
use crate::effects::error::EffectError;
use crate::flows::undo::Failures;
use crate::state::claim_api::FetchError;
use crate::state::lock_error::NotLocked;
use crate::state::other_claims::OtherClaimsError;

/// The engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("failed to open the claim record directory")]
    Records {
        #[source]
        source: StoreError,
    },
    #[error("failed to open the GPU state directory")]
    Ledgers {
        #[source]
        source: StoreError,
    },
    #[error("failed to create the lock directory")]
    Locks {
        #[source]
        source: std::io::Error,
    },
}

impl Advice for OpenError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Records { source } | Self::Ledgers { source } => source.advice(),
            Self::Locks { .. } => None,
        }
    }
}

/// A claim that is not prepared.
#[derive(Debug)]
pub struct PrepareError {
    pub claim: ClaimRef,
    pub cause: Box<PrepareCause>,
}

/// Why a claim is not prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareCause {
    #[error(transparent)]
    Refused(Refusal),
    #[error("superseded: the claim was unprepared while this call waited")]
    Superseded,
    #[error(transparent)]
    Lock(NotLocked),
    #[error("failed to tell whether the node was rebooted")]
    Boot {
        #[source]
        source: BootIdError,
    },
    #[error("failed to read or write the claim record")]
    Record {
        #[source]
        source: StoreError,
    },
    #[error("failed to read the claim")]
    Fetch {
        #[source]
        source: FetchError,
    },
    #[error("NVML call failed for {device}")]
    Gpu {
        device: DeviceName,
        #[source]
        source: GpuError,
    },
    #[error("the claim is not prepared yet")]
    OutOfTime {
        #[source]
        source: GpuError,
    },
    #[error("the NVIDIA driver stopped responding while {device} was prepared")]
    DriverStopped {
        device: DeviceName,
        #[source]
        source: GpuError,
    },
    #[error("failed to read what other claims hold")]
    OtherClaims {
        #[source]
        source: OtherClaimsError,
    },
    /// The MPS host is asked before the first effect.
    #[error("the claim needs an MPS daemon, but the MPS host is not available")]
    MpsHost {
        #[source]
        source: DaemonError,
    },
    #[error("{device} still has settings or an MPS daemon of an earlier claim")]
    PendingRestore {
        device: String,
        #[source]
        source: EffectError,
    },
    /// The effects before a failed one were undone, or are on record.
    #[error(transparent)]
    Effect(EffectError),
    /// The claim that holds the device is over and cannot be undone. It may be of another namespace, so the text does not name
    /// it.
    #[error("{device} is not free: the claim that held it was deleted or deallocated, and undoing it failed")]
    Holder { device: DeviceName },
    #[error("failed to clean up an earlier prepare attempt: {failures}")]
    Leftover { failures: Failures },
}

impl PrepareError {
    /// The claim that holds the device, as `namespace/name`, where the text does not name it because it is of another
    /// namespace.
    pub fn unnamed_holder(&self) -> Option<String> {
        if let PrepareCause::Refused(refusal) = &*self.cause {
            return refusal.unnamed_holder().map(ToString::to_string);
        }
        let PrepareCause::Lock(NotLocked::Busy { holder, .. }) = &*self.cause else { return None };
        holder.unnamed().map(str::to_owned)
    }
}

impl fmt::Display for PrepareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "claim {}: {}", self.claim, self.cause)
    }
}

impl Error for PrepareError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

impl Advice for PrepareError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match (&*self.cause, self.cause.disposition()) {
            (PrepareCause::Superseded, _) => Some("the kubelet prepares it again if a pod still needs it".into()),
            (cause, Disposition::Permanent) => cause.advice(),
            (cause, Disposition::Busy | Disposition::Transient) => Some(retried(cause.advice())),
        }
    }
}

/// The advice of an error that ends by itself or with the advice, since the kubelet calls again.
fn retried(advice: Option<Cow<'static, str>>) -> Cow<'static, str> {
    advice.map_or(Cow::Borrowed("the kubelet retries"), |advice| format!("{advice}; the kubelet retries").into())
}

impl PrepareCause {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Refused(refusal) => refusal.disposition(),
            Self::Fetch { source, .. } => source.disposition(),
            Self::Lock(source) => source.disposition(),
            Self::Superseded => Disposition::Busy,
            Self::Effect(source) => source.disposition(),
            Self::MpsHost { source } => source.disposition(),
            Self::Boot { .. }
            | Self::Record { .. }
            | Self::Gpu { .. }
            | Self::OutOfTime { .. }
            | Self::DriverStopped { .. }
            | Self::OtherClaims { .. }
            | Self::PendingRestore { .. }
            | Self::Holder { .. }
            | Self::Leftover { .. } => Disposition::Transient,
        }
    }

    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Refused(refusal) => refusal.advice(),
            Self::Lock(source) => source.advice(),
            Self::Record { source } => source.advice(),
            Self::Fetch { source } => source.advice(),
            Self::Gpu { .. } => Some(
                "check nvidia-smi and Xid messages on this node and repair the GPU, or delete the pod to reschedule it"
                    .into(),
            ),
            Self::DriverStopped { .. } => Some("check nvidia-smi on this node".into()),
            Self::OtherClaims { source } => source.advice(),
            Self::MpsHost { source } => source.advice(),
            Self::PendingRestore { source, .. } | Self::Effect(source) => source.advice(),
            Self::Holder { .. } => Some("see the log of the driver on this node".into()),
            Self::Leftover { failures } => failures.advice(),
            Self::Superseded | Self::Boot { .. } | Self::OutOfTime { .. } => None,
        }
    }
}

/// A claim that is not unprepared.
#[derive(Debug)]
pub struct UnprepareError {
    pub claim: ClaimRef,
    pub cause: Box<UnprepareCause>,
}

/// Why a claim is not unprepared. The kubelet retries each of them.
#[derive(Debug, thiserror::Error)]
pub enum UnprepareCause {
    #[error(transparent)]
    Lock(NotLocked),
    #[error("failed to read the claim record")]
    Record {
        #[source]
        source: StoreError,
    },
    #[error("failed to read which claims rely on the same GPUs")]
    OtherClaims {
        #[source]
        source: OtherClaimsError,
    },
    /// Of a claim without a record.
    #[error("failed to remove the CDI spec of the claim")]
    Spec {
        #[source]
        source: SpecStoreError,
    },
    #[error("failed to clear the quarantined claim record, so its devices stay reserved")]
    Quarantine {
        #[source]
        source: StoreError,
    },
    #[error("failed to record the MIG devices of the damaged claim record")]
    Partition {
        #[source]
        source: EffectError,
    },
    #[error("unprepare is incomplete: {failures}")]
    Undo { failures: Failures },
}

impl fmt::Display for UnprepareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "claim {}: {}", self.claim, self.cause)
    }
}

impl Error for UnprepareError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

impl Advice for UnprepareError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        let advice = match &*self.cause {
            UnprepareCause::Lock(source) => source.advice(),
            UnprepareCause::Record { source } | UnprepareCause::Quarantine { source } => source.advice(),
            UnprepareCause::OtherClaims { source } => source.advice(),
            UnprepareCause::Spec { source } => source.advice(),
            UnprepareCause::Partition { source } => source.advice(),
            UnprepareCause::Undo { failures } => failures.advice(),
        };
        Some(retried(advice))
    }
}

impl UnprepareCause {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Lock(source) => source.disposition(),
            Self::Record { .. }
            | Self::OtherClaims { .. }
            | Self::Spec { .. }
            | Self::Quarantine { .. }
            | Self::Partition { .. }
            | Self::Undo { .. } => Disposition::Transient,
        }
    }
}
