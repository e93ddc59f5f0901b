// SPDX-License-Identifier: Apache-2.0
//! Reads what an earlier process left of one daemon: a state file and perhaps the process that it names.

use std::io;

use dra_hardware::DaemonError;
use dra_model::DaemonId;
use tracing::warn;

use crate::context::Context;
use crate::control_client::ControlClient;
use crate::daemon_dir::{DaemonDir, DaemonDirError};
use crate::process::Process;
use crate::programs::Programs;
use crate::start::DaemonHandle;
use crate::state_file::{Phase, SavedState};

/// What exists of a daemon without a supervisor.
#[derive(Debug)]
pub enum Found {
    /// Parts of a daemon that must not run. The state file, where it is readable, names the process to kill.
    Leftovers(Option<SavedState>),
    Running(SavedState, DaemonHandle),
    /// A daemon that must run and has no process.
    Lost(SavedState),
}

/// Finds one daemon. An unreadable state file is an error, because the daemon may run.
pub fn find(id: &DaemonId, context: &Context) -> Result<Found, DaemonError> {
    let dir = DaemonDir::new(&context.root, id);
    let path = dir.state_path();
    let saved = match SavedState::read(&path) {
        Ok(saved) => saved.filter(|saved| saved.spec.id == *id),
        // The content is wrong, so a later read gives the same result.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            warn!(daemon = %id, %error, "state file of an MPS daemon is invalid");
            None
        }
        Err(source) => return Err(DaemonDirError::Read { path, source }.into_daemon_error(id)),
    };
    // The plugin repeats its request for a daemon in another phase.
    let must_run = |saved: &SavedState| saved.boot_id == context.boot_id && saved.phase == Phase::Running;
    Ok(match saved {
        Some(saved) if must_run(&saved) => match handle_of(&saved, &dir, context) {
            Ok(Some(handle)) => Found::Running(saved, handle),
            Ok(None) => Found::Lost(saved),
            Err(source) => return Err(DaemonDirError::Read { path, source }.into_daemon_error(id)),
        },
        leftover => Found::Leftovers(leftover.filter(|saved| saved.boot_id == context.boot_id)),
    })
}

/// The running daemon, if the process of the state file is alive.
fn handle_of(saved: &SavedState, dir: &DaemonDir, context: &Context) -> io::Result<Option<DaemonHandle>> {
    let Some(id) = saved.process else { return Ok(None) };
    let Some(process) = Process::open(id)? else { return Ok(None) };
    let control = match Programs::find(&context.driver_root) {
        Ok(programs) => programs.control,
        // While the NVIDIA driver is replaced, its daemons run on without answering.
        Err(error) => {
            warn!(daemon = %saved.spec.id, %error, "control program of a running MPS daemon is missing");
            context.driver_root.join("usr/bin").join(dra_mps::launch::CONTROL_PROGRAM)
        }
    };
    let control = ControlClient::new(&control, &dir.pipe_dir(), &dir.driver_dir());
    Ok(Some(DaemonHandle { process, multi_user: saved.multi_user, control }))
}
