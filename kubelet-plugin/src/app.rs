// SPDX-License-Identifier: Apache-2.0
//! Wires the process together, in start order, and takes it apart in stop order.
//!
//! Start: state and locks, hardware, DRA socket, registration socket. Stop: first the registration socket goes, so that the
//! kubelet sends nothing new, then calls that are in flight end, then the DRA socket goes, then what goes on beside a call
//! that was answered already has a moment to end.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dra_cdi::Architecture;
use dra_files::HostFiles;
use dra_hardware::{Host, Machine};
use dra_mps_api::{MpsClient, SocketPathError};
use dra_prepare::{Engine, Settings};
use dra_proto::dra_v1::dra_plugin_server::DraPluginServer as DraV1;
use dra_proto::dra_v1beta1::dra_plugin_server::DraPluginServer as DraV1Beta1;
use dra_proto::registration_v1::registration_server::RegistrationServer;
use dra_resource::{DriverName, DriverNameError};
use dra_runtime::tasks::{TaskError, TasksError};
use dra_runtime::{Tasks, http};
use dra_serve::{Bounds, bind, remove_if_there, serve};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::net::UnixListener;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::{info, warn};

use crate::args::Config;
use crate::claim_api::ClaimApi;
use crate::claims::Claims;
use crate::daemons::{ABSENCE, Board, DaemonWatch};
use crate::dra_service::DraService;
use crate::fetch::ClaimSource;
use crate::metrics::Metrics;
use crate::news::News;
use crate::node_service::{NodeService, NodeState};
use crate::observe::Observer;
use crate::promises::Promises;
use crate::readiness::Readiness;
use crate::reconcile::Reconciler;
use crate::registration::{ActiveInstance, Registration, RegistrationService};
use crate::report::ReportSender;
use crate::reporter::{BACKOFF, Reporter, reporter};
use crate::sockets::{SocketError, claim_instance};

/// How long a call waits for its claim and GPUs: well below the 45 s a kubelet waits, so that it hears who holds them.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);

/// How long a ready claim that the API server does not know any more is left to the kubelet: the 30 s that a pod has to
/// terminate unless it says otherwise, and the time of the calls that follow.
const MISSING_GRACE: Duration = Duration::from_secs(35);

/// The kubelet connects, and calls for each pod. When this process stops its calls may go on until their deadline, and a little
/// longer.
const DRA_BOUNDS: Bounds = Bounds { connections: 64, calls: 200, drain: Duration::from_secs(43) };

/// The kubelet connects for a moment. Answers come from memory.
const REGISTRATION_BOUNDS: Bounds = Bounds { connections: 16, calls: 16, drain: Duration::from_secs(5) };

/// The controller connects. It has fewer rights than this process, which must not suffer from whatever it does.
const NODE_BOUNDS: Bounds = Bounds { connections: 4, calls: 4, drain: Duration::from_secs(5) };

/// How long the end waits for what goes on beside calls. With the longest call it is less than the 60 s that the chart
/// gives the pod to end; what is cut then the next instance finds in its records.
const LAST_WORK: Duration = Duration::from_secs(15);

/// How often the registration socket is looked after.
const SOCKET_CHECK: Duration = Duration::from_secs(1);

