// SPDX-License-Identifier: Apache-2.0
//! From a daemon, in whatever state, to nothing.

use std::time::Duration;

use dra_hardware::DaemonError;
use dra_model::DaemonId;
use dra_mps::Command;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::front_end::FrontEnd;
use super::place::Place;
use super::process::{LAST_PATIENCE, Process, kill};
use super::processes::{ProcessId, using};

/// What a daemon may take beyond the patience that it was told.
const MARGIN: Duration = Duration::from_secs(1);

/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(5);

/// Lets a daemon end by itself, as its clients would have it. It does not matter what is answered: the program says 0 for a
/// command that it lost and 1 for a graceful end after a server that failed (seen). What counts is that it is gone.
pub async fn ask_to_quit(process: &Process, front_end: &FrontEnd, patience: Duration) {
    // It is told in whole seconds; none would be no limit.
    let patience = patience.max(Duration::from_secs(1));
    let whole = patience + MARGIN;
    let quitting = async {
        loop {
            // A command that was lost leaves a daemon that has to be asked again.
            if let Err(error) = front_end.ask(&[Command::Quit(patience)], whole).await {
                warn!(pid = process.id().pid, error = %dra_runtime::chain(&error), "a daemon does not take quit");
            }
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        _end = process.ended() => {}
        _late = timeout(whole, quitting) => {}
    }
}

/// Ends every process that uses the pipe directory of a place.
pub async fn end_all(place: &Place, id: &DaemonId) -> Result<(), DaemonError> {
    let end = Instant::now() + LAST_PATIENCE;
    loop {
        let left = processes_of(place).await;
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
    removed.map_err(|error| still_there(id, dra_runtime::chain(&error).to_string()))
}

fn still_there(id: &DaemonId, left: String) -> DaemonError {
    DaemonError::StillThere { id: id.clone(), left }
}

async fn processes_of(place: &Place) -> Vec<ProcessId> {
    let pipe_dir = place.pipe_dir();
    spawn_blocking(move || using(&pipe_dir)).await.unwrap_or_default()
}
