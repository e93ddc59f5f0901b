// SPDX-License-Identifier: Apache-2.0
//! Follows the MPS daemons of this node and lets the claims that use one hear of it when it dies and when it is back.
//!
//! In comes the stream of the MPS host; out go a board of how each daemon is, which whoever writes `status.devices` reads,
//! and a report for each claim behind a daemon that changed. Nothing is started or stopped here.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dra_hardware::{DaemonError, DaemonState};
use dra_model::DaemonId;
use dra_prepare::Engine;
use dra_resource::status::{DaemonHealth, DaemonStatus};
use dra_runtime::chain;
use dra_runtime::tasks::TaskError;
use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::mps_client::MpsClient;
use crate::mps_host::wire::{Change, Seen};
use crate::report::{Report, ReportSender};

/// Between two attempts to reach the MPS host, which need not be there.
const RETRY: Duration = Duration::from_secs(2);

/// How each daemon is, as far as the MPS host told.
pub type Board = BTreeMap<DaemonId, DaemonStatus>;

/// Runs until it is stopped.
#[derive(Debug)]
pub struct DaemonWatch {
    /// Where the stream comes from.
    pub client: MpsClient,
    /// Knows which claims use a daemon.
    pub engine: Arc<Engine>,
    /// Tells those claims.
    pub reports: ReportSender,
    /// For whoever writes `status.devices`.
    pub board: watch::Sender<Board>,
}

impl DaemonWatch {
    /// Runs until `stop` is cancelled. A host that is not there, or went away, is asked again: what it was last heard to say
    /// stays on the board until it says something else.
    pub async fn run(self, stop: CancellationToken) -> Result<(), TaskError> {
        let mut said = String::new();
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                followed = self.follow() => followed?,
            };
            let why = ended.map_or_else(|error| error.to_string(), |()| "the MPS host ended the stream".to_owned());
            if why != said {
                debug!(why, "MPS daemons are not followed");
                said = why;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(RETRY) => {}
            }
        }
    }

    /// The outer error is this process's, the inner one the host's.
    async fn follow(&self) -> Result<Result<(), DaemonError>, TaskError> {
        let mut changes = pin!(match self.client.watch().await {
            Ok(changes) => changes,
            Err(error) => return Ok(Err(error)),
        });
        while let Some(change) = changes.next().await {
            match change {
                Ok(Change::Now(seen)) => self.seen(seen).await?,
                Ok(Change::Removed(id)) => self.board.send_modify(|board| _ = board.remove(&id)),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    async fn seen(&self, seen: Seen) -> Result<(), TaskError> {
        let Some(health) = health(&seen) else { return Ok(()) };
        let id = seen.daemon.id;
        let before = self.board.borrow().get(&id).map(|daemon| daemon.health.clone());
        if before.as_ref() == Some(&health) {
            return Ok(());
        }
        let now = DaemonStatus {
            id: id.clone(),
            health: health.clone(),
            multi_user: seen.daemon.multi_user,
            since: Time(Timestamp::now()),
        };
        self.board.send_modify(|board| _ = board.insert(id.clone(), now.clone()));
        match (&before, &health) {
            // A daemon that was started for a claim is told with the claim.
            (None, DaemonHealth::Ready) => return Ok(()),
            (_, DaemonHealth::Ready) => info!(daemon = %id, "MPS daemon takes clients again"),
            (_, DaemonHealth::UserWaits { .. } | DaemonHealth::Died { .. } | DaemonHealth::Lost) => {
                warn!(daemon = %id, ?health, "MPS daemon does not take clients");
            }
        }
        self.tell_users(now).await
    }

    async fn tell_users(&self, daemon: DaemonStatus) -> Result<(), TaskError> {
        let (engine, id) = (Arc::clone(&self.engine), daemon.id.clone());
        match spawn_blocking(move || engine.users_of(&id)).await? {
            Ok(users) => {
                for (claim, devices) in users {
                    self.reports.send(Report::Daemon { claim, devices, daemon: daemon.clone() });
                }
            }
            Err(error) => warn!(daemon = %daemon.id, error = %chain(&error), "its users cannot be told"),
        }
        Ok(())
    }
}

/// Nothing while it is being started or stopped.
fn health(seen: &Seen) -> Option<DaemonHealth> {
    match &seen.daemon.state {
        DaemonState::Changing => None,
        DaemonState::Ready => Some(DaemonHealth::Ready),
        DaemonState::UserWaits { waiting, active } => {
            Some(DaemonHealth::UserWaits { waiting: *waiting, active: *active })
        }
        DaemonState::Died { why } => Some(DaemonHealth::Died { why: why.clone() }),
        DaemonState::Lost => Some(DaemonHealth::Lost),
    }
}
