// SPDX-License-Identifier: Apache-2.0
//! The socket by which the kubelet finds this plugin.

use std::path::Path;
use std::time::Duration;

use dra_proto::registration_v1::registration_server::RegistrationServer;
use dra_runtime::tasks::TaskError;
use dra_serve::{Bounds, bind, remove_if_there};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::warn;

use crate::registration::RegistrationService;

/// Connections of the kubelet are short. Answers are in memory.
const BOUNDS: Bounds = Bounds { connections: 16, calls: 16, drain: Duration::from_secs(5) };

/// How often the directory and the file of the socket are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Waits for the registry directory, serves the socket, and creates it again after its removal.
pub(crate) async fn serve(
    path: &Path,
    make: impl Fn() -> RegistrationService,
    stop: CancellationToken,
) -> Result<(), TaskError> {
    loop {
        if !path.parent().is_some_and(Path::is_dir) {
            warn!(path = %path.display(), "waiting for the registry directory of the kubelet");
        }
        if !wait_until(&stop, || path.parent().is_some_and(Path::is_dir)).await {
            return Ok(());
        }
        let close = CancellationToken::new();
        let serving =
            dra_serve::serve(bind(path)?, Routes::new(RegistrationServer::new(make())), BOUNDS, close.clone());
        let closing = async {
            wait_until(&stop, || !path.exists()).await;
            remove_if_there(path);
            close.cancel();
        };
        let (served, ()) = tokio::join!(serving, closing);
        served?;
        if stop.is_cancelled() {
            return Ok(());
        }
        warn!(path = %path.display(), "the registration socket was removed, creating it again");
    }
}

/// Returns `false` if `stop` is cancelled first.
async fn wait_until(stop: &CancellationToken, holds: impl Fn() -> bool) -> bool {
    let mut checks = interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return false,
            _ = checks.tick() => if holds() { return true },
        }
    }
}
