// SPDX-License-Identifier: Apache-2.0
//! What follows a removal, whatever came of that: a program and its arguments, run to its end. It is told to end when this
//! process is.
//!
//! A container has one command, and in an uninstall the settings of GPUs go back after their daemons ended, but also where
//! some did not.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// What follows did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum AfterRemovalError {
    /// No such program.
    #[error("unable to run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A signal came first.
    #[error("{} was not run, because this process was told to stop before", program.display())]
    Stopped {
        /// The program.
        program: PathBuf,
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
pub async fn run_after_removal(words: &[OsString], stop: &CancellationToken) -> Result<(), AfterRemovalError> {
    let Some((program, args)) = words.split_first() else { return Ok(()) };
    let program = PathBuf::from(program);
    if stop.is_cancelled() {
        return Err(AfterRemovalError::Stopped { program });
    }
    let status = match Command::new(&program).args(args).spawn() {
        Ok(child) => status(child, stop).await,
        Err(source) => Err(source),
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(AfterRemovalError::Failed { program, status }),
        Err(source) => Err(AfterRemovalError::Run { program, source }),
    }
}

/// Waits for the end of a program, and passes on that it should end.
async fn status(mut child: Child, stop: &CancellationToken) -> io::Result<ExitStatus> {
    if let Some(ended) = stop.run_until_cancelled(child.wait()).await {
        return ended;
    }
    let running = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    if let Some(running) = running {
        kill_process(running, Signal::TERM)?;
    }
    child.wait().await
}
