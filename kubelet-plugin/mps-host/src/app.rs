// SPDX-License-Identifier: Apache-2.0
//! Wires the MPS host together, in start order, and terminates its daemons when it stops.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dra_hardware::{BootIdError, procfs};
use dra_model::Advice;
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
use crate::gpu_faults::GpuFaults;
use crate::metrics::Metrics;
use crate::request::Deadline;
use crate::root::{Root, RootError};
use crate::service::MpsService;

/// Time for clients to finish when this process stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// The plugins of the node connect; each claim that needs a daemon is a call.
const SOCKET_BOUNDS: Bounds = Bounds { connections: 16, calls: 200, drain: DRAIN_TIMEOUT };

/// Time for another MPS host to release the root: a little more than the termination grace period of the chart.
const ROOT_LOCK_TIMEOUT: Duration = Duration::from_secs(45);

/// A failed start or an incomplete end of the MPS host.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("failed to prepare the directory of the MPS daemons")]
    Root(#[source] RootError),
    #[error("failed to list the MPS daemons in {}", path.display())]
    List {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to identify this boot")]
    BootId(#[source] BootIdError),
    #[error("failed to open the socket of the MPS host")]
    Socket(#[source] BindError),
    #[error("stopped by a signal before all MPS daemons were removed from {}", root.display())]
    Stopped { root: PathBuf },
    #[error("failed to stop the MPS host cleanly")]
    Tasks(#[source] TasksError),
    #[error("failed to remove {count} MPS daemons from {}", root.display())]
    NotRemoved { count: usize, root: PathBuf },
}

impl Advice for AppError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Root(source) => source.advice(),
            Self::Stopped { .. } => Some("run --remove again".into()),
            Self::NotRemoved { .. } => Some("see the errors logged before, then run --remove again".into()),
            Self::Socket(_) => Some("check --socket, or --root where it is unset".into()),
            Self::List { .. } | Self::BootId(_) | Self::Tasks(_) => None,
        }
    }
}

/// Runs until `stop` is cancelled, and then terminates the daemons and leaves their directories, see [`crate::supervisor`].
/// With `--remove` it deletes all daemons instead.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), AppError> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let boot_id = procfs::boot_id(Path::new("/proc")).map_err(AppError::BootId)?;
    let socket_path = args.socket_path();
    let Args {
        root: root_dir,
        socket: _,
        remove,
        after_removal: _,
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
        gpu_faults: GpuFaults::default(),
        metrics,
    };
    let context = Arc::new(context);
    if remove {
        let stopped = || Err(AppError::Stopped { root: context.root.clone() });
        return stop.run_until_cancelled(remove_daemons(&context, &socket_path)).await.unwrap_or_else(stopped);
    }
    let Some(locked) = stop.run_until_cancelled(Root::lock(&context.root, ROOT_LOCK_TIMEOUT)).await else {
        return Ok(());
    };
    let root = locked.map_err(AppError::Root)?;
    let daemons = Arc::new(DaemonRegistry::new(Arc::clone(&context)));
    // Connections that come now are served once the existing daemons are known.
    let listener = bind_for_root(&socket_path).map_err(AppError::Socket)?;
    adopt(&root, &context, &daemons).await.map_err(|source| AppError::List { path: context.root.clone(), source })?;
    let (_ready, readiness) = watch::channel(Ok(()));
    let mut tasks = Tasks::new(stop.clone());
    let serve_http = http::serve(http_address, registry, readiness, stop.clone());
    tasks.start("http", async move { serve_http.await.map_err(|error| dra_model::explain(&error).into()) });
    let service = MpsServer::new(MpsService::new(Arc::clone(&daemons), context.states.subscribe(), stop.clone()));
    info!(socket = %socket_path.display(), "MPS host started");
    tasks.start("mps", serve(listener, socket_path, service, daemons, stop));
    tasks.run().await.map_err(AppError::Tasks)
}

async fn remove_daemons(context: &Context, socket_path: &Path) -> Result<(), AppError> {
    let root = Root::lock(&context.root, ROOT_LOCK_TIMEOUT).await.map_err(AppError::Root)?;
    let failed = |source| AppError::List { path: context.root.clone(), source };
    let count = remove_all(&root, context, Deadline::of(DRAIN_TIMEOUT)).await.map_err(failed)?;
    remove_if_there(socket_path);
    root.remove_lock();
    if count > 0 { Err(AppError::NotRemoved { count, root: context.root.clone() }) } else { Ok(()) }
}

/// Removes the socket and refuses calls before the daemons are terminated, because a daemon that starts later would be
/// terminated at once.
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
    let terminating = async {
        stop.cancelled().await;
        remove_if_there(&socket_path);
        daemons.shut_down(DRAIN_TIMEOUT).await;
    };
    let (served, ()) = tokio::join!(serving, terminating);
    Ok(served?)
}

/// Binds a socket that only root can open; the mode is set by the umask, so that it holds from the first moment.
fn bind_for_root(path: &Path) -> Result<UnixListener, BindError> {
    let before = umask(Mode::RWXG | Mode::RWXO);
    let listener = bind(path);
    umask(before);
    listener
}
