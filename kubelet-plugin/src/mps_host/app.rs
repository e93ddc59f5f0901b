// SPDX-License-Identifier: Apache-2.0
//! Wires the MPS host together, in start order, and ends everything when it is told to stop.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dra_hardware::{BootIdError, procfs};
use dra_proto::mps_v1::mps_server::MpsServer;
use dra_runtime::tasks::{TaskError, TasksError};
use dra_runtime::{Tasks, http};
use prometheus_client::registry::Registry;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tracing::info;

use super::adopt::adopt;
use super::args::Args;
use super::board::Board;
use super::metrics::Metrics;
use super::place::{PlaceError, make_dir};
use super::roster::Roster;
use super::service::MpsService;
use super::tools::Tools;
use crate::sockets::{SocketError, bind, remove_if_there};

/// How long clients may go on when this process is told to stop.
const LAST_PATIENCE: Duration = Duration::from_secs(20);

/// Why the MPS host did not start or did not end cleanly.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// No directory for daemons.
    #[error("the MPS host cannot use its --root")]
    Root(#[source] PlaceError),
    /// The directory cannot be read.
    #[error("unable to look through {}", path.display())]
    Look {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No boot id.
    #[error("the MPS host cannot tell daemons of this boot from others")]
    BootId(#[source] BootIdError),
    /// No socket.
    #[error("the MPS host cannot be asked")]
    Socket(#[source] SocketError),
    /// A task failed.
    #[error("the MPS host did not stop cleanly")]
    Tasks(#[source] TasksError),
}

/// Runs until a signal comes or `stop` is cancelled; then no daemon is left.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), AppError> {
    let socket_path = args.socket_path();
    let Args { root, socket: _, driver_root, shm_bytes, http_address, log_format: _ } = args;
    make_dir(&root).map_err(AppError::Root)?;
    let boot_id = procfs::boot_id(Path::new("/proc")).map_err(AppError::BootId)?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let board = Board::new(metrics.clone());
    let shown = board.subscribe();
    let tools = Arc::new(Tools { root: root.clone(), driver_root, shm_bytes, boot_id, board, metrics });
    let roster = Arc::new(Roster::new(Arc::clone(&tools)));
    adopt(&tools, &roster).await.map_err(|source| AppError::Look { path: root, source })?;
    let listener = bind_for_root(&socket_path).map_err(AppError::Socket)?;
    let (_ready, readiness) = watch::channel(Ok(()));
    let mut tasks = Tasks::new(stop.clone());
    let serve_http = http::serve(http_address, registry, readiness, stop.clone());
    tasks.start("http", async move { Ok(serve_http.await?) });
    let service = MpsServer::new(MpsService::new(Arc::clone(&roster), shown));
    tasks.start("mps", serve(listener, service, roster, stop));
    info!(socket = %socket_path.display(), "MPS host started");
    let ended = tasks.run().await.map_err(AppError::Tasks);
    remove_if_there(&socket_path);
    ended
}

/// Streams never end by themselves, so they are cut; then the daemons are ended.
async fn serve(
    listener: UnixListener,
    service: MpsServer<MpsService>,
    roster: Arc<Roster>,
    stop: CancellationToken,
) -> Result<(), TaskError> {
    let serve = Server::builder().add_service(service).serve_with_incoming(UnixListenerStream::new(listener));
    let served = tokio::select! {
        served = serve => served,
        () = stop.cancelled() => Ok(()),
    };
    roster.stop_all(LAST_PATIENCE).await;
    Ok(served?)
}

/// Only root may start programs here.
fn bind_for_root(path: &Path) -> Result<UnixListener, SocketError> {
    let listener = bind(path)?;
    let private = fs::set_permissions(path, fs::Permissions::from_mode(0o600));
    private.map_err(|source| SocketError::Directory { path: path.to_owned(), source })?;
    Ok(listener)
}
