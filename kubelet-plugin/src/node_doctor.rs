// SPDX-License-Identifier: Apache-2.0
//! `gpu-kubelet-plugin doctor`: what keeps this node from giving GPUs to pods, as JSON. It changes nothing and takes no lock.

mod dirs;
mod hardware;
mod problem;
mod services;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use dra_hardware::Host;
use dra_model::DriverState;
use dra_model::node_check::{Check, NodeChecks};

use crate::host_args::{HostArgs, StateArgs};
use crate::json_report::{self, EncodeError};

/// Prints what keeps this node from giving GPUs to pods as JSON, for `kubectl gpu doctor`.
#[derive(Debug, Parser)]
#[command(name = "gpu-kubelet-plugin doctor", bin_name = "gpu-kubelet-plugin doctor", version)]
pub struct DoctorCommand {
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    state: StateArgs,
    /// Runtime directory, with the socket of the MPS host
    #[arg(long, env = "RUN_DIR", default_value = "/run/gpu-dra")]
    run_dir: PathBuf,
    /// Directory of the hook program; without it the CDI specs have no hook
    #[arg(long, env = "CDI_HOOK_DIR", value_name = "DIR")]
    cdi_hook_dir: Option<PathBuf>,
    /// Address of /readyz of the running plugin
    #[arg(long, env = "HTTP_ADDRESS", default_value = "0.0.0.0:8080")]
    http_address: SocketAddr,
}

impl DoctorCommand {
    /// The text for standard output.
    pub fn run(self) -> (String, Result<(), EncodeError>) {
        json_report::line(&self.checks())
    }

    fn checks(&self) -> NodeChecks {
        let host = self.host.host();
        let inventory = host.refresh();
        let mut checks = hardware::checks(&host, &self.host, &inventory);
        if matches!(inventory.driver, DriverState::Loaded { .. }) {
            checks.extend(self.services(&host));
        }
        checks.extend(dirs::checks(&self.state, &self.host.driver_name, self.cdi_hook_dir.as_deref()));
        checks.push(services::readiness(self.http_address));
        let nvidia_driver = match &inventory.driver {
            DriverState::Loaded { version, .. } => Some(version.to_string()),
            DriverState::Missing { .. } => None,
        };
        NodeChecks { version: env!("CARGO_PKG_VERSION").to_owned(), clock_ms: now(), nvidia_driver, checks }
    }

    fn services(&self, host: &Host) -> Option<Check> {
        services::mps(host, &self.run_dir.join("mps").join("host.sock"))
    }
}

/// A clock before 1970 is one that nothing agrees with.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
