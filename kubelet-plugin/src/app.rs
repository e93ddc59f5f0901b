// SPDX-License-Identifier: Apache-2.0
//! Connects the parts of the process, in start order, and stops them in stop order.
//!
//! Start: state and locks, hardware, DRA socket, registration socket. Stop: the registration socket closes first, so that the
//! kubelet sends no new calls; calls in flight complete; the DRA socket closes; work that continues after its call was answered
//! has a limited time to complete.

use std::borrow::Cow;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dra_cdi::Architecture;
use dra_files::HostFiles;
use dra_hardware::{Host, Machine};
use dra_model::Advice;
use dra_mps_api::{MpsClient, SocketPathError};
use dra_prepare::{Engine, Settings};
use dra_proto::dra_v1::dra_plugin_server::DraPluginServer as DraV1;
use dra_proto::dra_v1beta1::dra_plugin_server::DraPluginServer as DraV1Beta1;
use dra_proto::health_v1::dra_resource_health_server::DraResourceHealthServer as HealthV1;
use dra_proto::health_v1alpha1::dra_resource_health_server::DraResourceHealthServer as HealthV1Alpha1;
use dra_resource::{DriverName, DriverNameError};
use dra_runtime::tasks::TasksError;
use dra_runtime::{Tasks, http};
use dra_serve::{Bounds, bind, remove_if_there, serve};
use futures::FutureExt as _;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::net::UnixListener;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::{info, warn};

use crate::args::Config;
use crate::claim_api::ClaimApi;
use crate::claims::Claims;
use crate::daemon_states::DaemonStates;
use crate::daemon_watch::{DaemonWatch, MAX_HOST_ABSENCE};
use crate::dra_service::DraService;
use crate::failed_daemons::FailedDaemonsTask;
use crate::fetch::ClaimSource;
use crate::health::clear::ClearRequests;
use crate::health::monitor::HealthMonitor;
use crate::health::permit::EvictionPermit;
use crate::health::service::HealthService;
use crate::health::store::HealthStore;
use crate::inventory_file::InventoryFile;
use crate::metrics::Metrics;
use crate::monitoring::Monitoring;
use crate::node_service::{NodeService, NodeState};
use crate::observe::Observer;
use crate::prepared_shares::PreparedSharesTask;
use crate::readiness::{self, Readiness};
use crate::reconcile::Reconciler;
use crate::registration::{ActiveInstance, Registration, RegistrationService};
use crate::registration_socket;
use crate::report_channel::ReportSender;
use crate::report_schedule::ReportSchedule;
use crate::reporter::{FIRST_BACKOFF, Reporter, reporter};
use crate::sockets::{SocketError, claim_instance};
use crate::static_mig::Divider;

/// How long a call waits for the locks of its claim and GPUs: well below the 45 s that the kubelet waits, so that its Event names
/// the holder of a lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a ready claim that the API server does not know any more is left to the kubelet: the default termination grace
/// period of a pod, 30 s, and the time of the calls that follow.
const MISSING_GRACE_PERIOD: Duration = Duration::from_secs(35);

/// The kubelet has one connection, and one call for each pod. When this process stops, calls in flight may take until their
/// deadline and a little longer.
const DRA_BOUNDS: Bounds = Bounds { connections: 64, calls: 200, drain: Duration::from_secs(43) };

/// The controller has fewer rights than this process, so its number of calls is limited.
const NODE_BOUNDS: Bounds = Bounds { connections: 4, calls: 4, drain: Duration::from_secs(5) };

