// SPDX-License-Identifier: Apache-2.0
//! The client of the API server, from the kubeconfig that kubectl uses.

use std::borrow::Cow;
use std::path::PathBuf;

use dra_explain::access::Access;
use dra_model::Advice;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use crate::args::Connection;

/// No client can be made.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("failed to read the kubeconfig {}", path.display())]
    File { path: PathBuf, source: Box<KubeconfigError> },
    #[error("failed to use the kubeconfig")]
    Config(#[source] Box<KubeconfigError>),
    #[error("failed to set up the connection to the API server")]
    Client(#[source] Box<kube::Error>),
}

impl Advice for AccessError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Config(_) => Some("set --kubeconfig or KUBECONFIG, and test it with `kubectl get nodes`".into()),
            Self::File { .. } | Self::Client(_) => None,
        }
    }
}

/// Reads the kubeconfig; sends no request.
pub async fn connect(connection: &Connection) -> Result<Access, AccessError> {
    let options = KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
    let config = match &connection.kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path);
            let read = read.map_err(|source| AccessError::File { path: path.clone(), source: Box::new(source) })?;
            Config::from_custom_kubeconfig(read, &options).await
        }
        None => Config::from_kubeconfig(&options).await,
    };
    let config = config.map_err(|source| AccessError::Config(Box::new(source)))?;
    let namespace = connection.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(|source| AccessError::Client(Box::new(source)))?;
    Ok(Access { client, namespace })
}
