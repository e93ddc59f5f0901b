// SPDX-License-Identifier: Apache-2.0
//! What the kubelet is told when a claim could not be prepared or unprepared.
//!
//! Each line begins with the claim and names the device where there is one. The cause is the chain of sources, which the
//! process prints behind it.

use std::error::Error;
use std::fmt;

use dra_cdi::{RenderError, SpecStoreError};
use dra_checkpoint::StoreError;
use dra_hardware::{BootIdError, DaemonError, DriverFilesError, GpuError, NodeError};
use dra_model::{ClaimRef, DeviceName, Disposition};

use crate::engine::OthersError;
use crate::fetch::FetchError;
use crate::holder::LockHolder;
use crate::locks::LockError;
use crate::refusal::Refusal;
use crate::step::StepError;
use crate::undo::Failures;

/// The engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder of records.
    #[error("the state of claims cannot be kept")]
    Records {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The folder of what is owed to GPUs.
    #[error("what is owed to GPUs cannot be kept")]
    Ledgers {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The folder of locks.
    #[error("the folder of locks cannot be made")]
    Locks {
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Why the claim itself or one of its devices could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum NotLocked {
    /// Another call works on it.
    #[error("{what} is being worked on {holder} (will retry)")]
    Busy {
        /// The claim itself, or a device.
        what: String,
        /// By whom or for whom.
        holder: LockHolder,
    },
    /// The folder of locks.
    #[error("{what} cannot be locked")]
    Failed {
        /// The claim itself, or a device.
        what: String,
        /// Why.
        #[source]
        source: LockError,
    },
}

impl NotLocked {
    pub(crate) fn new(what: String, error: LockError) -> Self {
        match error {
            LockError::Held { holder } => Self::Busy { what, holder: LockHolder::new(holder) },
            source @ LockError::File { .. } => Self::Failed { what, source },
        }
    }

    /// The same for the users of a claim, who are not told the name of a claim of another namespace.
    pub(crate) fn for_users_of(self, claim: &ClaimRef) -> Self {
        match self {
            Self::Busy { what, holder } => Self::Busy { what, holder: holder.for_users_of(claim) },
            failed @ Self::Failed { .. } => failed,
        }
    }

    fn disposition(&self) -> Disposition {
        match self {
            Self::Busy { .. } => Disposition::Busy,
            Self::Failed { .. } => Disposition::Transient,
        }
    }
}

/// A claim that is not prepared.
#[derive(Debug)]
pub struct PrepareError {
    /// Which.
    pub claim: ClaimRef,
    /// Why.
    pub cause: Box<PrepareCause>,
}

impl PrepareError {
    /// The claim in the way, as `namespace/name`, where the text does not name it because it is of another namespace.
    pub fn unnamed_holder(&self) -> Option<String> {
        if let PrepareCause::Refused(refusal) = &*self.cause {
            return refusal.unnamed_holder().map(ToString::to_string);
        }
        let PrepareCause::Lock(NotLocked::Busy { holder, .. }) = &*self.cause else { return None };
        holder.unnamed().map(str::to_owned)
    }
}

/// Why a claim is not prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareCause {
    /// Decided against.
    #[error(transparent)]
    Refused(Refusal),
    /// The kubelet took the claim back while this call waited for its turn.
    #[error("it was unprepared while this call waited for its turn; prepare it again if it is needed")]
    Overtaken,
    /// The claim or a GPU could not be locked.
    #[error(transparent)]
    Lock(NotLocked),
    /// Whether the node was rebooted is not known.
    #[error("unable to tell this boot from the one before (will retry)")]
    Boot {
        /// Why.
        #[source]
        source: BootIdError,
    },
    /// The folder of records.
    #[error("its record cannot be kept")]
    Record {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The claim itself.
    #[error("unable to read the claim")]
    Fetch {
        /// Why.
        #[source]
        source: FetchError,
    },
    /// A GPU did not answer.
    #[error("{device} does not answer; repair it, or delete the pod to have it scheduled anew")]
    Gpu {
        /// Which device.
        device: DeviceName,
        /// Why.
        #[source]
        source: GpuError,
    },
    /// The call had no time left to wait for a GPU.
    #[error("it is not prepared yet")]
    OutOfTime {
        /// Which GPU.
        #[source]
        source: GpuError,
    },
    /// The driver went away since the last look.
    #[error("{device} cannot be used without the NVIDIA driver, which went away (will retry)")]
    DriverAway {
        /// Which device.
        device: DeviceName,
        /// What it says.
        #[source]
        source: GpuError,
    },
    /// The records and specs of other claims.
    #[error("unable to tell what other claims hold")]
    Others {
        /// Why.
        #[source]
        source: OthersError,
    },
    /// The MPS host, asked before anything is changed.
    #[error("it needs an MPS daemon")]
    Daemons {
        /// Why there is none.
        #[source]
        source: DaemonError,
    },
    /// What an earlier claim left on a GPU.
    #[error("{device} is not as its administrator left it, since an earlier claim could not be undone to the end")]
    Debt {
        /// Which device.
        device: String,
        /// What stays.
        #[source]
        source: StepError,
    },
    /// The nodes of a device.
    #[error("{device} cannot be opened by a container")]
    Nodes {
        /// Which device.
        device: DeviceName,
        /// Why.
        #[source]
        source: NodeError,
    },
    /// The nodes of all containers.
    #[error("the driver cannot be opened by a container")]
    ControlNodes {
        /// Why.
        #[source]
        source: NodeError,
    },
    /// Libraries and programs.
    #[error("the NVIDIA driver is not complete")]
    DriverFiles {
        /// Why.
        #[source]
        source: DriverFilesError,
    },
    /// A spec cannot even be put into words.
    #[error("its CDI spec cannot be made")]
    Render {
        /// Why.
        #[source]
        source: RenderError,
    },
    /// An effect failed; what was done before it was undone, or is on record.
    #[error("preparing it failed")]
    Step {
        /// Why.
        #[source]
        source: StepError,
    },
    /// A claim that no pod of this node can use any more and that stays. It is not named to who waits; the log says more.
    #[error(
        "{device} is not free: a claim that had it was deleted or deallocated, and could not be undone; see the log of the driver on this node (will retry)"
    )]
    Holder {
        /// Which device.
        device: DeviceName,
    },
    /// What an earlier attempt left behind is in the way.
    #[error("what an earlier attempt left cannot be undone (will retry): {failures}")]
    Leftover {
        /// Why.
        failures: Failures,
    },
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

impl PrepareCause {
    /// Whether retrying helps.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Refused(refusal) => refusal.disposition(),
            Self::Fetch { source, .. } => source.disposition(),
            Self::Lock(source) => source.disposition(),
            Self::Overtaken => Disposition::Busy,
            Self::Step { source } => source.disposition(),
            Self::Daemons { source } => source.disposition(),
            Self::Render { .. } => Disposition::Permanent,
            Self::Boot { .. }
            | Self::Record { .. }
            | Self::Gpu { .. }
            | Self::OutOfTime { .. }
            | Self::DriverAway { .. }
            | Self::Others { .. }
            | Self::Debt { .. }
            | Self::Nodes { .. }
            | Self::ControlNodes { .. }
            | Self::DriverFiles { .. }
            | Self::Holder { .. }
            | Self::Leftover { .. } => Disposition::Transient,
        }
    }
}

