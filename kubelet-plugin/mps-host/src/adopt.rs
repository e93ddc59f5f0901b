// SPDX-License-Identifier: Apache-2.0
//! What an earlier process of this program left: daemons that live are taken over, those that are meant to be there and are
//! not are lost and come back, everything else goes.

use std::io;
use std::sync::Arc;

use dra_hardware::DaemonError;
use dra_model::DaemonId;
use futures::future::join_all;
use tracing::{info, warn};

use crate::context::Context;
use crate::control_client::ControlClient;
use crate::daemon_dir::{DaemonDir, DaemonDirError};
use crate::daemon_registry::DaemonRegistry;
use crate::process::{Process, kill};
use crate::programs::Programs;
use crate::request::Deadline;
use crate::root::Root;
use crate::start::DaemonHandle;
use crate::state_file::{Phase, SavedState};
use crate::supervisor::Supervisor;
use crate::termination::{clear, request_quit};

/// What there is of a daemon that nobody supervises.
#[derive(Debug)]
pub enum Found {
    /// Nothing that is meant to be there. What was written down of it, if it is understood, is of use to those who end it.
    Leftovers(Option<SavedState>),
    /// It is_alive.
    Running(SavedState, DaemonHandle),
    /// It is meant to be there.
    Lost(SavedState),
}

/// Looks at one daemon. What cannot be read is an error: it may live.
pub fn find(id: &DaemonId, context: &Context) -> Result<Found, DaemonError> {
    let dir = DaemonDir::new(&context.root, id);
    let path = dir.state_path();
    let saved = match SavedState::read(&path) {
        Ok(saved) => saved.filter(|saved| saved.spec.id == *id),
        // That is about its content, and never gets better.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            warn!(daemon = %id, %error, "what is written of an MPS daemon is not understood");
            None
        }
        Err(source) => return Err(DaemonDirError::Read { path, source }.into_daemon_error(id)),
    };
    // One that nobody was told of will be asked for again; one that should go is asked to go again.
    let meant = |saved: &SavedState| saved.boot_id == context.boot_id && saved.phase == Phase::Running;
    Ok(match saved {
        Some(saved) if meant(&saved) => match alive(&saved, &dir, context) {
            Ok(Some(handle)) => Found::Running(saved, handle),
            Ok(None) => Found::Lost(saved),
            Err(source) => return Err(DaemonDirError::Read { path, source }.into_daemon_error(id)),
        },
        leftover => Found::Leftovers(leftover.filter(|saved| saved.boot_id == context.boot_id)),
    })
}

/// Looks through the root directory, before anybody is listened to.
pub async fn adopt(root: &Root, context: &Arc<Context>, daemons: &DaemonRegistry) -> io::Result<()> {
    for id in root.daemons()? {
        if let Some(supervisor) = supervisor_of(&id, context).await {
            daemons.insert(id, supervisor);
        }
    }
    Ok(())
}

/// Ends all daemons there are side by side and takes their places away; tells how many of them stay.
pub async fn remove_all(root: &Root, context: &Context, deadline: Deadline) -> io::Result<usize> {
    let ids = root.daemons()?;
    let ends = ids.iter().map(|id| async move {
        let saved = match find(id, context) {
            Ok(Found::Running(_, handle)) => {
                request_quit(&handle.process, &handle.control, deadline.left()).await;
                handle.process.kill().await;
                None
            }
            Ok(Found::Leftovers(saved)) => saved,
            Ok(Found::Lost(_)) | Err(_) => None,
        };
        end_leftovers(id, saved.as_ref(), context).await.is_err()
    });
    Ok(join_all(ends).await.into_iter().filter(|left| *left).count())
}

async fn supervisor_of(id: &DaemonId, context: &Arc<Context>) -> Option<Supervisor> {
    match find(id, context) {
        Ok(Found::Running(saved, handle)) => Some(Supervisor::adopted(saved, handle, Arc::clone(context))),
        Ok(Found::Lost(saved)) => Some(Supervisor::lost(saved, Arc::clone(context)).await),
        Ok(Found::Leftovers(saved)) => {
            let error = end_leftovers(id, saved.as_ref(), context).await.err()?;
            saved.map(|saved| Supervisor::stopping(saved, &error, Arc::clone(context)))
        }
        Err(error) => {
            warn!(daemon = %id, %error, "an MPS daemon is left as it is until somebody asks for it");
            None
        }
    }
}

async fn end_leftovers(id: &DaemonId, saved: Option<&SavedState>, context: &Context) -> Result<(), DaemonError> {
    if let Some(process) = saved.and_then(|saved| saved.process) {
        kill(process);
    }
    let cleared = clear(&DaemonDir::new(&context.root, id), id).await;
    match &cleared {
        Ok(()) => info!(daemon = %id, "removed what was left of an MPS daemon"),
        Err(error) => warn!(daemon = %id, %error, "something is left of an MPS daemon"),
    }
    cleared
}

/// The daemon, if it still is the process that was written down.
fn alive(saved: &SavedState, dir: &DaemonDir, context: &Context) -> io::Result<Option<DaemonHandle>> {
    let Some(id) = saved.process else { return Ok(None) };
    let Some(process) = Process::open(id)? else { return Ok(None) };
    let control = match Programs::find(&context.driver_root) {
        Ok(programs) => programs.control,
        // A driver that is being replaced keeps its daemons; they cannot be asked until it is back.
        Err(error) => {
            warn!(daemon = %saved.spec.id, %error, "an MPS daemon is_alive without its programs");
            context.driver_root.join("usr/bin").join(dra_mps::launch::CONTROL_PROGRAM)
        }
    };
    let control = ControlClient::new(&control, &dir.pipe_dir(), &dir.driver_dir());
    Ok(Some(DaemonHandle { process, multi_user: saved.multi_user, control }))
}
