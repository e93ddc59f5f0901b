// SPDX-License-Identifier: Apache-2.0
//! Errors of the cluster, with one variant per operation.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("failed to start {program}; run tests/cluster/setup.sh to install missing programs")]
    Start { program: String, source: io::Error },
    #[error("{command} failed with {status}: {message}")]
    Failed {
        /// The whole command line.
        command: String,
        status: ExitStatus,
        /// Its standard error, or its standard output where that is empty.
        message: String,
    },
    #[error("failed to {operation} {path}")]
    File {
        /// Verb, such as "write".
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("failed to create the certificate of {subject}")]
    Certificate { subject: String, source: rcgen::Error },
    #[error(
        "timed out after {limit:?} waiting for {what}; the logs are in {logs} (GPU_CLUSTER_KEEP_LOGS=<directory> keeps them after the cluster is removed): {last}"
    )]
    Timeout {
        what: String,
        limit: Duration,
        /// Directory of the logs.
        logs: PathBuf,
        /// The last error of the probe, or empty.
        last: String,
    },
    #[error("failed to parse or create the JSON of {what}")]
    Json { what: String, source: serde_json::Error },
    #[error("all 256 address ranges 10.199.x.0/24 are in use; stop a cluster with `gpu-cluster down`")]
    NoSubnet,
    #[error("a cluster named {name} is already running; use it, or stop it with `gpu-cluster down --name {name}`")]
    Running { name: String },
    #[error("no cluster named {name} is running; start one with `gpu-cluster up --name {name}`")]
    NotRunning { name: String },
    #[error("{name:?} is not a cluster name: use 1 to 10 lower-case letters, digits and dashes")]
    BadName { name: String },
    #[error("the cluster has no node {name}; it has {known}")]
    NoSuchNode { name: String, known: String },
    #[error("node {node} has simulated GPUs, but no gpu-sim program was given; build it with `cargo build -p dra-sim`")]
    NoSimulator { node: String },
    #[error("{path} is missing; run tests/cluster/setup.sh to install missing programs")]
    NoPrometheus { path: PathBuf },
}

pub type Result<T> = std::result::Result<T, ClusterError>;
