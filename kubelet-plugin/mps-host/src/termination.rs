// SPDX-License-Identifier: Apache-2.0
//! Ends the processes of a daemon and removes its directory, whatever state it is in.

use std::time::Duration;

use dra_hardware::DaemonError;
use dra_model::DaemonId;
use dra_mps::Command;
use tokio::task::spawn_blocking;
use tokio::time::{self, Instant, sleep};
use tracing::warn;

use crate::control_client::{ControlClient, ControlError};
use crate::daemon_dir::DaemonDir;
use crate::process::{KILL_TIMEOUT, Process, kill};
use crate::processes::{ProcessId, is_daemon, of_daemon};

/// Time for a daemon beyond the timeout of its quit command.
const MARGIN: Duration = Duration::from_secs(1);

/// Interval of the checks whether killed processes exited.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Interval of the quit commands.
const QUIT_INTERVAL: Duration = Duration::from_millis(500);

/// Time for a scan of all processes, so that a process that hangs does not block the end of others.
const SCAN_TIMEOUT: Duration = Duration::from_secs(2);

/// Lets a daemon quit after its clients. The result of the command is no criterion: the program exits with 0 for a command
/// that was lost and with 1 for a graceful end after a failed server (seen). The criterion is the exit of the daemon.
pub async fn request_quit(process: &Process, control: &ControlClient, timeout: Duration) {
    // In whole seconds, of which 0 means no limit.
    let timeout = timeout.max(Duration::from_secs(1));
    let limit = timeout + MARGIN;
    let quitting = async {
        let mut is_logged = false;
        loop {
            let failure = control.send(&[Command::Quit(timeout)], limit).await.err();
            if let Some(error) = &failure
                && !std::mem::replace(&mut is_logged, true)
            {
                warn!(pid = process.id().pid, error = %dra_model::chain(error), "failed to send quit to an MPS daemon");
            }
            if matches!(failure, Some(ControlError::Run { .. })) {
                // The command never reaches the daemon, so waiting is pointless.
                return;
            }
            // A command may be lost, so it is repeated until the daemon exits.
            sleep(QUIT_INTERVAL).await;
        }
    };
    tokio::select! {
        _exit = process.wait_exit() => {}
        _timeout = time::timeout(limit, quitting) => {}
    }
}

/// Kills every process of a daemon.
pub async fn kill_all(dir: &DaemonDir, id: &DaemonId) -> Result<(), DaemonError> {
    kill_matching(dir, id, |_| true).await
}

/// Kills the control daemon, if it runs. Its servers continue for their clients.
pub async fn kill_control_daemon(dir: &DaemonDir, id: &DaemonId) -> Result<(), DaemonError> {
    kill_matching(dir, id, is_daemon).await
}

async fn kill_matching(
    dir: &DaemonDir,
    id: &DaemonId,
    matches: impl Fn(&ProcessId) -> bool,
) -> Result<(), DaemonError> {
    let end = Instant::now() + KILL_TIMEOUT;
    loop {
        let mut left = processes_of(dir).await.map_err(|why| not_stopped(id, why))?;
        left.retain(&matches);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
            return Err(not_stopped(id, format!("killed processes do not exit: {}", pids.join(", "))));
        }
        left.into_iter().for_each(kill);
        sleep(POLL_INTERVAL).await;
    }
}

/// Kills every process of a daemon and removes its directory.
pub async fn remove_daemon(dir: &DaemonDir, id: &DaemonId) -> Result<(), DaemonError> {
    kill_all(dir, id).await?;
    let removed = spawn_blocking({
        let dir = dir.clone();
        move || dir.remove()
    });
    let removed = removed.await.map_err(|panic| not_stopped(id, panic.to_string()))?;
    removed.map_err(|error| not_stopped(id, dra_model::explain(&error)))
}

fn not_stopped(id: &DaemonId, left: String) -> DaemonError {
    DaemonError::NotStopped { id: id.clone(), left }
}

async fn processes_of(dir: &DaemonDir) -> Result<Vec<ProcessId>, String> {
    let (pipe_dir, program_dir) = (dir.pipe_dir(), dir.driver_dir());
    let scan = spawn_blocking(move || of_daemon(&pipe_dir, &program_dir));
    let failed = |why: &dyn std::fmt::Display| format!("failed to scan the processes of this node: {why}");
    match time::timeout(SCAN_TIMEOUT, scan).await {
        Ok(Ok(found)) => found.map_err(|error| failed(&error)),
        Ok(Err(panic)) => Err(failed(&panic)),
        Err(elapsed) => Err(failed(&elapsed)),
    }
}
