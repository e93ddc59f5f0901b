// SPDX-License-Identifier: Apache-2.0
//! Registers this instance with the kubelet.
//!
//! The kubelet finds the registration socket in its registry directory, calls `GetInfo` (within one second, answered from memory)
//! and notifies the result. After a restart the kubelet removes all ResourceSlices of the node and registers again, so
//! registrations are counted. When a newer instance registers, this one is superseded: the kubelet calls the newer one, and only
//! its controller may publish (see [`ActiveInstance`]).

use std::fs;
use std::io;
use std::path::PathBuf;

use dra_proto::registration_v1 as pb;
use dra_proto::{PLUGIN_TYPE, SUPPORTED_SERVICES};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tracing::{error, info};

use crate::sockets::SocketPaths;

/// The last result that the kubelet notified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registration {
    pub accepted: bool,
    /// Number of accepted registrations.
    pub count: u64,
}

#[derive(Debug)]
pub struct RegistrationService {
    info: pb::PluginInfo,
    state: watch::Sender<Registration>,
    active: ActiveInstance,
}

impl RegistrationService {
    /// `state` receives the results that the kubelet notifies.
    pub fn new(
        driver_name: &str,
        paths: &SocketPaths,
        active: ActiveInstance,
        state: watch::Sender<Registration>,
    ) -> Self {
        let info = pb::PluginInfo {
            r#type: PLUGIN_TYPE.to_owned(),
            name: driver_name.to_owned(),
            endpoint: paths.dra_path.display().to_string(),
            supported_versions: SUPPORTED_SERVICES.map(str::to_owned).to_vec(),
        };
        Self { info, state, active }
    }
}

#[tonic::async_trait]
impl pb::registration_server::Registration for RegistrationService {
    async fn get_info(&self, _request: Request<pb::InfoRequest>) -> Result<Response<pb::PluginInfo>, Status> {
        Ok(Response::new(self.info.clone()))
    }

    async fn notify_registration_status(
        &self,
        request: Request<pb::RegistrationStatus>,
    ) -> Result<Response<pb::RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            info!(endpoint = self.info.endpoint, "registered with the kubelet");
            self.active.activate();
        } else {
            error!(error = status.error, "the kubelet refused the registration of this plugin, it retries");
        }
        self.state.send_modify(|state| {
            state.accepted = status.plugin_registered;
            state.count += u64::from(status.plugin_registered);
        });
        Ok(Response::new(pb::RegistrationStatusResponse {}))
    }
}

/// The file in the plugin directory with the pod UID of the instance that registered last.
///
/// The kubelet calls the most recently registered instance. The controllers of two instances would both publish, and undo each
/// other's writes if their versions differ, so the older one stops when the file names another instance.
#[derive(Debug, Clone)]
pub struct ActiveInstance {
    path: PathBuf,
    pod_uid: String,
    paths: SocketPaths,
}

impl ActiveInstance {
    pub fn new(paths: &SocketPaths, pod_uid: &str) -> Self {
        let path = paths.plugin_dir.join("active-instance");
        Self { path, pod_uid: pod_uid.to_owned(), paths: paths.clone() }
    }

    /// Whether a newer instance has registered and still accepts connections.
    pub fn is_superseded(&self) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|uid| uid != self.pod_uid && self.paths.accepts_connections(&uid))
    }

    /// Removes the file at a clean stop, so that an older instance continues, for example after a rollback of an upgrade.
    pub fn deactivate(&self) {
        if fs::read_to_string(&self.path).is_ok_and(|uid| uid == self.pod_uid) {
            dra_serve::remove_if_there(&self.path);
        }
    }

    fn activate(&self) {
        if let Err(error) = self.write() {
            error!(path = %self.path.display(), %error, "failed to mark this instance as the active one");
        }
    }

    fn write(&self) -> io::Result<()> {
        let temporary = self.path.with_extension(&self.pod_uid);
        fs::write(&temporary, &self.pod_uid)?;
        fs::rename(&temporary, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use dra_proto::registration_v1::registration_server::Registration as _;
    use std::path::Path;

    use super::*;

    fn instance(root: &Path, uid: &str) -> (RegistrationService, ActiveInstance, watch::Receiver<Registration>) {
        let paths = SocketPaths::new(root, "gpu.nvidia.com", uid).unwrap();
        fs::create_dir_all(&paths.plugin_dir).unwrap();
        let active = ActiveInstance::new(&paths, uid);
        let (sender, receiver) = watch::channel(Registration::default());
        (RegistrationService::new("gpu.nvidia.com", &paths, active.clone(), sender), active, receiver)
    }

    async fn notify(service: &RegistrationService, plugin_registered: bool) {
        let status = pb::RegistrationStatus { plugin_registered, error: String::new() };
        service.notify_registration_status(Request::new(status)).await.unwrap();
    }

    #[tokio::test]
    async fn the_newer_instance_supersedes_the_older_until_it_stops_or_exits() {
        let root = tempfile::tempdir().unwrap();
        let (old_service, old, old_state) = instance(root.path(), "old");
        let (new_service, new, _new_state) = instance(root.path(), "new");
        notify(&old_service, true).await;
        assert!(!old.is_superseded());
        notify(&new_service, true).await;
        assert!(!old.is_superseded(), "the newer instance does not accept connections");
        let listener = std::os::unix::net::UnixListener::bind(&new.paths.dra_path).unwrap();
        assert!(old.is_superseded() && !new.is_superseded());
        drop(listener);
        assert!(!old.is_superseded(), "the newer instance exited");
        let _listener = {
            fs::remove_file(&new.paths.dra_path).unwrap();
            std::os::unix::net::UnixListener::bind(&new.paths.dra_path).unwrap()
        };
        new.deactivate();
        assert!(!old.is_superseded());
        notify(&old_service, false).await;
        assert_eq!(*old_state.borrow(), Registration { accepted: false, count: 1 });
    }

    #[tokio::test]
    async fn info_lists_the_newest_service_first() {
        let root = tempfile::tempdir().unwrap();
        let (service, ..) = instance(root.path(), "uid");
        let info = service.get_info(Request::new(pb::InfoRequest {})).await.unwrap().into_inner();
        assert_eq!(info.supported_versions, dra_proto::SUPPORTED_SERVICES);
        assert_eq!((info.r#type.as_str(), info.name.as_str()), ("DRAPlugin", "gpu.nvidia.com"));
        assert!(info.endpoint.ends_with("plugins/gpu.nvidia.com/dra-uid.sock"), "{}", info.endpoint);
    }
}
