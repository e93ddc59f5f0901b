// SPDX-License-Identifier: Apache-2.0
//! One line of JSON for a program that reads the output of a subcommand.

use std::borrow::Cow;

use dra_model::Advice;
use serde::Serialize;

/// The report cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[error("failed to encode the report as JSON")]
pub struct EncodeError(#[source] serde_json::Error);

impl Advice for EncodeError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        None
    }
}

/// The text for standard output, and why there is none.
pub(crate) fn line(report: &impl Serialize) -> (String, Result<(), EncodeError>) {
    match serde_json::to_string(report) {
        Ok(text) => (text + "\n", Ok(())),
        Err(error) => (String::new(), Err(EncodeError(error))),
    }
}
