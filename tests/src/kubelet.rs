// SPDX-License-Identifier: Apache-2.0
//! A kubelet as far as DRA plugins see one: it finds registration sockets, registers plugins and calls them.
//!
//! It keeps the deadlines, the choice of services and the choice among instances of the real one (`plugin_watcher.go`,
//! `dra_plugin_manager.go`, Kubernetes 1.37), but tries again without a growing pause. It keeps no claims: a test plays
//! the pods.

mod call;
mod plugin;
mod register;
mod socket;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

pub use call::{CallError, DEADLINE, Devices, Undone, claim_of};
pub use dra_proto::dra_v1::{Claim, Device};
pub use plugin::{Plugin, Service};

use plugin::Policy;

use crate::wait::within;

/// A kubelet for one node.
#[derive(Debug)]
pub struct Kubelet {
    shared: Arc<Shared>,
    watcher: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    root_dir: PathBuf,
    policy: Mutex<Policy>,
    plugins: watch::Sender<Vec<Plugin>>,
    /// Why a registration failed the last time, by socket.
    failures: watch::Sender<BTreeMap<PathBuf, String>>,
    registrations: AtomicU64,
}

impl Kubelet {
    /// A kubelet of Kubernetes 1.34 or later.
    pub fn start(root_dir: &Path) -> Self {
        Self::with_services(root_dir, &[Service::V1, Service::V1beta1])
    }

    /// A kubelet that knows these services only.
    pub fn with_services(root_dir: &Path, services: &[Service]) -> Self {
        let shared = Arc::new(Shared {
            root_dir: root_dir.to_owned(),
            policy: Mutex::new(Policy { services: services.to_vec(), refuses: None }),
            plugins: watch::Sender::new(Vec::new()),
            failures: watch::Sender::new(BTreeMap::new()),
            registrations: AtomicU64::new(0),
        });
        let watcher = tokio::spawn(watch_registry(Arc::clone(&shared)));
        Self { shared, watcher }
    }

    /// The registered plugins, the newest last.
    pub fn plugins(&self) -> Vec<Plugin> {
        self.shared.plugins.borrow().clone()
    }

    /// Waits until the registered plugins are as wanted.
    pub async fn until_plugins<T>(&self, what: &str, wanted: impl Fn(&[Plugin]) -> Option<T>) -> T {
        let mut plugins = self.shared.plugins.subscribe();
        let reached = async {
            loop {
                if let Some(reached) = wanted(&plugins.borrow_and_update()) {
                    return reached;
                }
                plugins.changed().await.expect("the kubelet outlives its users");
            }
        };
        within(what, reached).await
    }

    /// How many registrations there were so far.
    pub fn registrations(&self) -> u64 {
        self.shared.registrations.load(Ordering::Relaxed)
    }

    /// Waits for a plugin and returns the newest.
    pub async fn until_registered(&self) -> Plugin {
        self.until_plugins("a plugin registers", |plugins| plugins.last().cloned()).await
    }

    /// Waits until a registration has failed and returns why.
    pub async fn until_failure(&self) -> String {
        let mut failures = self.shared.failures.subscribe();
        let failed = failures.wait_for(|failures| !failures.is_empty());
        let failures = within("a registration fails", failed).await.expect("the kubelet outlives its users");
        failures.values().next().cloned().unwrap_or_default()
    }

    /// Forgets every plugin and finds them anew, as after a restart.
    pub fn restart(&self) {
        self.shared.plugins.send_modify(Vec::clear);
    }

    /// Refuses all plugins with a reason, or accepts them again.
    pub fn refuse(&self, reason: Option<&str>) {
        self.shared.policy.lock().unwrap_or_else(PoisonError::into_inner).refuses = reason.map(str::to_owned);
        self.restart();
    }

    /// The plugin the kubelet calls: the newest whose endpoint takes connections, else the newest.
    fn choose(&self) -> Option<Plugin> {
        let plugins = self.plugins();
        let usable = |plugin: &&Plugin| std::os::unix::net::UnixStream::connect(&plugin.endpoint).is_ok();
        plugins.iter().rev().find(usable).or_else(|| plugins.last()).cloned()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// Compares the directory with what is registered, for ever.
async fn watch_registry(shared: Arc<Shared>) {
    let mut ticks = interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let present = socket::sockets(&shared.root_dir.join("plugins_registry"));
        shared.plugins.send_if_modified(|plugins| {
            let before = plugins.len();
            plugins.retain(|plugin| present.contains(&plugin.socket));
            plugins.len() != before
        });
        shared.failures.send_if_modified(|failures| {
            failures.retain(|path, _| present.iter().any(|socket| socket.path == *path));
            false
        });
        for socket in present {
            if shared.plugins.borrow().iter().any(|plugin| plugin.socket == socket) {
                continue;
            }
            let policy = shared.policy.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match register::register(&shared.root_dir, &socket, &policy).await {
                Ok(plugin) => {
                    let serial = shared.registrations.fetch_add(1, Ordering::Relaxed) + 1;
                    shared.plugins.send_modify(|plugins| plugins.push(Plugin { serial, ..plugin }));
                }
                Err(failure) => shared.failures.send_modify(|failures| {
                    failures.insert(socket.path, failure);
                }),
            }
        }
    }
}
