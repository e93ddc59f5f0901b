// SPDX-License-Identifier: Apache-2.0
//! The registration of one plugin: request its info, check it, notify the result.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dra_proto::registration_v1::registration_client::RegistrationClient;
use dra_proto::registration_v1::{InfoRequest, PluginInfo, RegistrationStatus};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use super::plugin::{Plugin, Policy, Service};
use super::socket::Socket;

/// `operation_generator.go`: the deadline of `GetInfo`.
const INFO_DEADLINE: Duration = Duration::from_secs(1);
/// `operation_generator.go`: the deadline of `NotifyRegistrationStatus`.
const NOTIFY_DEADLINE: Duration = Duration::from_secs(5);
/// `sun_path` without its final zero.
const MAX_ENDPOINT_LENGTH: usize = 107;

/// Registers the plugin behind a socket.
pub(super) async fn register(root_dir: &Path, socket: &Socket, policy: &Policy) -> Result<Plugin, String> {
    let channel = connect(&socket.path, &authority_of(&socket.path)).await?;
    let mut client = RegistrationClient::new(channel);
    let info = timeout(INFO_DEADLINE, client.get_info(InfoRequest {}))
        .await
        .map_err(|_elapsed| "GetInfo took longer than 1 s".to_owned())?
        .map_err(|status| format!("GetInfo failed: {status}"))?
        .into_inner();
    let judged = match &policy.refuses {
        Some(reason) => Err(reason.clone()),
        None => judge(root_dir, &info, &policy.services),
    };
    let plugin = match judged {
        Ok(service) => accept(socket, info, service).await,
        Err(reason) => Err(reason),
    };
    let error = plugin.as_ref().err().cloned().unwrap_or_default();
    let status = RegistrationStatus { plugin_registered: plugin.is_ok(), error };
    timeout(NOTIFY_DEADLINE, client.notify_registration_status(status))
        .await
        .map_err(|_elapsed| "NotifyRegistrationStatus took longer than 5 s".to_owned())?
        .map_err(|status| format!("NotifyRegistrationStatus failed: {status}"))?;
    plugin
}

/// What the kubelet checks, and which service it will call: the plugin's first that it knows.
fn judge(root_dir: &Path, info: &PluginInfo, services: &[Service]) -> Result<Service, String> {
    let endpoint = Path::new(&info.endpoint);
    if info.r#type != "DRAPlugin" {
        return Err(format!("no handler for plugin type {}", info.r#type));
    }
    if !endpoint.is_absolute() || !endpoint.starts_with(root_dir) || info.endpoint.len() > MAX_ENDPOINT_LENGTH {
        return Err(format!("endpoint {} is not a socket path below the kubelet's root", info.endpoint));
    }
    let known = |version: &String| services.iter().copied().find(|service| service.name() == version);
    info.supported_versions
        .iter()
        .find_map(known)
        .ok_or_else(|| format!("none of {:?} is known", info.supported_versions))
}

async fn accept(socket: &Socket, info: PluginInfo, service: Service) -> Result<Plugin, String> {
    let PluginInfo { r#type: _, name, endpoint, supported_versions } = info;
    let endpoint = PathBuf::from(endpoint);
    let channel = connect(&endpoint, "localhost").await?;
    Ok(Plugin {
        serial: 0,
        socket: socket.clone(),
        socket_path: socket.path.clone(),
        name,
        endpoint,
        supported_versions,
        service,
        channel,
    })
}

/// What the real one sends as HTTP/2 authority on a registration socket (`operationexecutor.dial`); for the endpoint, whose
/// target has the scheme `unix`, gRPC sends `localhost`.
fn authority_of(socket_path: &Path) -> String {
    socket_path.display().to_string().replace('/', "%2F")
}

async fn connect(socket_path: &Path, authority: &str) -> Result<Channel, String> {
    let path = socket_path.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    let origin = format!("http://{authority}");
    let origin =
        origin.parse().map_err(|error| format!("authority {authority} is one that servers refuse: {error}"))?;
    let endpoint = Endpoint::from_static("http://localhost").origin(origin);
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| format!("no connection to {}: {error}", socket_path.display()))
}
