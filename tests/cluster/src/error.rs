// SPDX-License-Identifier: Apache-2.0
//! Why the cluster could not do what was asked.
//!
//! One variant per operation. The text never repeats its source; callers print the chain.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

/// What went wrong, with the file, program or condition it went wrong on.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A program of the host or of the cache could not be started.
    #[error("failed to start {program}; tests/cluster/setup.sh installs what the cluster needs")]
    Start {
        /// The program as it was called.
        program: String,
        /// The answer of the operating system.
        source: io::Error,
    },
    /// A program ran and said no.
    #[error("{command} ended with {status}: {message}")]
    Failed {
        /// The whole command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// Its standard error, or its standard output where that is empty.
        message: String,
    },
    /// A file or folder could not be read, written or removed.
    #[error("failed to {operation} {path}")]
    File {
        /// Verb, such as "write".
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The answer of the operating system.
        source: io::Error,
    },
    /// A certificate could not be made.
    #[error("failed to make the certificate of {subject}")]
    Certificate {
        /// Who the certificate is for.
        subject: String,
        /// The answer of the certificate library.
        source: rcgen::Error,
    },
    /// Something that was waited for did not come.
    #[error(
        "{what} did not happen within {limit:?}; the logs are in {logs} (with GPU_CLUSTER_KEEP_LOGS=<folder> they stay when the cluster goes): {last}"
    )]
    Timeout {
        /// The condition.
        what: String,
        /// How long it was waited for.
        limit: Duration,
        /// Where the programs of the cluster write.
        logs: PathBuf,
        /// The last answer, empty where there was none.
        last: String,
    },
    /// A JSON document could not be read or made.
    #[error("{what} is not the JSON that was expected")]
    Json {
        /// The document.
        what: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// No address range is left.
    #[error("all 256 address ranges 10.199.x.0/24 are taken; stop a cluster with `gpu-cluster down`")]
    NoSubnet,
    /// A cluster of this name runs already.
    #[error("a cluster named {name} runs already; use it, or stop it with `gpu-cluster down --name {name}`")]
    Running {
        /// Its name.
        name: String,
    },
    /// No cluster of this name runs.
    #[error("no cluster named {name} runs; start one with `gpu-cluster up --name {name}`")]
    NotRunning {
        /// The name that was asked for.
        name: String,
    },
    /// A name that cannot be part of a link's or folder's name.
    #[error("{name:?} is not a cluster name: use 1 to 10 lower-case letters, digits and dashes")]
    BadName {
        /// The name that was given.
        name: String,
    },
    /// No node of this name is in the cluster.
    #[error("the cluster has no node {name}; it has {known}")]
    NoSuchNode {
        /// The name that was asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// Simulated GPUs were asked for without the program that makes them.
    #[error("node {node} is to have GPUs, but no gpu-sim program was given; build it with `cargo build -p dra-sim`")]
    NoSimulator {
        /// The node.
        node: String,
    },
}

/// Result of the cluster's operations.
pub type Result<T> = std::result::Result<T, ClusterError>;
