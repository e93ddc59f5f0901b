// SPDX-License-Identifier: Apache-2.0
//! A real Kubernetes cluster on one machine.
//!
//! ```text
//! options -> Cluster::start -> watchdog -> process namespace -+-> control plane: etcd, API server, scheduler, controllers
//!                                                             +-> node-1: containerd, kubelet, kube-proxy, its GPUs
//!                                                             +-> node-2: ...
//! ```
//!
//! Every program of a cluster is in one PID namespace, held by a small
//! watchdog that waits for the end of a pipe to its owner. However the owner
//! terminates, the kernel kills every process of the namespace, which removes their
//! mounts and links; the watchdog then removes the control groups and the
//! cluster's directory. The crate does not know the driver, and of GPUs only the tree
//! that `gpu-sim` creates.

mod cache;
mod certificates;
mod cluster;
mod command;
mod control_plane;
mod error;
mod files;
mod images;
mod kubeconfig;
mod kueue;
mod namespaces;
mod network;
mod node;
mod node_files;
mod programs;
mod prometheus;
mod run_dir;
mod simulator;
mod sweep;
mod wait;
mod watchdog;

pub use cluster::{Cluster, ClusterOptions, NodeOptions};
pub use error::{ClusterError, Result};
pub use images::{Image, build_image, demo_image};
pub use kueue::{Kueue, build_kueue};
pub use node::{Node, Service};
pub use programs::{Build, Programs, build_programs};
pub use prometheus::Prometheus;
pub use simulator::build_simulator;
pub use sweep::sweep;
pub use wait::until;
