// SPDX-License-Identifier: Apache-2.0
//! What an earlier process of this program left: daemons that live are taken over, those that are meant to be there and are
//! not are lost and come back, everything else goes.

use std::io;
use std::sync::Arc;

use dra_hardware::DaemonError;
use dra_model::DaemonId;
use futures::future::join_all;
use tracing::{info, warn};

use crate::birth::Born;
use crate::death::{ask_to_quit, clear};
use crate::front_end::FrontEnd;
use crate::kept::{Kept, Phase};
use crate::order::Deadline;
use crate::place::{Place, PlaceError};
use crate::process::{Process, kill};
use crate::programs::Programs;
use crate::root::Root;
use crate::roster::Roster;
use crate::supervisor::Supervisor;
use crate::tools::Tools;

/// What there is of a daemon that nobody supervises.
#[derive(Debug)]
pub enum Found {
    /// Nothing that is meant to be there. What was written down of it, if it is understood, is of use to those who end it.
    Leftovers(Option<Kept>),
    /// It lives.
    Living(Kept, Born),
    /// It is meant to be there.
    Lost(Kept),
}

/// Looks at one daemon. What cannot be read is an error: it may live.
pub fn find(id: &DaemonId, tools: &Tools) -> Result<Found, DaemonError> {
    let place = Place::new(&tools.root, id);
    let path = place.kept_path();
    let kept = match Kept::read(&path) {
        Ok(kept) => kept.filter(|kept| kept.spec.id == *id),
        // That is about its content, and never gets better.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            warn!(daemon = %id, %error, "what is written of an MPS daemon is not understood");
            None
        }
        Err(source) => return Err(PlaceError::Read { path, source }.into_daemon_error(id)),
    };
    // One that nobody was told of will be asked for again; one that should go is asked to go again.
    let meant = |kept: &Kept| kept.boot_id == tools.boot_id && kept.phase == Phase::Running;
    Ok(match kept {
        Some(kept) if meant(&kept) => match living(&kept, &place, tools) {
            Ok(Some(born)) => Found::Living(kept, born),
            Ok(None) => Found::Lost(kept),
            Err(source) => return Err(PlaceError::Read { path, source }.into_daemon_error(id)),
        },
        leftover => Found::Leftovers(leftover.filter(|kept| kept.boot_id == tools.boot_id)),
    })
}

/// Looks through the root directory, before anybody is listened to.
pub async fn adopt(root: &Root, tools: &Arc<Tools>, roster: &Roster) -> io::Result<()> {
    for id in root.daemons()? {
        if let Some(supervisor) = supervisor_of(&id, tools).await {
            roster.take(id, supervisor);
        }
    }
    Ok(())
}

/// Ends all daemons there are side by side and takes their places away; tells how many of them stay.
pub async fn remove_all(root: &Root, tools: &Tools, by: Deadline) -> io::Result<usize> {
    let ids = root.daemons()?;
    let ends = ids.iter().map(|id| async move {
        let kept = match find(id, tools) {
            Ok(Found::Living(_, born)) => {
                ask_to_quit(&born.process, &born.front_end, by.left()).await;
                born.process.end().await;
                None
            }
            Ok(Found::Leftovers(kept)) => kept,
            Ok(Found::Lost(_)) | Err(_) => None,
        };
        end_leftovers(id, kept.as_ref(), tools).await.is_err()
    });
    Ok(join_all(ends).await.into_iter().filter(|left| *left).count())
}

async fn supervisor_of(id: &DaemonId, tools: &Arc<Tools>) -> Option<Supervisor> {
    match find(id, tools) {
        Ok(Found::Living(kept, born)) => Some(Supervisor::adopted(kept, born, Arc::clone(tools))),
        Ok(Found::Lost(kept)) => Some(Supervisor::lost(kept, Arc::clone(tools)).await),
        Ok(Found::Leftovers(kept)) => {
            let error = end_leftovers(id, kept.as_ref(), tools).await.err()?;
            kept.map(|kept| Supervisor::leaving(kept, &error, Arc::clone(tools)))
        }
        Err(error) => {
            warn!(daemon = %id, %error, "an MPS daemon is left as it is until somebody asks for it");
            None
        }
    }
}

async fn end_leftovers(id: &DaemonId, kept: Option<&Kept>, tools: &Tools) -> Result<(), DaemonError> {
    if let Some(process) = kept.and_then(|kept| kept.process) {
        kill(process);
    }
    let cleared = clear(&Place::new(&tools.root, id), id).await;
    match &cleared {
        Ok(()) => info!(daemon = %id, "removed what was left of an MPS daemon"),
        Err(error) => warn!(daemon = %id, %error, "something is left of an MPS daemon"),
    }
    cleared
}

/// The daemon, if it still is the process that was written down.
fn living(kept: &Kept, place: &Place, tools: &Tools) -> io::Result<Option<Born>> {
    let Some(id) = kept.process else { return Ok(None) };
    let Some(process) = Process::hold(id)? else { return Ok(None) };
    let control = match Programs::find(&tools.driver_root) {
        Ok(programs) => programs.control,
        // A driver that is being replaced keeps its daemons; they cannot be asked until it is back.
        Err(error) => {
            warn!(daemon = %kept.spec.id, %error, "an MPS daemon lives without its programs");
            tools.driver_root.join("usr/bin").join(dra_mps::launch::CONTROL_PROGRAM)
        }
    };
    let front_end = FrontEnd::new(&control, &place.pipe_dir(), &place.driver_dir());
    Ok(Some(Born { process, multi_user: kept.multi_user, front_end }))
}
