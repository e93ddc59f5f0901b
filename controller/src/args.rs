// SPDX-License-Identifier: Apache-2.0
//! Flags and their environment variables, converted once to a valid [`Config`].

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use dra_model::{Advice, IdError, NodeName};
use dra_resource::{DriverName, DriverNameError, Offer};
use dra_runtime::ApiServer;
use dra_runtime::logging::LogFormat;

use crate::check::DriverPods;
use crate::node_cleanup::NodeCleanup;

pub mod offer;

use offer::{OfferArgs, OfferError};

/// Publishes the GPUs of a node as ResourceSlices and updates them when the hardware changes.
#[derive(Debug, Parser)]
#[command(name = "gpu-controller", version)]
#[expect(clippy::struct_excessive_bools, reason = "these are the flags of a command line")]
pub struct Args {
    /// Name of the node.
    #[arg(long, env = "NODE_NAME", required_unless_present_any = ["all_nodes", "check_published", "stay"])]
    pub node_name: Option<String>,
    /// Name of the DRA driver.
    #[arg(long, env = "DRIVER_NAME", default_value = "gpu.nvidia.com")]
    pub driver_name: String,
    /// Socket on which the kubelet plugin serves the inventory of the node.
    #[arg(long, env = "NODE_SOCKET", default_value = "/run/gpu-node/node.sock")]
    pub node_socket: PathBuf,
    /// Read the inventory from this JSON file instead, and again after each change.
    #[arg(long, env = "INVENTORY_FILE")]
    pub inventory_file: Option<PathBuf>,
    #[command(flatten)]
    pub offer: OfferArgs,
    /// Publish once and exit.
    #[arg(long)]
    pub once: bool,
    /// Print the slices as YAML instead of publishing them, as for an API server that stores all fields; no request is sent.
    #[arg(long, requires = "once")]
    pub dry_run: bool,
    /// Delete the slices of this driver and node, and exit. For the uninstallation of the driver.
    #[arg(long, conflicts_with = "once")]
    pub withdraw: bool,
    /// With --withdraw: delete the slices of all nodes.
    #[arg(long, requires = "withdraw")]
    pub all_nodes: bool,
    /// With --withdraw: then wait until all pods of this DaemonSet, which cleans up the nodes, are ready, and delete it.
    #[arg(long, value_name = "NAME", requires_all = ["withdraw", "namespace", "selector"])]
    pub await_daemonset: Option<String>,
    /// Wait until every node with a ready driver pod has a complete pool of slices, and exit. For `helm test`.
    #[arg(long, requires_all = ["namespace", "selector"], conflicts_with_all = ["once", "withdraw"])]
    pub check_published: bool,
    /// Run idle until SIGTERM, so that a pod whose work is done is reported Ready.
    #[arg(long, conflicts_with_all = ["once", "withdraw", "check_published"])]
    pub stay: bool,
    /// Namespace of the driver's pods or of the DaemonSet.
    #[arg(long)]
    pub namespace: Option<String>,
    /// Label selector of the driver's pods or of the pods of the DaemonSet.
    #[arg(long)]
    pub selector: Option<String>,
    /// Timeout in seconds of --check-published, and of each wait of --await-daemonset (pods ready, pods gone).
    #[arg(long, default_value_t = 60)]
    pub timeout_seconds: u64,
    /// Listen address of /healthz, /readyz and /metrics.
    #[arg(long, env = "HTTP_ADDRESS", default_value = "0.0.0.0:8081")]
    pub http_address: SocketAddr,
    /// Format of the log.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    #[command(flatten)]
    pub api_server: ApiServer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Config {
    /// Publish until a signal, and serve the HTTP endpoints.
    Run {
        identity: PoolIdentity,
        source: Source,
        offer: Offer,
        http_address: SocketAddr,
    },
    Once {
        identity: PoolIdentity,
        source: Source,
        offer: Offer,
    },
    /// Print the slices of a first round.
    Print {
        identity: PoolIdentity,
        source: Source,
        offer: Offer,
    },
    /// Delete the slices.
    Withdraw {
        driver: DriverName,
        /// All nodes if absent.
        node: Option<NodeName>,
        work: Option<NodeCleanup>,
    },
    /// Run idle until a signal.
    Stay,
    /// Wait until the pools of all nodes are complete.
    Check {
        driver: DriverName,
        pods: DriverPods,
    },
}

/// The driver and the node of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolIdentity {
    pub driver: DriverName,
    pub node: NodeName,
}

/// The source of the inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The kubelet plugin, by its socket.
    Socket(PathBuf),
    File(PathBuf),
}

/// Invalid flags.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    #[error("--node-name is invalid")]
    Node(#[source] IdError),
    #[error("--driver-name is invalid")]
    Driver(#[source] DriverNameError),
    #[error("invalid flags for publishing")]
    Offer(#[source] OfferError),
    #[error("--node-name is missing")]
    NoNode,
}

impl Advice for ArgsError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Offer(source) => source.advice(),
            Self::NoNode => Some("only --check-published, --stay and --withdraw --all-nodes work without it".into()),
            Self::Node(_) | Self::Driver(_) => None,
        }
    }
}

