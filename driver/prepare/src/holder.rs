// SPDX-License-Identifier: Apache-2.0
//! Who is in the way of a claim, as its users may read it. Pure.
//!
//! Refusals are shown in the namespace of the claim that is refused, so they name claims of that namespace only. The process
//! names the others in its log and in an Event on the Node.

use std::fmt;

use dra_model::{ClaimRef, ClaimUid};

/// How a lock that is held for a claim is marked, before `namespace/name`.
pub(crate) const FOR_CLAIM: &str = "for claim ";

const OF_OTHER_NAMESPACE: &str = "a claim of another namespace";

/// Another claim that is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Which claim.
    pub claim: Box<ClaimRef>,
    is_named: bool,
}

impl Holder {
    /// A claim that is in the way of `refused`.
    pub fn new(claim: &ClaimRef, refused: &ClaimRef) -> Self {
        Self { claim: Box::new(claim.clone()), is_named: claim.namespace == refused.namespace }
    }

    /// The claim, where its name is not shown.
    pub fn unnamed(&self) -> Option<&ClaimRef> {
        (!self.is_named).then_some(&*self.claim)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_named { write!(f, "claim {}", self.claim) } else { f.write_str(OF_OTHER_NAMESPACE) }
    }
}

/// A claim whose record cannot be read, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DoubtfulHolder {
    /// By what is left of the record.
    Claim(Holder),
    /// By the file name of the record.
    Uid(ClaimUid),
    /// Not known.
    Unknown,
}

impl fmt::Display for DoubtfulHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(holder) => holder.fmt(f),
            Self::Uid(uid) => write!(f, "the claim with UID {uid}"),
            Self::Unknown => f.write_str("a claim"),
        }
    }
}

/// Who has a lock, as its file says: `by …`, or `for claim namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    text: String,
    is_named: bool,
}

impl LockHolder {
    /// For administrators, who may read every name.
    pub(crate) fn new(text: String) -> Self {
        Self { text, is_named: true }
    }

    /// For the users of a claim.
    pub(crate) fn for_users_of(self, claim: &ClaimRef) -> Self {
        let is_same = |(namespace, _): (&str, &str)| namespace == claim.namespace;
        let is_named = self.claim().is_none_or(|name| name.split_once('/').is_some_and(is_same));
        Self { is_named, ..self }
    }

    /// The claim, where its name is not shown.
    pub(crate) fn unnamed(&self) -> Option<&str> {
        self.claim().filter(|_| !self.is_named)
    }

    fn claim(&self) -> Option<&str> {
        self.text.strip_prefix(FOR_CLAIM)
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_named { f.write_str(&self.text) } else { write!(f, "for {OF_OTHER_NAMESPACE}") }
    }
}
