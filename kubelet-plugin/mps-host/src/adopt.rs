// SPDX-License-Identifier: Apache-2.0
//! Adopts the daemons of an earlier process of this program, or removes them.
//!
//! A running daemon gets a supervisor; a daemon without its process is lost and starts again; everything else is removed.

use std::io;
use std::sync::Arc;

use dra_hardware::DaemonError;
use dra_model::DaemonId;
use futures::future::join_all;
use tracing::{info, warn};

use crate::context::Context;
use crate::daemon_dir::DaemonDir;
use crate::daemon_registry::DaemonRegistry;
use crate::discovery::{Found, find};
use crate::process::kill;
use crate::request::Deadline;
use crate::root::Root;
use crate::state_file::SavedState;
use crate::supervisor::Supervisor;
use crate::termination::{remove_daemon, request_quit};

/// Gives every daemon in the root directory a supervisor, before the first call is served.
pub async fn adopt(root: &Root, context: &Arc<Context>, daemons: &DaemonRegistry) -> io::Result<()> {
    for id in root.daemons()? {
        if let Some(supervisor) = supervisor_of(&id, context).await {
            daemons.insert(id, supervisor);
        }
    }
    Ok(())
}

/// Terminates all daemons in parallel and removes their directories. Returns how many could not be removed.
pub async fn remove_all(root: &Root, context: &Context, deadline: Deadline) -> io::Result<usize> {
    let ids = root.daemons()?;
    let removals = ids.iter().map(|id| async move {
        let saved = match find(id, context) {
            Ok(Found::Running(_, handle)) => {
                request_quit(&handle.process, &handle.control, deadline.remaining()).await;
                handle.process.kill().await;
                None
            }
            Ok(Found::Leftovers(saved)) => saved,
            Ok(Found::Lost(_)) | Err(_) => None,
        };
        remove_leftovers(id, saved.as_ref(), context).await.is_err()
    });
    Ok(join_all(removals).await.into_iter().filter(|failed| *failed).count())
}

async fn supervisor_of(id: &DaemonId, context: &Arc<Context>) -> Option<Supervisor> {
    match find(id, context) {
        Ok(Found::Running(saved, handle)) => Some(Supervisor::adopted(saved, handle, Arc::clone(context))),
        Ok(Found::Lost(saved)) => Some(Supervisor::lost(saved, Arc::clone(context)).await),
        Ok(Found::Leftovers(saved)) => {
            let error = remove_leftovers(id, saved.as_ref(), context).await.err()?;
            saved.map(|saved| Supervisor::stopping(saved, &error, Arc::clone(context)))
        }
        Err(error) => {
            warn!(daemon = %id, %error, "MPS daemon not adopted: it stays unchanged until the plugin requests it");
            None
        }
    }
}

async fn remove_leftovers(id: &DaemonId, saved: Option<&SavedState>, context: &Context) -> Result<(), DaemonError> {
    if let Some(process) = saved.and_then(|saved| saved.process) {
        kill(process);
    }
    let removed = remove_daemon(&DaemonDir::new(&context.root, id), id).await;
    match &removed {
        Ok(()) => info!(daemon = %id, "removed leftovers of an MPS daemon"),
        Err(error) => warn!(daemon = %id, %error, "failed to remove leftovers of an MPS daemon"),
    }
    removed
}
