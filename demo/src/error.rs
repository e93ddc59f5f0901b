// SPDX-License-Identifier: Apache-2.0
//! Errors of scenes.

use dra_cluster::ClusterError;
use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("failed to {doing}")]
    Cluster {
        /// Verb and object, such as "apply one-gpu.yaml".
        doing: String,
        source: Box<ClusterError>,
    },
    #[error("pod {pod} did not start; Events: {events}")]
    NotStarted {
        /// Namespace and name.
        pod: String,
        events: String,
        source: Box<ClusterError>,
    },
    #[error("failed to {operation} {path}")]
    File {
        /// Verb, such as "copy".
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "no parent directory of {program} or of the current directory contains deploy/chart; run the program in the repository"
    )]
    NoRepository {
        /// Path of this program.
        program: PathBuf,
    },
    #[error("{path} is missing; build it with `make build`")]
    NotBuilt { path: PathBuf },
    #[error("the chart renders no rules for Prometheus")]
    NoRules,
    #[error("the answer for {object} does not contain {what}")]
    Incomplete { what: &'static str, object: String },
}

pub type Result<T> = std::result::Result<T, DemoError>;

/// Adds the failed operation to an error of the cluster.
pub trait Doing<T> {
    /// `doing` is verb and object, such as "apply one-gpu.yaml".
    fn doing(self, doing: impl Into<String>) -> Result<T>;
}

impl<T> Doing<T> for dra_cluster::Result<T> {
    fn doing(self, doing: impl Into<String>) -> Result<T> {
        self.map_err(|source| DemoError::Cluster { doing: doing.into(), source: Box::new(source) })
    }
}
