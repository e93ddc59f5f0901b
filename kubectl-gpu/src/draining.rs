// SPDX-License-Identifier: Apache-2.0
//! `drain` and `undrain`: read, print what will be done, ask, change, wait.

mod changing;

use std::borrow::Cow;
use std::time::Duration;

use dra_allocation::Pools;
use dra_allocation::node::Effect;
use dra_model::Advice;
use tokio::time::Instant;

use crate::access::{AccessError, connect};
use crate::args::Connection;
use crate::args::service;
use crate::drain::{self, Drain, Outcome, Seen, announcement, drain_text, undrain_text};
use crate::holders::{EmptyEffect, Holder};
use crate::output::{self, OutputError};
use crate::service_reading::{self, Rules};
use crate::target::{self, TargetError, Wanted};
use dra_explain::access::Access;
use dra_explain::reading;
use dra_explain::request::ReadError;

/// Time between two looks at the claims that hold a GPU.
const CLAIMS_INTERVAL: Duration = Duration::from_secs(2);

/// GPUs are not taken out of service, or not returned.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("failed to connect to the cluster")]
    Access(#[source] AccessError),
    #[error("failed to read the cluster")]
    Read(#[source] ReadError),
    #[error("failed to find the GPU")]
    Target(#[source] TargetError),
    #[error("the API server does not serve DeviceTaintRules")]
    NoRules,
    #[error("failed to change the DeviceTaintRules, of which {done} of {all} are changed")]
    Change { done: usize, all: usize, source: ReadError },
    #[error("no confirmation was given, so nothing is changed")]
    NotConfirmed,
    #[error("failed to print the answer")]
    Output(#[source] OutputError),
}

impl Advice for ServiceError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Access(source) => source.advice(),
            Self::Read(source) => source.advice(),
            Self::Change { source, .. } => {
                let cause = source.advice().map(|advice| format!("{advice}, then ")).unwrap_or_default();
                Some(format!("{cause}run the command again: it continues with the rest").into())
            }
            Self::Target(source) => source.advice(),
            Self::NoRules => Some(
                "use Kubernetes 1.37, or 1.36 with the feature gate DRADeviceTaintRules and the API resource.k8s.io/v1beta2".into(),
            ),
            Self::NotConfirmed => Some("run it again with --yes".into()),
            Self::Output(_) => None,
        }
    }
}

/// What both commands read.
struct Cluster {
    access: Access,
    pools: Pools,
    rules: Rules,
}

async fn read(connection: &Connection, node: Option<&str>) -> Result<Cluster, ServiceError> {
    let access = connect(connection).await.map_err(ServiceError::Access)?;
    let (pools, rules) =
        futures::join!(reading::published(&access.client, node), service_reading::rules(&access.client));
    let (pools, rules) = (pools.map_err(ServiceError::Read)?, rules.map_err(ServiceError::Read)?);
    Ok(Cluster { access, pools, rules: rules.ok_or(ServiceError::NoRules)? })
}

/// Takes GPUs out of service.
pub(crate) async fn drain(connection: &Connection, args: &service::Drain) -> Result<Outcome, ServiceError> {
    let (driver, wanted) = (connection.driver_name.as_str(), args.gpus.wanted());
    let Cluster { access, pools, rules } = read(connection, args.gpus.node.as_deref()).await?;
    let gpus = target::find(&pools, driver, wanted).map_err(ServiceError::Target)?;
    let (holders, version) =
        futures::join!(service_reading::holders(&access.client, None, driver), access.client.apiserver_version(),);
    let holders = holders.map_err(ServiceError::Read)?;
    // Every user may read the version; where a proxy hides it, the older behaviour is assumed.
    let empty_effect = EmptyEffect::in_version(&version.map(|info| info.minor).unwrap_or_default());
    let seen = Seen { driver, holders: &holders, rules: &rules.found, empty_effect };
    let effect = if args.no_evict { Effect::NoSchedule } else { Effect::NoExecute };
    let plan = drain::drain(gpus, wanted, effect, seen);
    print(&drain_text(&plan, output::colours()))?;
    if effect == Effect::NoExecute && !plan.changes.is_empty() {
        let counts = changing::dry_run(&access.client, rules.version, &plan).await;
        print(&counts.map_err(|source| ServiceError::Change { done: 0, all: plan.changes.len(), source })?)?;
    }
    print(&format!("\n{}", announcement(&plan)))?;
    if args.dry_run {
        return Ok(Outcome::Done);
    }
    if !plan.changes.is_empty() {
        if !args.yes && !output::confirmed().map_err(ServiceError::Output)? {
            return Err(ServiceError::NotConfirmed);
        }
        let changed = changing::apply(&access.client, rules.version, &plan, args.reason.as_deref()).await;
        changed.map_err(|failed| interrupted(failed, plan.changes.len()))?;
    }
    print(&format!("{}\n", done(wanted)))?;
    match args.wait {
        Some(timeout) => wait(&access, &plan, driver, timeout).await,
        None => Ok(Outcome::Done),
    }
}

