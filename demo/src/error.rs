// SPDX-License-Identifier: Apache-2.0
//! Why a scene could not be played. The text never repeats its source; callers print the chain.

use dra_cluster::ClusterError;
use std::{io, path::PathBuf};

/// What went wrong, with what it went wrong on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The cluster, or a program in it, said no.
    #[error("failed to {doing}")]
    Cluster {
        /// Verb and object, such as "apply one-gpu.yaml".
        doing: String,
        /// Its answer.
        source: Box<ClusterError>,
    },
    /// A pod did not start.
    #[error("pod {pod} did not start; its events: {events}")]
    NotStarted {
        /// Namespace and name.
        pod: String,
        /// What Kubernetes tells about it.
        events: String,
        /// How long was waited.
        source: Box<ClusterError>,
    },
    /// A file could not be copied or made.
    #[error("failed to {operation} {path}")]
    File {
        /// Verb, such as "copy".
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The answer of the operating system.
        source: io::Error,
    },
    /// The program runs somewhere else than in the repository.
    #[error("no folder above {program} or above the current one holds deploy/chart; run it from the repository")]
    NoRepository {
        /// This program.
        program: PathBuf,
    },
    /// A program of the repository is missing.
    #[error("{path} is missing; build it with `make build`")]
    NotBuilt {
        /// Where it should be.
        path: PathBuf,
    },
    /// An answer lacks something that must be in it.
    #[error("{what} is missing in the answer for {object}")]
    Incomplete {
        /// The part.
        what: &'static str,
        /// Of what.
        object: String,
    },
}

/// Result of scenes and of what they are made of.
pub type Result<T> = std::result::Result<T, DemoError>;

/// Says what was done when the cluster said no.
pub trait Doing<T> {
    /// Verb and object.
    fn doing(self, doing: impl Into<String>) -> Result<T>;
}

impl<T> Doing<T> for dra_cluster::Result<T> {
    fn doing(self, doing: impl Into<String>) -> Result<T> {
        self.map_err(|source| DemoError::Cluster { doing: doing.into(), source: Box::new(source) })
    }
}
