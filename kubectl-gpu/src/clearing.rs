// SPDX-License-Identifier: Apache-2.0
//! `clear`: prints the faults of a GPU, asks, and has the plugin of its node forget them.

use std::borrow::Cow;
use std::time::Duration;

use dra_model::Advice;
use kube::Client;
use tokio::time::Instant;

use crate::access::{AccessError, connect};
use crate::args::{Connection, node};
use crate::clear::{announcement, faults};
use crate::driver_pods::{self, DriverPodError, driver_pods};
use crate::exec::{self, ExecError};
use crate::output::{self, OutputError};
use crate::target::{self, Target, TargetError, Wanted};
use dra_explain::reading;
use dra_explain::request::ReadError;

/// Longer than the plugin takes to poll, at most a minute, and the controller to publish.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(90);
const SLICES_INTERVAL: Duration = Duration::from_secs(1);

/// The faults of a GPU are not cleared.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    #[error("failed to connect to the cluster")]
    Access(#[source] AccessError),
    #[error("failed to read the cluster")]
    Read(#[source] ReadError),
    #[error("failed to find the GPU")]
    Target(#[source] TargetError),
    #[error("GPU {gpu} on node {node} has no fault that can be cleared")]
    NoFault { gpu: String, node: String },
    #[error("the GPU is no device of the driver {driver} any more")]
    Gone { driver: String },
    #[error("GPU {gpu} on node {node} has no UUID in its ResourceSlices")]
    NoUuid { gpu: String, node: String },
    #[error("failed to ask the driver of the node")]
    Pod(#[source] DriverPodError),
    #[error("no confirmation was given, so nothing is changed")]
    NotConfirmed,
    #[error("failed to have the faults cleared")]
    Exec(#[source] ExecError),
    #[error("GPU {gpu} on node {node} still has {taints} {} s after the plugin was asked to clear it", CLEAR_TIMEOUT.as_secs())]
    Stays { gpu: String, node: String, taints: String },
    #[error("failed to print the answer")]
    Output(#[source] OutputError),
}

impl Advice for ClearError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Access(source) => source.advice(),
            Self::Read(source) => source.advice(),
            Self::Target(source) => source.advice(),
            Self::Pod(source) => source.advice(),
            Self::Exec(source) => source.advice(),
            Self::NoFault { .. } => Some(
                "`kubectl gpu status -o wide` lists its taints; `kubectl gpu undrain` ends those of `drain`".into(),
            ),
            Self::NotConfirmed => Some("run it again with --yes".into()),
            Self::Stays { .. } => Some(
                "the GPU reports the fault again: reset it or reboot the node; the log of the plugin has the reason"
                    .into(),
            ),
            Self::Gone { .. } | Self::NoUuid { .. } | Self::Output(_) => None,
        }
    }
}

/// Clears the faults of a GPU and waits until its slices have none.
pub(crate) async fn clear(connection: &Connection, args: &node::Clear) -> Result<(), ClearError> {
    let driver = connection.driver_name.as_str();
    let access = connect(connection).await.map_err(ClearError::Access)?;
    let wanted = Wanted::Gpu { name: &args.device, node: args.node.as_deref() };
    let gpu = read(&access.client, driver, wanted).await?;
    let (name, node) = (gpu.gpu.clone(), gpu.node.clone());
    if faults(&gpu, driver).next().is_none() {
        return Err(ClearError::NoFault { gpu: name, node });
    }
    let Some(uuid) = gpu.uuid.clone() else { return Err(ClearError::NoUuid { gpu: name, node }) };
    let pods = driver_pods(&access, driver, &args.driver.driver_namespace).await.map_err(DriverPodError::Read);
    let pods = pods.map_err(ClearError::Pod)?;
    let pod = driver_pods::of_node(&pods, driver, &node).map_err(ClearError::Pod)?;
    print(&announcement(&gpu, driver))?;
    if !args.yes && !output::confirmed().map_err(ClearError::Output)? {
        return Err(ClearError::NotConfirmed);
    }
    let program = ["gpu-kubelet-plugin", "--clear-health", &uuid];
    exec::run(&access.client, pod, &program).await.map_err(ClearError::Exec)?;
    wait(&access.client, driver, wanted).await?;
    print(&format!("Cleared: the devices of GPU {name} on node {node} have no taint of these faults any more.\n"))
}

async fn read(client: &Client, driver: &str, wanted: Wanted<'_>) -> Result<Target, ClearError> {
    let node = match wanted {
        Wanted::Gpu { node, .. } => node,
        Wanted::Node(node) => Some(node),
    };
    let pools = reading::published(client, node).await.map_err(ClearError::Read)?;
    let found = target::find(&pools, driver, wanted).map_err(ClearError::Target)?;
    found.into_iter().next().ok_or_else(|| ClearError::Gone { driver: driver.to_owned() })
}

async fn wait(client: &Client, driver: &str, wanted: Wanted<'_>) -> Result<(), ClearError> {
    let deadline = Instant::now() + CLEAR_TIMEOUT;
    let mut interval = tokio::time::interval(SLICES_INTERVAL);
    loop {
        interval.tick().await;
        let gpu = read(client, driver, wanted).await?;
        let left: Vec<String> = faults(&gpu, driver).map(ToString::to_string).collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(ClearError::Stays { gpu: gpu.gpu, node: gpu.node, taints: left.join(", ") });
        }
    }
}

fn print(text: &str) -> Result<(), ClearError> {
    output::print(text).map_err(ClearError::Output)
}
