// SPDX-License-Identifier: Apache-2.0
//! The permission of the cluster to evict the pods of this node: a slot of [`dra_health::slots`], written as a Lease.

use std::time::Duration;

use dra_health::slots::{Choice, FREE_AFTER, SlotLease, Slots};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, timeout};

/// A taint waits this long for the answer at most. It is `NoSchedule` after that, until the next attempt.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two attempts after one that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// Attempts after another node took the same slot at the same time.
const ATTEMPTS: u32 = 4;
/// More than there are slots; a namespace may have Leases of others.
const MAX_LISTED: u32 = 500;

/// Why the pods of a GPU are not evicted although its fault says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeldBack {
    #[error("too many GPUs of the node failed: look at the node before its pods move")]
    Node,
    #[error(
        "evictions on other nodes use up the budget of the cluster, {nodes} nodes: look for a fault that they have in common"
    )]
    Cluster { nodes: u32 },
    #[error("the Leases that count the evicting nodes cannot be read or written, will retry: {error}")]
    Unknown { error: String },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AcquireError {
    /// With the message of the API server.
    #[error("the API server refuses: {message}")]
    Refused { message: String },
    #[error("failed to reach the API server")]
    Unreachable(#[source] Box<kube::Error>),
    #[error("other nodes took every free Lease at the same time")]
    Contended,
    #[error("namespace {namespace} has no Lease {prefix}0, which the chart creates")]
    NoLease { namespace: String, prefix: String },
}

impl From<kube::Error> for AcquireError {
    fn from(error: kube::Error) -> Self {
        if let kube::Error::Api(status) = error {
            return Self::Refused { message: status.message };
        }
        Self::Unreachable(Box::new(error))
    }
}

/// The permission, and what is known of it.
#[derive(Debug)]
pub struct EvictionPermit {
    leases: Api<Lease>,
    namespace: String,
    node: String,
    /// The names of the Leases before their number.
    prefix: String,
    count: u32,
    slots: Slots,
    refused: Option<HeldBack>,
    /// After an attempt that failed.
    next_attempt: Instant,
    started: Instant,
}

impl EvictionPermit {
    /// At most `count` nodes evict at a time. So many Leases are in the namespace of the driver.
    pub fn new(client: Client, namespace: String, driver: &str, node: String, count: u32) -> Self {
        let (slots, prefix) = (Slots::new(node.clone()), format!("{driver}-eviction-"));
        let leases = Api::namespaced(client, &namespace);
        let started = Instant::now();
        Self { leases, namespace, node, prefix, count, slots, refused: None, next_attempt: started, started }
    }

    /// Whether the node may evict. Asks the API server at the first call, once a minute while it may, and twice a minute while it
    /// may not.
    pub async fn request(&mut self) -> Result<(), HeldBack> {
        let is_early = Instant::now() < self.next_attempt;
        let is_held = self.slots.is_held(self.now());
        if is_held && (is_early || !self.slots.is_due(self.now())) {
            return Ok(());
        }
        if let Some(reason) = self.refused.as_ref().filter(|_| is_early) {
            return Err(reason.clone());
        }
        let reason = match timeout(ANSWER_TIMEOUT, self.acquire()).await {
            Ok(Ok(true)) => {
                self.refused = None;
                return Ok(());
            }
            Ok(Ok(false)) => HeldBack::Cluster { nodes: self.count },
            Ok(Err(error)) => HeldBack::Unknown { error: dra_model::chain(&error).to_string() },
            Err(_elapsed) => {
                HeldBack::Unknown { error: format!("the API server did not answer within {ANSWER_TIMEOUT:?}") }
            }
        };
        self.next_attempt = Instant::now() + RETRY_INTERVAL;
        // A failed renewal ends no permission before its time.
        if self.slots.is_held(self.now()) {
            return Ok(());
        }
        self.refused = Some(reason.clone());
        Err(reason)
    }

    /// The node evicts no more.
    pub fn end(&mut self) {
        self.slots.end();
        self.refused = None;
        self.next_attempt = self.started;
    }

    /// Returns whether there is a slot.
    async fn acquire(&mut self) -> Result<bool, AcquireError> {
        for _ in 0..ATTEMPTS {
            let all = self.leases.list(&ListParams::default().limit(MAX_LISTED)).await?.items;
            let known: Vec<SlotLease> = all.iter().filter_map(|lease| self.slot(lease)).collect();
            if known.is_empty() {
                let (namespace, prefix) = (self.namespace.clone(), self.prefix.clone());
                return Err(AcquireError::NoLease { namespace, prefix });
            }
            let sent = self.now();
            let Choice::Write(slot) = self.slots.choose(&known, sent) else { return Ok(false) };
            let Some(lease) = all.into_iter().find(|lease| self.number(lease) == Some(slot)) else { return Ok(false) };
            let name = lease.metadata.name.clone().unwrap_or_default();
            let written = self.leases.replace(&name, &PostParams::default(), &self.renewed(lease)).await;
            match written {
                Ok(_) => {
                    self.slots.renew(sent);
                    return Ok(true);
                }
                // Another node was faster.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(AcquireError::Contended)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn number(&self, lease: &Lease) -> Option<u32> {
        let number = lease.metadata.name.as_ref()?.strip_prefix(&self.prefix)?.parse().ok()?;
        (number < self.count).then_some(number)
    }

    fn slot(&self, lease: &Lease) -> Option<SlotLease> {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        Some(SlotLease { slot: self.number(lease)?, holder, version })
    }

    /// The Lease as it was read, so that the API server refuses it if another node wrote it since.
    fn renewed(&self, lease: Lease) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = lease.spec.unwrap_or_default();
        let is_own = before.holder_identity.as_ref() == Some(&self.node);
        let spec = LeaseSpec {
            holder_identity: Some(self.node.clone()),
            lease_duration_seconds: i32::try_from(FREE_AFTER.as_secs()).ok(),
            acquire_time: before.acquire_time.filter(|_| is_own).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        Lease { spec: Some(spec), ..lease }
    }
}
