// SPDX-License-Identifier: Apache-2.0
//! A claim or GPU that could not be locked, as the users of a claim may read it.

use std::borrow::Cow;
use std::fmt;

use dra_model::{Advice, ClaimRef, Disposition};

use crate::decide::holder::OTHER_NAMESPACE;
use crate::state::locks::LockError;

/// How the holder of a lock is named when it is a claim, before `namespace/name`.
pub(crate) const CLAIM: &str = "claim ";

/// Why a claim or GPU was not locked.
#[derive(Debug, thiserror::Error)]
pub enum NotLocked {
    #[error("{what} is locked by {holder}")]
    Busy {
        /// `the claim`, or the name of a device, a GPU or a daemon.
        what: String,
        holder: LockHolder,
    },
    #[error("failed to lock {what}")]
    Failed {
        what: String,
        #[source]
        source: LockError,
    },
}

impl NotLocked {
    pub(crate) fn new(what: String, error: LockError) -> Self {
        match error {
            LockError::Held { holder } => Self::Busy { what, holder: LockHolder { text: holder, is_named: true } },
            source @ LockError::File { .. } => Self::Failed { what, source },
        }
    }

    /// The same for the users of a claim, who do not see the name of a claim of another namespace.
    pub(crate) fn for_users_of(self, claim: &ClaimRef) -> Self {
        match self {
            Self::Busy { what, holder } => Self::Busy { what, holder: holder.for_users_of(claim) },
            failed @ Self::Failed { .. } => failed,
        }
    }

    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Busy { .. } => Disposition::Busy,
            Self::Failed { .. } => Disposition::Transient,
        }
    }
}

impl Advice for NotLocked {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Busy { .. } => None,
            Self::Failed { source, .. } => source.advice(),
        }
    }
}

impl Advice for LockError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Held { .. } => None,
            Self::File { .. } => Some("free space and inodes in that directory and make it writable".into()),
        }
    }
}

/// The holder of a lock as its file names it: `claim namespace/name`, or an activity of this driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    text: String,
    is_named: bool,
}

impl LockHolder {
    fn for_users_of(self, claim: &ClaimRef) -> Self {
        let is_same = |(namespace, _): (&str, &str)| namespace == claim.namespace;
        let is_named = self.claim().is_none_or(|name| name.split_once('/').is_some_and(is_same));
        Self { is_named, ..self }
    }

    /// The claim, where its name is not shown.
    pub(crate) fn unnamed(&self) -> Option<&str> {
        self.claim().filter(|_| !self.is_named)
    }

    fn claim(&self) -> Option<&str> {
        self.text.strip_prefix(CLAIM)
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_named { &self.text } else { OTHER_NAMESPACE })
    }
}
