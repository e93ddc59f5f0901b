// SPDX-License-Identifier: Apache-2.0
//! What an earlier process of this program left: daemons that live are taken over, those that are meant to be there and are
//! not are lost and come back, everything else goes.

use std::fs;
use std::io;
use std::sync::Arc;

use dra_model::DaemonId;
use tracing::{info, warn};

use super::birth::Born;
use super::death::clear;
use super::front_end::FrontEnd;
use super::kept::{Kept, Phase};
use super::place::Place;
use super::process::Process;
use super::programs::Programs;
use super::roster::Roster;
use super::supervisor::Supervisor;
use super::tools::Tools;

/// Looks through the root directory, before anybody is listened to.
pub async fn adopt(tools: &Arc<Tools>, roster: &Roster) -> io::Result<()> {
    for entry in fs::read_dir(&tools.root)? {
        let entry = entry?;
        let name = entry.file_name();
        // What is not named like a daemon is not ours, such as the socket.
        let Some(id) = name.to_str().and_then(|name| name.parse::<DaemonId>().ok()) else { continue };
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if let Some(supervisor) = supervisor_of(&id, tools).await {
            roster.take(id, supervisor);
        }
    }
    Ok(())
}

async fn supervisor_of(id: &DaemonId, tools: &Arc<Tools>) -> Option<Supervisor> {
    let place = Place::new(&tools.root, id);
    let kept = match Kept::read(&place.kept_path()) {
        Ok(kept) => kept.filter(|kept| kept.spec.id == *id),
        Err(error) => {
            warn!(daemon = %id, %error, "what is written of an MPS daemon is not understood");
            None
        }
    };
    // One that nobody was told of will be asked for again; one that should go is asked to go again, and is gone.
    let Some(kept) = kept.filter(|kept| kept.boot_id == tools.boot_id && kept.phase == Phase::Running) else {
        info!(daemon = %id, "removing what is left of an MPS daemon");
        if let Err(error) = clear(&place, id).await {
            warn!(daemon = %id, %error, "something is left of an MPS daemon");
        }
        return None;
    };
    let Some(born) = found(&kept, &place, tools) else {
        warn!(daemon = %id, clients = kept.clients.len(), "an MPS daemon was lost with the host's last process");
        return Some(Supervisor::lost(kept, Arc::clone(tools)));
    };
    info!(daemon = %id, pid = born.process.id().pid, "found an MPS daemon that lives");
    Some(Supervisor::adopted(kept, born, Arc::clone(tools)).await)
}

/// The daemon, if it still is the process that was written down.
fn found(kept: &Kept, place: &Place, tools: &Tools) -> Option<Born> {
    let process = Process::hold(kept.process?).ok()?;
    let control = match Programs::find(&tools.driver_root) {
        Ok(programs) => programs.control,
        // A driver that is being replaced keeps its daemons; they cannot be asked until it is back.
        Err(error) => {
            warn!(daemon = %kept.spec.id, %error, "an MPS daemon lives without its programs");
            tools.driver_root.join("usr/bin").join(dra_mps::launch::CONTROL_PROGRAM)
        }
    };
    let front_end = FrontEnd::new(&control, &place.pipe_dir(), &place.driver_dir());
    Some(Born { process, multi_user: kept.multi_user, front_end })
}
