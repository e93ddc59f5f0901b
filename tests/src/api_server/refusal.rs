// SPDX-License-Identifier: Apache-2.0
//! The error answers of the fake API server, with the code and the reason of a real one.

use super::key::Key;

/// An error answer of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// `metav1.Status.reason`.
    pub reason: &'static str,
    pub message: String,
}

impl Refusal {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }

    pub fn not_found(key: &Key) -> Self {
        Self::new(404, "NotFound", format!("{:?} \"{}\" not found", key.resource, key.name))
    }

    pub fn conflict(key: &Key, what: &str) -> Self {
        Self::new(409, "Conflict", format!("{what} of \"{}\" does not match: the object has been modified", key.name))
    }
}

/// An object that fails the validation.
pub(super) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(422, "Invalid", message)
}
