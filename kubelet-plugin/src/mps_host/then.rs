// SPDX-License-Identifier: Apache-2.0
//! What follows a removal, whatever came of that: a program and its arguments, run to its end.
//!
//! A container has one command, and in an uninstall the settings of GPUs go back after their daemons ended, but also where
//! some did not.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

/// What follows did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ThenError {
    /// No such program.
    #[error("unable to run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It says so.
    #[error("{} failed ({status}), see the log above", program.display())]
    Failed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
}

/// Runs a program with its arguments, if there is one.
pub fn run_then(words: &[OsString]) -> Result<(), ThenError> {
    let Some((program, args)) = words.split_first() else { return Ok(()) };
    let program = PathBuf::from(program);
    match Command::new(&program).args(args).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(ThenError::Failed { program, status }),
        Err(source) => Err(ThenError::Run { program, source }),
    }
}
