// SPDX-License-Identifier: Apache-2.0
//! Talks to a daemon through NVIDIA's front end: a process per question, since an answer may be no line at all.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use dra_mps::launch::{client_environment, script};
use dra_mps::{Command, printable};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process;
use tokio::time;

/// No reply that is asked for is longer.
const MAX_ANSWER: u64 = 64 << 10;

/// A question without an answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The front end does not run.
    #[error("unable to run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody answers in the pipe directory.
    #[error("the daemon cannot be reached ({said})")]
    Unreachable {
        /// What the front end said.
        said: String,
    },
    /// It takes too long.
    #[error("the daemon did not answer within {timeout:?}")]
    NoAnswer {
        /// How long it was given.
        timeout: Duration,
    },
}

/// The front end of one daemon.
#[derive(Debug, Clone)]
pub struct ControlClient {
    program: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl ControlClient {
    /// The front end of the daemon of a pipe directory.
    pub fn new(program: &Path, pipe_dir: &Path, driver_dir: &Path) -> Self {
        let driver_dir = driver_dir.display().to_string();
        let environment = client_environment(pipe_dir, &driver_dir, &driver_dir);
        Self { program: program.to_owned(), environment }
    }

    /// Gives the daemon commands and returns what was printed for them.
    pub async fn send(&self, commands: &[Command], timeout: Duration) -> Result<String, ControlError> {
        let failed = |source| ControlError::Run { program: self.program.clone(), source };
        let mut child = self.command().spawn().map_err(failed)?;
        // Ended with the child when time is up, by the drop of both.
        match time::timeout(timeout, exchange(&mut child, &script(commands))).await {
            Err(_elapsed) => Err(ControlError::NoAnswer { timeout }),
            Ok(Err(source)) => Err(failed(source)),
            Ok(Ok((true, reply))) => Ok(reply),
            Ok(Ok((false, said))) => Err(ControlError::Unreachable { said: printable(&said) }),
        }
    }

    fn command(&self) -> process::Command {
        let mut command = process::Command::new(&self.program);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        command
    }
}

/// Whether it ended with 0, and its output, or its complaint.
async fn exchange(child: &mut process::Child, script: &str) -> io::Result<(bool, String)> {
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(script.as_bytes()).await {
            // It found no daemon and did not wait for commands.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let mut reply = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(MAX_ANSWER).read_to_end(&mut reply).await?;
    }
    let status = child.wait().await?;
    if !status.success()
        && let Some(complaint) = child.stderr.take()
    {
        complaint.take(MAX_ANSWER).read_to_end(&mut reply).await?;
    }
    Ok((status.success(), String::from_utf8_lossy(&reply).into_owned()))
}