/// Why the process did not start or did not end cleanly.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The driver name is no DNS subdomain.
    #[error("--driver-name is not usable")]
    DriverName(#[source] DriverNameError),
    /// No place for sockets or state.
    #[error("the plugin cannot use the kubelet's directories")]
    Sockets(#[source] SocketError),
    /// The records or the CDI directory cannot be opened.
    #[error("the plugin cannot use its state")]
    State(#[source] dra_prepare::OpenError),
    /// The path is no path of a socket.
    #[error("the plugin cannot ask for MPS daemons")]
    MpsSocket(#[source] SocketPathError),
    /// A task failed.
    #[error("the plugin did not stop cleanly")]
    Tasks(#[source] TasksError),
}

/// The values the tasks share.
struct Parts {
    config: Config,
    host: Arc<Host>,
    engine: Arc<Engine>,
    daemons: MpsClient,
    board: watch::Sender<Board>,
    source: ClaimSource,
    claims: Claims,
    reports: ReportSender,
    metrics: Metrics,
    active: ActiveInstance,
    registration: watch::Sender<Registration>,
    state: watch::Sender<NodeState>,
    ready: watch::Sender<Result<(), String>>,
    stop: CancellationToken,
}

/// Runs the plugin until `stop` is cancelled.
pub async fn run(
    config: Config,
    machine: Arc<dyn Machine>,
    client: Client,
    stop: CancellationToken,
) -> Result<(), AppError> {
    let Some(claimed) = stop.run_until_cancelled(claim_instance(&config.paths)).await else { return Ok(()) };
    let instance = claimed.map_err(AppError::Sockets)?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let (parts, reporter) = parts(config, machine, client, metrics, stop.clone())?;
    let mut tasks = Tasks::new(stop.clone());
    start_services(&mut tasks, &parts)?;
    start_background(&mut tasks, &parts, registry, reporter);
    info!(node = %parts.config.node_name, driver = parts.config.driver_name, "plugin started");
    let ended = tasks.run().await.map_err(AppError::Tasks);
    end_work(parts.reports.calls()).await;
    parts.active.give_back();
    for path in [&parts.config.paths.registration_path, &parts.config.paths.dra_path, &parts.config.node_socket] {
        remove_if_there(path);
    }
    let engine = Arc::clone(&parts.engine);
    if instance.is_last() && spawn_blocking(move || engine.retire()).await.unwrap_or(false) {
        instance.remove_empty_dirs();
    }
    ended
}

async fn end_work(mut in_flight: watch::Receiver<usize>) {
    if timeout(LAST_WORK, in_flight.wait_for(|calls| *calls == 0)).await.is_err() {
        warn!("stopping while nvidia-smi still runs for a claim; the next instance goes on from its record");
    }
}

fn parts(
    config: Config,
    machine: Arc<dyn Machine>,
    client: Client,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(Parts, Reporter), AppError> {
    let driver: DriverName = config.driver_name.parse().map_err(AppError::DriverName)?;
    let host = Arc::new(Host::new(machine, config.roots.clone()));
    let daemons = mps_client(&config)?;
    let engine = engine(&config, Arc::clone(&host), daemons.clone())?;
    let (board, daemons_seen) = watch::channel(Board::default());
    let (state, node_state) = watch::channel(NodeState::default());
    let node = config.node_name.clone();
    let api = ClaimApi::new(client);
    let (reports, reporter) =
        reporter(api.clone(), driver.clone(), node, node_state, daemons_seen, metrics.clone(), BACKOFF);
    let source = ClaimSource::new(api, driver, config.node_name.clone(), stop.clone());
    let claims = Claims::new(Arc::clone(&engine), source.clone(), reports.clone(), metrics.clone());
    let active = ActiveInstance::new(&config.paths, &config.pod_uid);
    let (registration, _) = watch::channel(Registration::default());
    let (ready, _) = watch::channel(Err("not registered with the kubelet yet".to_owned()));
    let parts = Parts {
        config,
        host,
        engine,
        daemons,
        board,
        source,
        claims,
        reports,
        metrics,
        active,
        registration,
        state,
        ready,
        stop,
    };
    Ok((parts, reporter))
}

/// The engine alone, with nobody who calls it.
pub(crate) fn open(config: &Config, machine: Arc<dyn Machine>) -> Result<Arc<Engine>, AppError> {
    engine(config, Arc::new(Host::new(machine, config.roots.clone())), mps_client(config)?)
}

fn mps_client(config: &Config) -> Result<MpsClient, AppError> {
    MpsClient::new(config.mps_root().join("host.sock")).map_err(AppError::MpsSocket)
}

fn engine(config: &Config, host: Arc<Host>, daemons: MpsClient) -> Result<Arc<Engine>, AppError> {
    let engine = Engine::open(host, Arc::new(daemons), Arc::new(HostFiles), settings(config));
    Ok(Arc::new(engine.map_err(AppError::State)?))
}

fn settings(config: &Config) -> Settings {
    Settings {
        node: config.node_name.clone(),
        driver_name: config.driver_name.clone(),
        state_dir: config.paths.plugin_dir.clone(),
        run_dir: config.run_dir.clone(),
        cdi_dir: config.cdi_root.clone(),
        mps_root: config.mps_root(),
        lock_patience: LOCK_PATIENCE,
        missing_grace: MISSING_GRACE,
        architecture: Architecture::own(),
    }
}

fn start_background(tasks: &mut Tasks, parts: &Parts, registry: Registry, reporter: Reporter) {
    let stop = || parts.stop.clone();
    let (address, readiness) = (parts.config.http_address, parts.ready.subscribe());
    let serve = http::serve(address, registry, readiness, stop());
    tasks.start("http", async move { serve.await.map_err(|error| dra_model::explain(&error).into()) });
    tasks.start("report", reporter.run(stop()));
    let returned = Arc::new(Notify::new());
    let observer = Observer {
        returned: Arc::clone(&returned),
        host: Arc::clone(&parts.host),
        dra_path: parts.config.paths.dra_path.clone(),
        registration: parts.registration.subscribe(),
        active: parts.active.clone(),
        state: parts.state.clone(),
        metrics: parts.metrics.clone(),
    };
    tasks.start("observe", observer.run(stop()));
    let in_order = Arc::new(Notify::new());
    let (completed, last_round) = watch::channel(Instant::now());
    let reconciler = Reconciler {
        engine: Arc::clone(&parts.engine),
        source: parts.source.clone(),
        reports: parts.reports.clone(),
        metrics: parts.metrics.clone(),
        in_order: Arc::clone(&in_order),
        returned,
        completed,
        drifted: Vec::new(),
    };
    tasks.start("reconcile", reconciler.run(stop()));
    let daemons = DaemonWatch {
        client: parts.daemons.clone(),
        engine: Arc::clone(&parts.engine),
        reports: parts.reports.clone(),
        board: parts.board.clone(),
        metrics: parts.metrics.clone(),
        absence: ABSENCE,
        news: News::default(),
    };
    tasks.start("daemons", daemons.run(stop()));
    let promises = Promises {
        engine: Arc::clone(&parts.engine),
        calls: parts.reports.calls(),
        in_order,
        metrics: parts.metrics.clone(),
    };
    tasks.start("promises", promises.run(stop()));
    let readiness = Readiness { state: parts.state.subscribe(), last_round, ready: parts.ready.clone() };
    tasks.start("readiness", readiness.run(stop()));
}

fn start_services(tasks: &mut Tasks, parts: &Parts) -> Result<(), AppError> {
    let drained = CancellationToken::new();
    let dra_listener = bind(&parts.config.paths.dra_path).map_err(SocketError::Bind).map_err(AppError::Sockets)?;
    let service = DraService::new(parts.claims.clone());
    let both = Routes::new(DraV1::new(service.clone())).add_service(DraV1Beta1::new(service));
    // Closed when the registration socket is gone, so that the kubelet calls no more.
    let serve_dra = serve(dra_listener, both, DRA_BOUNDS, drained.clone());
    tasks.start("dra", async move { Ok(serve_dra.await?) });
    let node_listener = bind_node_socket(&parts.config.node_socket).map_err(AppError::Sockets)?;
    let node = NodeService::new(parts.state.subscribe(), parts.stop.clone()).server();
    let serve_node = serve(node_listener, Routes::new(node), NODE_BOUNDS, parts.stop.clone());
    tasks.start("node", async move { Ok(serve_node.await?) });
    let config = parts.config.clone();
    let registration = parts.registration.clone();
    let make = {
        let (config, active) = (parts.config.clone(), parts.active.clone());
        move || RegistrationService::new(&config.driver_name, &config.paths, active.clone(), registration.clone())
    };
    let stop = parts.stop.clone();
    tasks.start("registration", async move {
        let ended = keep_registered(&config.paths.registration_path, make, stop).await;
        drained.cancel();
        ended
    });
    Ok(())
}

/// The controller runs as another user of the pod, in the group that the volume gives its files.
fn bind_node_socket(path: &Path) -> Result<UnixListener, SocketError> {
    let directory = |source| SocketError::Directory { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(directory)?;
    }
    let listener = bind(path).map_err(SocketError::Bind)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(directory)?;
    Ok(listener)
}

/// Serves the registration socket, waits for its directory, and makes it again when someone removes it.
async fn keep_registered(
    path: &Path,
    make: impl Fn() -> RegistrationService,
    stop: CancellationToken,
) -> Result<(), TaskError> {
    loop {
        if !path.parent().is_some_and(Path::is_dir) {
            warn!(path = %path.display(), "waiting for the kubelet's registry directory");
        }
        if !wait_until(&stop, || path.parent().is_some_and(Path::is_dir)).await {
            return Ok(());
        }
        let close = CancellationToken::new();
        let serving =
            serve(bind(path)?, Routes::new(RegistrationServer::new(make())), REGISTRATION_BOUNDS, close.clone());
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
        warn!(path = %path.display(), "the registration socket was removed, making it again");
    }
}

/// Looks once a second; `false` when `stop` came first.
async fn wait_until(stop: &CancellationToken, holds: impl Fn() -> bool) -> bool {
    let mut checks = interval(SOCKET_CHECK);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return false,
            _ = checks.tick() => if holds() { return true },
        }
    }
}
