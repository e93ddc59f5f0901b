// SPDX-License-Identifier: Apache-2.0
//! Sends commands to a daemon through NVIDIA's control program. It runs once per request, because the end of an answer of
//! several lines is visible only as the end of the output.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use dra_mps::launch::{client_environment, script};
use dra_mps::{Command, printable};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process;
use tokio::time;

/// Bytes of the longest answer that is read.
const MAX_ANSWER: u64 = 64 << 10;

/// A command without an answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("failed to run {}", program.display())]
    Run {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    /// No daemon listens in the pipe directory.
    #[error("failed to reach the daemon ({output})")]
    Unreachable { output: String },
    #[error("no answer of the daemon within {timeout:?}")]
    NoAnswer { timeout: Duration },
}

/// The control program as client of one daemon.
#[derive(Debug, Clone)]
pub struct ControlClient {
    program: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl ControlClient {
    pub fn new(program: &Path, pipe_dir: &Path, driver_dir: &Path) -> Self {
        let driver_dir = driver_dir.display().to_string();
        let environment = client_environment(pipe_dir, &driver_dir, &driver_dir);
        Self { program: program.to_owned(), environment }
    }

    /// Sends commands in one run and returns the output.
    pub async fn send(&self, commands: &[Command], timeout: Duration) -> Result<String, ControlError> {
        let failed = |source| ControlError::Run { program: self.program.clone(), source };
        let mut child = self.command().spawn().map_err(failed)?;
        // At the timeout both are dropped, which kills the child.
        match time::timeout(timeout, exchange(&mut child, &script(commands))).await {
            Err(_elapsed) => Err(ControlError::NoAnswer { timeout }),
            Ok(Err(source)) => Err(failed(source)),
            Ok(Ok((true, answer))) => Ok(answer),
            Ok(Ok((false, output))) => Err(ControlError::Unreachable { output: printable(&output) }),
        }
    }

    /// Succeeds if the daemon answers a question. If the daemon exits after it accepted the connection, the program exits with 0
    /// and prints nothing.
    pub async fn confirm(&self, timeout: Duration) -> Result<(), ControlError> {
        let answer = self.send(&[Command::Threads], timeout).await?;
        if answer.trim().is_empty() {
            return Err(ControlError::Unreachable { output: "it closed the connection without an answer".to_owned() });
        }
        Ok(())
    }

    fn command(&self) -> process::Command {
        let mut command = process::Command::new(&self.program);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        command
    }
}

/// Whether the program exits with 0, and its output; of a failed program its errors as well.
async fn exchange(child: &mut process::Child, script: &str) -> io::Result<(bool, String)> {
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(script.as_bytes()).await {
            // A program that finds no daemon exits without reading its input.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let mut answer = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    }
    let status = child.wait().await?;
    if !status.success()
        && let Some(errors) = child.stderr.take()
    {
        errors.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    }
    Ok((status.success(), String::from_utf8_lossy(&answer).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_daemon_that_closes_the_connection_has_not_answered() {
        let client = |program: &str| ControlClient::new(Path::new(program), Path::new("/pipe"), Path::new("/driver"));
        let limit = Duration::from_secs(20);
        // It prints what it reads, and the other one nothing; both exit with 0.
        client("/bin/cat").confirm(limit).await.unwrap();
        let refused = client("/bin/true").confirm(limit).await.unwrap_err();
        assert_eq!(refused.to_string(), "failed to reach the daemon (it closed the connection without an answer)");
    }
}
