// SPDX-License-Identifier: Apache-2.0
//! What `gpu-kubelet-plugin doctor` finds on its node. It is printed as JSON for `kubectl gpu doctor`, which finds the rest.

use serde::{Deserialize, Serialize};

/// One question about an object, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What was looked at, such as `driver root`.
    pub subject: String,
    /// What is there; empty if the problems say all.
    pub found: String,
    #[serde(default)]
    pub problems: Vec<Problem>,
}

/// What is wrong, and what ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    pub severity: Severity,
    pub cause: String,
    pub fix: String,
}

/// The weight of a problem, the lighter one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// A part of the driver is missing or will fail in some case.
    Warning,
    /// Pods do not get GPUs.
    Error,
}

impl Check {
    /// Nothing is wrong.
    pub fn good(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { subject: subject.into(), found: found.into(), problems: Vec::new() }
    }

    pub fn bad(subject: impl Into<String>, problem: Problem) -> Self {
        Self { subject: subject.into(), found: String::new(), problems: vec![problem] }
    }
}

impl Problem {
    pub fn error(cause: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Error, cause: cause.into(), fix: fix.into() }
    }

    pub fn warning(cause: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, cause: cause.into(), fix: fix.into() }
    }
}

/// The checks of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeChecks {
    /// Of this driver.
    pub version: String,
    /// The clock of the node in milliseconds since 1970.
    pub clock_ms: u64,
    /// Of the NVIDIA driver that is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvidia_driver: Option<String>,
    pub checks: Vec<Check>,
}
