// SPDX-License-Identifier: Apache-2.0
//! From a daemon, in whatever state, to nothing.

use std::time::Duration;

use dra_hardware::DaemonError;
use dra_model::DaemonId;
use dra_mps::Command;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use crate::front_end::{AskError, FrontEnd};
use crate::place::Place;
use crate::process::{LAST_PATIENCE, Process, kill};
use crate::processes::{ProcessId, is_daemon, of_daemon};

/// What a daemon may take beyond the patience that it was told.
const MARGIN: Duration = Duration::from_secs(1);

/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(5);

/// Between two requests to quit.
const ASK: Duration = Duration::from_millis(500);

/// How long all processes may take to be looked through; one that hangs must not hold up the end of others.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);

/// Lets a daemon end by itself, as its clients would have it. It does not matter what is answered: the program says 0 for a
/// command that it lost and 1 for a graceful end after a server that failed (seen). What counts is that it is gone.
pub async fn ask_to_quit(process: &Process, front_end: &FrontEnd, patience: Duration) {
    // It is told in whole seconds; none would be no limit.
    let patience = patience.max(Duration::from_secs(1));
    let whole = patience + MARGIN;
    let quitting = async {
        let mut said = false;
        loop {
            let refused = front_end.ask(&[Command::Quit(patience)], whole).await.err();
            if let Some(error) = &refused
                && !std::mem::replace(&mut said, true)
            {
                warn!(pid = process.id().pid, error = %dra_model::chain(error), "a daemon does not take quit");
            }
            if matches!(refused, Some(AskError::Run { .. })) {
                // It never hears of it, so there is nothing to wait for.
                return;
            }
            // A command that was lost leaves a daemon that has to be asked again.
            sleep(ASK).await;
        }
    };
    tokio::select! {
        _end = process.ended() => {}
        _late = timeout(whole, quitting) => {}
    }
}

/// Ends every process of the daemon of a place.
pub async fn end_all(place: &Place, id: &DaemonId) -> Result<(), DaemonError> {
    end_each(place, id, |_| true).await
}

/// Ends the daemon of a place, if there is one, and lets its servers go on for their clients.
pub async fn end_daemon(place: &Place, id: &DaemonId) -> Result<(), DaemonError> {
    end_each(place, id, is_daemon).await
}

async fn end_each(place: &Place, id: &DaemonId, is_meant: impl Fn(&ProcessId) -> bool) -> Result<(), DaemonError> {
    let end = Instant::now() + LAST_PATIENCE;
    loop {
        let mut left = processes_of(place).await.map_err(|why| still_there(id, why))?;
        left.retain(&is_meant);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
            return Err(still_there(id, format!("killed processes do not end: {}", pids.join(", "))));
        }
        left.into_iter().for_each(kill);
        sleep(LOOK).await;
    }
}

/// Ends every process of a place and takes the place away.
pub async fn clear(place: &Place, id: &DaemonId) -> Result<(), DaemonError> {
    end_all(place, id).await?;
    let removed = spawn_blocking({
        let place = place.clone();
        move || place.remove()
    });
    let removed = removed.await.map_err(|panic| still_there(id, panic.to_string()))?;
    removed.map_err(|error| still_there(id, dra_model::chain(&error).to_string()))
}

fn still_there(id: &DaemonId, left: String) -> DaemonError {
    DaemonError::NotStopped { id: id.clone(), left }
}

async fn processes_of(place: &Place) -> Result<Vec<ProcessId>, String> {
    let (pipe_dir, program_dir) = (place.pipe_dir(), place.driver_dir());
    let look = spawn_blocking(move || of_daemon(&pipe_dir, &program_dir));
    let failed = |why: &dyn std::fmt::Display| format!("the processes of this machine cannot be looked through: {why}");
    match timeout(LOOK_PATIENCE, look).await {
        Ok(Ok(found)) => found.map_err(|error| failed(&error)),
        Ok(Err(panic)) => Err(failed(&panic)),
        Err(elapsed) => Err(failed(&elapsed)),
    }
}
