// SPDX-License-Identifier: Apache-2.0
//! Wires the MPS host together, in start order, and ends its daemons when it is told to stop.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dra_hardware::{BootIdError, procfs};
use dra_proto::mps_v1::mps_server::MpsServer;
use dra_runtime::tasks::{TaskError, TasksError};
use dra_runtime::{Tasks, http};
use dra_serve::{BindError, Bounds, bind, remove_if_there};
use prometheus_client::registry::Registry;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::info;

use crate::adopt::{adopt, remove_all};
use crate::args::Args;
use crate::context::Context;
use crate::daemon_registry::DaemonRegistry;
use crate::daemon_states::DaemonStates;
use crate::metrics::Metrics;
use crate::request::Deadline;
use crate::root::{Root, RootError};
use crate::service::MpsService;

/// How long clients may go on when this process is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Plugins of the node connect, and each claim that needs a daemon calls.
const SOCKET_BOUNDS: Bounds = Bounds { connections: 16, calls: 200, drain: DRAIN_TIMEOUT };

/// How long another process may take to leave the root: what the chart gives it to end, and a little more.
const ROOT_LOCK_TIMEOUT: Duration = Duration::from_secs(45);

/// Why the MPS host did not start or did not end cleanly.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// No directory for daemons.
    #[error("the MPS host cannot keep daemons")]
    Root(#[source] RootError),
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
    Socket(#[source] BindError),
    /// A signal came first.
    #[error("stopped before all MPS daemons were removed from {}; run --remove again", root.display())]
    Stopped {
        /// Where daemons may be left.
        root: PathBuf,
    },
    /// A task failed.
    #[error("the MPS host did not stop cleanly")]
    Tasks(#[source] TasksError),
    /// Some daemons could not be removed.
    #[error("{count} MPS daemons could not be removed from {}, see the log above", root.display())]
    Left {
        /// How many.
        count: usize,
        /// Where.
        root: PathBuf,
    },
}

/// Runs until `stop` is cancelled. No process of a daemon is left then, but its dir: see [`crate::supervisor`]. Or removes
/// all of them.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), AppError> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let boot_id = procfs::boot_id(Path::new("/proc")).map_err(AppError::BootId)?;
    let socket_path = args.socket_path();
    let Args {
        root: root_dir,
        socket: _,
        remove,
        then: _,
        driver_root,
        shm_bytes,
        clients_timeout,
        http_address,
        log_format: _,
    } = args;
    let clients_timeout = Duration::from_secs(clients_timeout);
    let states = DaemonStates::new(metrics.clone());
    let context = Context {
        root: root_dir,
        driver_root,
        shm_bytes,
        clients_timeout,
        boot_id,
        stop: stop.clone(),
        states,
        metrics,
    };
    let context = Arc::new(context);
    if remove {
        let stopped = || Err(AppError::Stopped { root: context.root.clone() });
        return stop.run_until_cancelled(remove_daemons(&context, &socket_path)).await.unwrap_or_else(stopped);
    }
    let Some(held) = stop.run_until_cancelled(Root::hold(&context.root, ROOT_LOCK_TIMEOUT)).await else {
        return Ok(());
    };
    let root = held.map_err(AppError::Root)?;
    let daemons = Arc::new(DaemonRegistry::new(Arc::clone(&context)));
    // Who connects from now on is heard when it is known what there is.
    let listener = bind_for_root(&socket_path).map_err(AppError::Socket)?;
    adopt(&root, &context, &daemons).await.map_err(|source| AppError::Look { path: context.root.clone(), source })?;
    let (_ready, readiness) = watch::channel(Ok(()));
    let mut tasks = Tasks::new(stop.clone());
    let serve_http = http::serve(http_address, registry, readiness, stop.clone());
    tasks.start("http", async move { Ok(serve_http.await?) });
    let service = MpsServer::new(MpsService::new(Arc::clone(&daemons), context.states.subscribe(), stop.clone()));
    info!(socket = %socket_path.display(), "MPS host started");
    tasks.start("mps", serve(listener, socket_path, service, daemons, stop));
    tasks.run().await.map_err(AppError::Tasks)
}

async fn remove_daemons(context: &Context, socket_path: &Path) -> Result<(), AppError> {
    let root = Root::hold(&context.root, ROOT_LOCK_TIMEOUT).await.map_err(AppError::Root)?;
    let look = |source| AppError::Look { path: context.root.clone(), source };
    let count = remove_all(&root, context, Deadline::of(DRAIN_TIMEOUT)).await.map_err(look)?;
    remove_if_there(socket_path);
    root.leave();
    if count > 0 { Err(AppError::Left { count, root: context.root.clone() }) } else { Ok(()) }
}

/// When this process stops nobody finds the socket any more and calls are refused before the daemons are ended: one that was
/// started later would end at once.
async fn serve(
    listener: UnixListener,
    socket_path: PathBuf,
    service: MpsServer<MpsService>,
    daemons: Arc<DaemonRegistry>,
    stop: CancellationToken,
) -> Result<(), TaskError> {
    let serving = async {
        let served = dra_serve::serve(listener, Routes::new(service), SOCKET_BOUNDS, stop.clone()).await;
        stop.cancel();
        served
    };
    let handing_over = async {
        stop.cancelled().await;
        remove_if_there(&socket_path);
        daemons.shut_down(DRAIN_TIMEOUT).await;
    };
    let (served, ()) = tokio::join!(serving, handing_over);
    Ok(served?)
}

/// Only root may start programs here, from the first moment on.
fn bind_for_root(path: &Path) -> Result<UnixListener, BindError> {
    let before = umask(Mode::RWXG | Mode::RWXO);
    let listener = bind(path);
    umask(before);
    listener
}