/// How long the process waits at its end for work that continues after its call was answered. Together with the longest call
/// this is less than the termination grace period of the pod, 60 s. The next instance continues unfinished work from its records.
const WORK_DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Why the process did not start or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("--driver-name is not a DNS subdomain")]
    DriverName(#[source] DriverNameError),
    #[error("failed to use the directories of the kubelet")]
    Sockets(#[source] SocketError),
    #[error("failed to open the state of the plugin")]
    State(#[source] dra_prepare::OpenError),
    #[error("failed to set up the client of the MPS host")]
    MpsSocket(#[source] SocketPathError),
    #[error("failed to run the tasks of the plugin")]
    Tasks(#[source] TasksError),
}

impl Advice for AppError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Sockets(source) => source.advice(),
            Self::State(source) => source.advice(),
            Self::MpsSocket(_) => Some("check --run-dir".into()),
            Self::DriverName(_) | Self::Tasks(_) => None,
        }
    }
}

/// The values that the tasks share.
struct Parts {
    config: Config,
    host: Arc<Host>,
    engine: Arc<Engine>,
    daemons: MpsClient,
    daemon_states: watch::Sender<DaemonStates>,
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
    parts.active.deactivate();
    for path in [&parts.config.paths.registration_path, &parts.config.paths.dra_path, &parts.config.node_socket] {
        remove_if_there(path);
    }
    let engine = Arc::clone(&parts.engine);
    if instance.is_last() && spawn_blocking(move || engine.retire()).await.unwrap_or(false) {
        InventoryFile::new(&parts.config.paths.plugin_dir, &parts.config.pod_uid).remove();
        instance.remove_empty_dirs();
    }
    ended
}

async fn end_work(mut in_flight: watch::Receiver<usize>) {
    if timeout(WORK_DRAIN_TIMEOUT, in_flight.wait_for(|calls| *calls == 0)).await.is_err() {
        warn!("stopping while nvidia-smi still runs for a claim; the next instance continues from its record");
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
    if let Some(earlier) = InventoryFile::new(&config.paths.plugin_dir, &config.pod_uid).load() {
        host.remember(earlier);
    }
    let daemons = mps_client(&config)?;
    let engine = engine(&config, Arc::clone(&host), daemons.clone())?;
    let (daemon_states, observed) = watch::channel(DaemonStates::default());
    let (state, node_state) = watch::channel(NodeState::default());
    let node = config.node_name.clone();
    let api = ClaimApi::new(client);
    let (reports, reporter) =
        reporter(api.clone(), driver.clone(), node, node_state, observed, metrics.clone(), FIRST_BACKOFF);
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
        daemon_states,
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

/// The engine without the services that call it.
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
        lock_timeout: LOCK_TIMEOUT,
        missing_grace_period: MISSING_GRACE_PERIOD,
        architecture: Architecture::own(),
        host_dev_dir: config.host_dev_dir.clone(),
        hook: config.hook.clone(),
    }
}

/// What reads the GPUs on its own.
fn start_hardware(tasks: &mut Tasks, parts: &Parts, readable: Arc<Notify>) {
    let stop = || parts.stop.clone();
    let divider = parts.config.static_mig.as_ref().and_then(|file| {
        Divider::of_file(file, Arc::clone(&parts.host), Arc::clone(&parts.engine), parts.reports.clone())
    });
    if let Some(divider) = divider.clone() {
        tasks.start("static-mig", divider.retry(stop()));
    }
    let observer = Observer {
        file: InventoryFile::new(&parts.config.paths.plugin_dir, &parts.config.pod_uid),
        readable,
        host: Arc::clone(&parts.host),
        dra_path: parts.config.paths.dra_path.clone(),
        registration: parts.registration.subscribe(),
        active: parts.active.clone(),
        state: parts.state.clone(),
        metrics: parts.metrics.clone(),
        divider,
    };
    tasks.start("observe", observer.run(stop()));
    let monitor = HealthMonitor {
        host: Arc::clone(&parts.host),
        state: parts.state.clone(),
        store: HealthStore::new(&parts.config.paths.plugin_dir, &parts.config.pod_uid),
        requests: ClearRequests::new(&parts.config.paths.plugin_dir),
        policy: parts.config.health.clone(),
        eviction_percent: parts.config.eviction_percent,
        permit: eviction_permit(parts),
        poll_interval: parts.config.health_poll_interval,
        reports: parts.reports.clone(),
        metrics: parts.metrics.health.clone(),
        active: parts.active.clone(),
        engine: Arc::clone(&parts.engine),
    };
    tasks.start("health", monitor.run(stop()));
}

/// Absent where any number of nodes may evict pods.
fn eviction_permit(parts: &Parts) -> Option<EvictionPermit> {
    let Config { driver_name, namespace, node_name, eviction_nodes, .. } = &parts.config;
    let count = eviction_nodes.as_ref()?.get();
    let (client, node) = (parts.source.client(), node_name.to_string());
    Some(EvictionPermit::new(client, namespace.clone(), driver_name, node, count))
}

fn start_background(tasks: &mut Tasks, parts: &Parts, registry: Registry, reporter: Reporter) {
    let stop = || parts.stop.clone();
    let (address, readiness) = (parts.config.http_address, parts.ready.subscribe());
    let serve = http::serve(address, content(parts, registry), readiness, stop());
    tasks.start("http", async move { serve.await.map_err(|error| dra_model::explain(&error).into()) });
    tasks.start("report", reporter.run(stop()));
    let readable = Arc::new(Notify::new());
    start_hardware(tasks, parts, Arc::clone(&readable));
    let round_done = Arc::new(Notify::new());
    let (completed, last_completed) = watch::channel(Instant::now());
    let reconciler = Reconciler {
        engine: Arc::clone(&parts.engine),
        source: parts.source.clone(),
        reports: parts.reports.clone(),
        metrics: parts.metrics.clone(),
        reconciled: Arc::clone(&round_done),
        readable,
        completed,
        reported: Vec::new(),
        hook_error: None,
    };
    tasks.start("reconcile", reconciler.run(stop()));
    let daemons = DaemonWatch {
        client: parts.daemons.clone(),
        engine: Arc::clone(&parts.engine),
        reports: parts.reports.clone(),
        states: parts.daemon_states.clone(),
        metrics: parts.metrics.clone(),
        max_host_absence: MAX_HOST_ABSENCE,
        schedule: ReportSchedule::default(),
    };
    tasks.start("daemons", daemons.run(stop()));
    let failed_daemons = FailedDaemonsTask {
        client: parts.daemons.clone(),
        engine: Arc::clone(&parts.engine),
        node: parts.state.subscribe(),
        daemons: parts.daemon_states.subscribe(),
        active: parts.active.clone(),
    };
    tasks.start("failed-daemons", failed_daemons.run(stop()));
    let shares = PreparedSharesTask {
        engine: Arc::clone(&parts.engine),
        calls: parts.reports.calls(),
        reconciled: round_done,
        metrics: parts.metrics.clone(),
    };
    tasks.start("prepared-shares", shares.run(stop()));
    let readiness =
        Readiness { state: parts.state.subscribe(), reconciled: last_completed, ready: parts.ready.clone() };
    tasks.start("readiness", readiness.run(stop()));
}

/// The metrics of this process, with those that are measured when they are read, and the details of its readiness.
fn content(parts: &Parts, mut registry: Registry) -> http::Content {
    let (host, engine) = (Arc::clone(&parts.host), Arc::clone(&parts.engine));
    let monitoring = Monitoring::new(host, engine, parts.source.consumers().clone(), parts.config.claim_metrics);
    monitoring.register(&mut registry);
    let measure = move || {
        let monitoring = monitoring.clone();
        async move { monitoring.measure().await }.boxed()
    };
    let state = parts.state.subscribe();
    let details = move || readiness::details(&state.borrow());
    http::Content { registry, measure: Some(Box::new(measure)), details: Some(Box::new(details)) }
}

fn start_services(tasks: &mut Tasks, parts: &Parts) -> Result<(), AppError> {
    let drained = CancellationToken::new();
    let dra_listener = bind(&parts.config.paths.dra_path).map_err(SocketError::Bind).map_err(AppError::Sockets)?;
    let service = DraService::new(parts.claims.clone());
    let health = || HealthService::new(parts.config.node_name.clone(), parts.state.subscribe(), parts.stop.clone());
    let both = Routes::new(DraV1::new(service.clone()))
        .add_service(DraV1Beta1::new(service))
        .add_service(HealthV1::new(health()))
        .add_service(HealthV1Alpha1::new(health()));
    // Closed after the registration socket, so that the kubelet sends no new calls.
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
        let ended = registration_socket::serve(&config.paths.registration_path, make, stop).await;
        drained.cancel();
        ended
    });
    Ok(())
}

/// The controller runs as another user of the pod, with the group of the volume.
fn bind_node_socket(path: &Path) -> Result<UnixListener, SocketError> {
    let directory = |source| SocketError::Directory { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(directory)?;
    }
    let listener = bind(path).map_err(SocketError::Bind)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(directory)?;
    Ok(listener)
}