fn done(wanted: Wanted<'_>) -> String {
    let gpus = match wanted {
        Wanted::Gpu { name, node: None } => name.to_owned(),
        Wanted::Gpu { name, node: Some(node) } => format!("{name} --node {node}"),
        Wanted::Node(node) => format!("--node {node} --all"),
    };
    format!("Out of service. `kubectl gpu undrain {gpus}` ends this.")
}

/// Waits until no claim holds a device of the GPUs.
async fn wait(access: &Access, plan: &Drain, driver: &str, timeout: Duration) -> Result<Outcome, ServiceError> {
    let deadline = Instant::now() + timeout;
    let mut left: Vec<Holder> = plan.users.iter().map(|user| user.holder.clone()).collect();
    let mut interval = tokio::time::interval(CLAIMS_INTERVAL);
    loop {
        interval.tick().await;
        left = still_holding(access, plan, driver, left).await?;
        if left.is_empty() {
            print("No claim holds it.\n")?;
            return Ok(Outcome::Done);
        }
        if Instant::now() >= deadline {
            let claims: Vec<String> = left.iter().map(Holder::label).collect();
            print(&format!("Claims that still hold it: {}\n", claims.join(", ")))?;
            return Ok(Outcome::Waits);
        }
    }
}

async fn still_holding(
    access: &Access,
    plan: &Drain,
    driver: &str,
    before: Vec<Holder>,
) -> Result<Vec<Holder>, ServiceError> {
    let mut left = Vec::new();
    for holder in before {
        let devices = service_reading::devices_of(&access.client, &holder, driver).await.map_err(ServiceError::Read)?;
        let is_drained = |found: &Holder| plan.gpus.iter().any(|gpu| gpu.has(found));
        if devices.iter().any(|found| found.device == holder.device && is_drained(found)) {
            left.push(holder);
        }
    }
    Ok(left)
}

/// Returns GPUs to service.
pub(crate) async fn undrain(connection: &Connection, args: &service::Gpus) -> Result<Outcome, ServiceError> {
    let (driver, wanted) = (connection.driver_name.as_str(), args.wanted());
    let Cluster { access, pools, rules } = read(connection, args.node.as_deref()).await?;
    let found = target::find(&pools, driver, wanted);
    let (gpus, unknown) = match found {
        Ok(gpus) => (gpus, None),
        Err(error @ (TargetError::Unknown { .. } | TargetError::NoGpus { .. })) => (Vec::new(), Some(error)),
        Err(error @ TargetError::Ambiguous { .. }) => return Err(ServiceError::Target(error)),
    };
    let plan = drain::undrain(&gpus, wanted, driver, &rules.found);
    if let Some(error) = unknown.filter(|_| plan.removed.is_empty()) {
        return Err(ServiceError::Target(error));
    }
    let removed = changing::remove(&access.client, rules.version, &plan.removed).await;
    removed.map_err(|failed| interrupted(failed, plan.removed.len()))?;
    print(&undrain_text(&plan, output::colours()))?;
    Ok(if plan.left.is_empty() { Outcome::Done } else { Outcome::Waits })
}

fn interrupted(failed: changing::Interrupted, all: usize) -> ServiceError {
    let changing::Interrupted { done, source } = failed;
    ServiceError::Change { done, all, source }
}

fn print(text: &str) -> Result<(), ServiceError> {
    output::print(text).map_err(ServiceError::Output)
}
