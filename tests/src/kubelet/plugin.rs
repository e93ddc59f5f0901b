// SPDX-License-Identifier: Apache-2.0
//! A registered plugin instance, and which plugins the fake kubelet accepts.

use std::path::PathBuf;

use tonic::transport::Channel;

use super::socket::Socket;

/// A version of the DRA API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// `v1.DRAPlugin`, since Kubernetes 1.34.
    V1,
    /// `v1beta1.DRAPlugin`, the only one of Kubernetes 1.32 and 1.33.
    V1beta1,
}

impl Service {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1.DRAPlugin",
            Self::V1beta1 => "v1beta1.DRAPlugin",
        }
    }
}

/// A registered plugin instance.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// Grows with every registration.
    pub serial: u64,
    /// The registration socket.
    pub socket_path: PathBuf,
    /// The driver name.
    pub name: String,
    /// The DRA socket.
    pub endpoint: PathBuf,
    /// In the order of the plugin.
    pub supported_versions: Vec<String>,
    /// The service that the kubelet calls.
    pub service: Service,
    pub(super) socket: Socket,
    pub(super) channel: Channel,
}

#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub(super) services: Vec<Service>,
    /// The reason for which all plugins are refused.
    pub(super) refuses: Option<String>,
}