/// A claim that is not unprepared.
#[derive(Debug)]
pub struct UnprepareError {
    /// Which.
    pub claim: ClaimRef,
    /// Why.
    pub cause: Box<UnprepareCause>,
}

/// Why a claim is not unprepared. The kubelet retries all of them.
#[derive(Debug, thiserror::Error)]
pub enum UnprepareCause {
    /// The claim or a GPU could not be locked.
    #[error(transparent)]
    Lock(NotLocked),
    /// The folder of records.
    #[error("its record cannot be read")]
    Record {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// Who else relies on what the claim did.
    #[error("unable to tell what other claims rely on")]
    Others {
        /// Why.
        #[source]
        source: OthersError,
    },
    /// The spec of a claim without a record.
    #[error("its devices could not be taken away")]
    Spec {
        /// Why.
        #[source]
        source: SpecStoreError,
    },
    /// A record of it that was set aside.
    #[error("its record that was set aside still counts")]
    Settle {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// Something stays.
    #[error("not everything could be undone (will retry): {failures}")]
    Undo {
        /// What and why.
        failures: Failures,
    },
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

impl UnprepareCause {
    /// Whether retrying helps.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Lock(source) => source.disposition(),
            Self::Record { .. } | Self::Others { .. } | Self::Spec { .. } | Self::Settle { .. } | Self::Undo { .. } => {
                Disposition::Transient
            }
        }
    }
}

/// An error with its sources, for places where several are told at once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let sources = std::iter::successors(error.source(), |source: &&dyn Error| (*source).source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
