// SPDX-License-Identifier: Apache-2.0
//! Writes answers in the form that the user chose.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::table::Colours;

/// The answer cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("failed to encode the answer as JSON")]
    Json(#[source] serde_json::Error),
    #[error("failed to encode the answer as YAML")]
    Yaml(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("failed to write to standard output")]
    Write(#[source] io::Error),
}

/// Colours only for a terminal, and not with NO_COLOR (no-color.org).
pub fn colours() -> Colours {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stdout().is_terminal() && !unwanted { Colours::On } else { Colours::Off }
}

pub fn json(answer: &impl Serialize) -> Result<String, OutputError> {
    serde_json::to_string_pretty(answer).map(|text| text + "\n").map_err(OutputError::Json)
}

pub fn yaml(answer: &impl Serialize) -> Result<String, OutputError> {
    serde_saphyr::to_string(answer).map_err(|error| OutputError::Yaml(Box::new(error)))
}

/// A reader that closes the pipe, such as `head`, has what it wants.
pub fn print(text: &str) -> Result<(), OutputError> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(OutputError::Write(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
