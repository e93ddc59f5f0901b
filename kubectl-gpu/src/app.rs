// SPDX-License-Identifier: Apache-2.0
//! Runs a subcommand, and what its exit code says.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use dra_model::node_check::Severity;

use crate::args::{Args, Command};
use crate::clearing;
use crate::commands;
use crate::completion;
use crate::doctoring;
use crate::drain::Outcome;
use crate::draining;
use crate::error::AppError;
use crate::health_commands;
use crate::migrating;
use crate::output::{self, OutputError};
use crate::verifying;
use dra_explain::why::Verdict;

/// What the exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// The question is answered, or what was asked about fits.
    Yes,
    Waits,
    Never,
    None,
}

impl Answer {
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::Yes => ExitCode::SUCCESS,
            Self::Waits => ExitCode::from(1),
            Self::Never => ExitCode::from(2),
            Self::None => ExitCode::from(3),
        }
    }
}

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Fits => Self::Yes,
            Verdict::Waits => Self::Waits,
            Verdict::Never => Self::Never,
            Verdict::Undecided => Self::None,
        }
    }
}

impl From<Severity> for Answer {
    fn from(worst: Severity) -> Self {
        match worst {
            Severity::Warning => Self::Waits,
            Severity::Error => Self::Never,
        }
    }
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Yes,
            Outcome::Waits => Self::Waits,
        }
    }
}

impl From<migrating::Outcome> for Answer {
    fn from(outcome: migrating::Outcome) -> Self {
        match outcome {
            migrating::Outcome::Done => Self::Yes,
            migrating::Outcome::Waits => Self::Waits,
            migrating::Outcome::Refused => Self::Never,
        }
    }
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<Answer, AppError> {
    let connection = &args.connection;
    match &args.command {
        Command::Status(status) => {
            connected(async || commands::print_status(connection, status).await)?;
            Ok(Answer::Yes)
        }
        Command::Why(why) => connected(async || commands::print_why(connection, why).await).map(Answer::from),
        Command::Fit(fit) => {
            let verdicts = connected(async || commands::print_fit(connection, fit).await)?;
            Ok(verdicts.into_iter().map(Answer::from).max().unwrap_or(Answer::Yes))
        }
        Command::Verify(verify) => {
            let agrees = connected(async || verifying::verify(connection, verify).await.map_err(AppError::Verify))?;
            Ok(if agrees { Answer::Yes } else { Answer::Never })
        }
        Command::Doctor(doctor) => {
            let worst = connected(async || doctoring::doctor(connection, doctor).await.map_err(AppError::Doctor))?;
            Ok(worst.map_or(Answer::Yes, Answer::from))
        }
        Command::Clear(clear) => {
            connected(async || clearing::clear(connection, clear).await.map_err(AppError::Clear))?;
            Ok(Answer::Yes)
        }
        Command::Faults(faults) => {
            connected(async || health_commands::print_faults(connection, faults).await)?;
            Ok(Answer::Yes)
        }
        Command::Top(top) => {
            connected(async || health_commands::print_top(connection, top).await)?;
            Ok(Answer::Yes)
        }
        Command::Drain(drain) => {
            let outcome = connected(async || draining::drain(connection, drain).await.map_err(AppError::Drain))?;
            Ok(outcome.into())
        }
        Command::Undrain(gpus) => {
            let outcome = connected(async || draining::undrain(connection, gpus).await.map_err(AppError::Undrain))?;
            Ok(outcome.into())
        }
        Command::Migrate(migrate) => {
            let outcome = connected(async || migrating::migrate(connection, migrate).await.map_err(AppError::Migrate))?;
            Ok(outcome.into())
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "kubectl-gpu", &mut script);
            output::print(&String::from_utf8_lossy(&script)).map_err(AppError::Output)?;
            Ok(Answer::Yes)
        }
    }
}

/// Answers kubectl, if it calls this program to complete a command line.
pub fn complete(mut call: impl Iterator<Item = OsString>) -> Option<Result<(), OutputError>> {
    let program = call.next()?;
    (Path::new(&program).file_name()? == completion::PROGRAM).then(|| {
        let words: Vec<String> = call.map(|word| word.to_string_lossy().into_owned()).collect();
        output::print(&completion::complete(&Args::command(), &words))
    })
}

fn connected<T>(command: impl AsyncFnOnce() -> Result<T, AppError>) -> Result<T, AppError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Runtime)?;
    runtime.block_on(command())
}
