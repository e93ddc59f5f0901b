// SPDX-License-Identifier: Apache-2.0
//! From a daemon, in whatever state, to nothing.

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

/// What a daemon may take beyond the timeout that it was told.
const MARGIN: Duration = Duration::from_secs(1);

/// Between two looks at what is left.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Between two requests to quit.
const QUIT_INTERVAL: Duration = Duration::from_millis(500);

/// How long all processes may take to be checked through; one that hangs must not hold up the end of others.
const SCAN_TIMEOUT: Duration = Duration::from_secs(2);

/// Lets a daemon end by itself, as its clients would have it. It does not matter what is replied: the program says 0 for a
/// command that it lost and 1 for a graceful end after a server that failed (seen). What counts is that it is exited.
pub async fn request_quit(process: &Process, control: &ControlClient, timeout: Duration) {
    // It is told in whole seconds; none would be no limit.
    let timeout = timeout.max(Duration::from_secs(1));
    let whole = timeout + MARGIN;
    let quitting = async {
        let mut said = false;
        loop {
            let refused = control.send(&[Command::Quit(timeout)], whole).await.err();
            if let Some(error) = &refused
                && !std::mem::replace(&mut said, true)
            {
                warn!(pid = process.id().pid, error = %dra_model::chain(error), "a daemon does not take quit");
            }
            if matches!(refused, Some(ControlError::Run { .. })) {
                // It never hears of it, so there is nothing to wait for.
                return;
            }
            // A command that was lost leaves a daemon that has to be asked again.
            sleep(QUIT_INTERVAL).await;
        }
    };
    tokio::select! {
        _end = process.wait_exit() => {}
        _late = time::timeout(whole, quitting) => {}
    }
}

/// Ends every process of the daemon of a dir.
pub async fn kill_all(dir: &DaemonDir, id: &DaemonId) -> Result<(), DaemonError> {
    kill_matching(dir, id, |_| true).await
}

/// Ends the daemon of a dir, if there is one, and lets its servers go on for their clients.
pub async fn kill_control_daemon(dir: &DaemonDir, id: &DaemonId) -> Result<(), DaemonError> {
    kill_matching(dir, id, is_daemon).await
}

async fn kill_matching(
    dir: &DaemonDir,
    id: &DaemonId,
    is_meant: impl Fn(&ProcessId) -> bool,
) -> Result<(), DaemonError> {
    let end = Instant::now() + KILL_TIMEOUT;
    loop {
        let mut left = processes_of(dir).await.map_err(|why| still_there(id, why))?;
        left.retain(&is_meant);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
            return Err(still_there(id, format!("killed processes do not end: {}", pids.join(", "))));
        }
        left.into_iter().for_each(kill);
        sleep(POLL_INTERVAL).await;
    }
}

/// Ends every process of a dir and takes the dir away.
pub async fn clear(dir: &DaemonDir, id: &DaemonId) -> Result<(), DaemonError> {
    kill_all(dir, id).await?;
    let removed = spawn_blocking({
        let dir = dir.clone();
        move || dir.remove()
    });
    let removed = removed.await.map_err(|panic| still_there(id, panic.to_string()))?;
    removed.map_err(|error| still_there(id, dra_model::chain(&error).to_string()))
}

fn still_there(id: &DaemonId, left: String) -> DaemonError {
    DaemonError::NotStopped { id: id.clone(), left }
}

async fn processes_of(dir: &DaemonDir) -> Result<Vec<ProcessId>, String> {
    let (pipe_dir, program_dir) = (dir.pipe_dir(), dir.driver_dir());
    let look = spawn_blocking(move || of_daemon(&pipe_dir, &program_dir));
    let failed =
        |why: &dyn std::fmt::Display| format!("the processes of this machine cannot be checked through: {why}");
    match time::timeout(SCAN_TIMEOUT, look).await {
        Ok(Ok(found)) => found.map_err(|error| failed(&error)),
        Ok(Err(panic)) => Err(failed(&panic)),
        Err(elapsed) => Err(failed(&elapsed)),
    }
}
