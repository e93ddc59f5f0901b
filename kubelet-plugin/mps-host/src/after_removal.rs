// SPDX-License-Identifier: Apache-2.0
//! The program that runs after a removal, also after a failed one, and that is terminated together with this process.
//!
//! A container has one command, and an uninstall restores the settings of the GPUs after their daemons are terminated, also
//! where that failed.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use dra_model::Advice;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// The program after a removal did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum AfterRemovalError {
    #[error("failed to run {}", program.display())]
    Run {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("stopped by a signal before {} ran", program.display())]
    Stopped { program: PathBuf },
    #[error("{} failed: {status}", program.display())]
    Failed { program: PathBuf, status: ExitStatus },
}

impl Advice for AfterRemovalError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Run { .. } => None,
            Self::Stopped { .. } => Some("run --remove again".into()),
            Self::Failed { .. } => Some("see the errors logged before".into()),
        }
    }
}

/// Runs the program with its arguments. Does nothing without a program.
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

/// Waits until the program exits. Forwards a termination of this process.
async fn status(mut child: Child, stop: &CancellationToken) -> io::Result<ExitStatus> {
    if let Some(exited) = stop.run_until_cancelled(child.wait()).await {
        return exited;
    }
    let running = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    if let Some(running) = running {
        kill_process(running, Signal::TERM)?;
    }
    child.wait().await
}
