// SPDX-License-Identifier: Apache-2.0
//! Why a question is not answered.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use dra_model::Advice;

use crate::access::AccessError;
use crate::clearing::ClearError;
use crate::doctoring::DoctorError;
use crate::draining::ServiceError;
use crate::manifest::ManifestError;
use crate::migrating::MigrateError;
use crate::output::OutputError;
use crate::verifying::VerifyError;
use dra_explain::request::ReadError;
use dra_explain::subject_reading::SubjectError;

/// The question is not answered.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("failed to start")]
    Runtime(#[source] io::Error),
    #[error("failed to connect to the cluster")]
    Access(#[source] AccessError),
    #[error("failed to read the cluster")]
    Read(#[source] ReadError),
    #[error("failed to print the answer")]
    Output(#[source] OutputError),
    #[error("failed to read the manifest {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("failed to parse the manifest {}", path.display())]
    Yaml { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("failed to use the manifest {}", path.display())]
    Manifest { path: PathBuf, source: ManifestError },
    #[error("failed to read what is asked about")]
    Subject(#[source] SubjectError),
    #[error("failed to verify")]
    Verify(#[source] VerifyError),
    #[error("failed to examine the cluster")]
    Doctor(#[source] DoctorError),
    #[error("failed to clear the GPU")]
    Clear(#[source] ClearError),
    #[error("failed to take GPUs out of service")]
    Drain(#[source] ServiceError),
    #[error("failed to return GPUs to service")]
    Undrain(#[source] ServiceError),
    #[error("failed to migrate")]
    Migrate(#[source] MigrateError),
    #[error("node {node} has no ResourceSlice of the driver {driver}")]
    NoNode { node: String, driver: String },
}

impl Advice for AppError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Access(source) => source.advice(),
            Self::Read(source) => source.advice(),
            Self::Subject(source) => source.advice(),
            Self::Verify(source) => source.advice(),
            Self::Clear(source) => source.advice(),
            Self::Doctor(source) => source.advice(),
            Self::Drain(source) | Self::Undrain(source) => source.advice(),
            Self::Migrate(source) => source.advice(),
            Self::NoNode { .. } => Some("`kubectl gpu status` lists the nodes with GPUs".into()),
            Self::Runtime(_) | Self::Output(_) | Self::File { .. } | Self::Yaml { .. } | Self::Manifest { .. } => None,
        }
    }
}