impl Args {
    /// Validates the flags.
    pub fn into_config(self) -> Result<Config, ArgsError> {
        let Self {
            node_name,
            driver_name,
            node_socket,
            inventory_file,
            offer,
            once,
            dry_run,
            withdraw,
            all_nodes,
            await_daemonset,
            check_published,
            stay,
            namespace,
            selector,
            timeout_seconds,
            http_address,
            log_format: _,
            api_server: _,
        } = self;
        let driver: DriverName = driver_name.parse().map_err(ArgsError::Driver)?;
        if stay {
            return Ok(Config::Stay);
        }
        let timeout = Duration::from_secs(timeout_seconds);
        if let (true, Some(namespace), Some(selector)) = (check_published, &namespace, &selector) {
            let (namespace, selector) = (namespace.clone(), selector.clone());
            return Ok(Config::Check { driver, pods: DriverPods { namespace, selector, timeout } });
        }
        let node: Option<NodeName> = node_name.map(|name| name.parse()).transpose().map_err(ArgsError::Node)?;
        if withdraw {
            let node = if all_nodes { None } else { Some(node.ok_or(ArgsError::NoNode)?) };
            let work = namespace.zip(selector).zip(await_daemonset);
            let work = work.map(|((namespace, selector), daemon_set)| NodeCleanup {
                namespace,
                daemon_set,
                selector,
                timeout,
            });
            return Ok(Config::Withdraw { driver, node, work });
        }
        let node = node.ok_or(ArgsError::NoNode)?;
        let identity = PoolIdentity { driver, node };
        let source = inventory_file.map_or(Source::Socket(node_socket), Source::File);
        let offer = offer.into_offer().map_err(ArgsError::Offer)?;
        Ok(match (once, dry_run) {
            (true, true) => Config::Print { identity, source, offer },
            (true, false) => Config::Once { identity, source, offer },
            (false, _) => Config::Run { identity, source, offer, http_address },
        })
    }
}

#[cfg(test)]
mod tests {
    use dra_resource::{Features, Form};

    use super::*;

    fn config(args: &[&str]) -> Result<Config, String> {
        let args = ["gpu-controller"].iter().chain(args);
        Args::try_parse_from(args).map_err(|e| e.to_string())?.into_config().map_err(|e| e.to_string())
    }

    fn identity() -> PoolIdentity {
        PoolIdentity { driver: "gpu.nvidia.com".parse().unwrap(), node: "n".parse().unwrap() }
    }

    fn offer() -> Offer {
        Offer { forms: Form::ALL.into(), ..Offer::of_hardware(Features::ALL) }
    }

    #[test]
    fn arguments_become_one_thing_to_do() {
        let file = || Source::File("f".into());
        let driver = || identity().driver;
        let withdraw = |node, work| Config::Withdraw { driver: driver(), node, work };
        let of_pods = ["--namespace=ns", "--selector=a=b", "--timeout-seconds=5"];
        for (given, expect) in [
            (
                vec!["--node-name=n"],
                Config::Run {
                    identity: identity(),
                    source: Source::Socket("/run/gpu-node/node.sock".into()),
                    offer: offer(),
                    http_address: "0.0.0.0:8081".parse().unwrap(),
                },
            ),
            (
                vec!["--node-name=n", "--inventory-file=f", "--once"],
                Config::Once { identity: identity(), source: file(), offer: offer() },
            ),
            (
                vec!["--node-name=n", "--inventory-file=f", "--once", "--dry-run"],
                Config::Print { identity: identity(), source: file(), offer: offer() },
            ),
            (vec!["--withdraw", "--node-name=n"], withdraw(Some(identity().node), None)),
            (
                [&["--check-published"][..], &of_pods].concat(),
                Config::Check {
                    driver: driver(),
                    pods: DriverPods {
                        namespace: "ns".to_owned(),
                        selector: "a=b".to_owned(),
                        timeout: Duration::from_secs(5),
                    },
                },
            ),
            (vec!["--withdraw", "--all-nodes"], withdraw(None, None)),
            (vec!["--withdraw", "--all-nodes", "--node-name=n"], withdraw(None, None)),
            (
                [&["--withdraw", "--all-nodes", "--await-daemonset=d"][..], &of_pods].concat(),
                withdraw(
                    None,
                    Some(NodeCleanup {
                        namespace: "ns".to_owned(),
                        daemon_set: "d".to_owned(),
                        selector: "a=b".to_owned(),
                        timeout: Duration::from_secs(5),
                    }),
                ),
            ),
            (vec!["--stay"], Config::Stay),
        ] {
            assert_eq!(config(&given), Ok(expect), "{given:?}");
        }
    }

    #[test]
    fn impossible_arguments_are_refused() {
        for given in [
            vec!["--node-name=N_1"],
            vec!["--node-name=n", "--driver-name=GPU"],
            vec!["--node-name=n", "--forms=gpus"],
            vec!["--node-name=n", "--default-shares=0"],
            vec!["--node-name=n", "--dry-run"],
            vec!["--node-name=n", "--all-nodes"],
            vec!["--node-name=n", "--withdraw", "--once"],
            vec!["--withdraw"],
            vec!["--withdraw", "--all-nodes", "--await-daemonset=d", "--namespace=ns"],
            vec!["--withdraw", "--all-nodes", "--await-daemonset=d", "--selector=a=b"],
            vec!["--node-name=n", "--await-daemonset=d", "--namespace=ns", "--selector=a=b"],
            vec!["--stay", "--once"],
        ] {
            assert!(config(&given).is_err(), "{given:?}");
        }
    }
}
