// SPDX-License-Identifier: Apache-2.0
//! The sockets of a plugin instance, and the lock files that distinguish running instances from stopped ones.
//!
//! During a rolling upgrade two instances run on one node, so each name contains the UID of the pod. An instance locks a file
//! with its UID until it exits. A process that can lock that file may remove the sockets of the instance. No other way
//! distinguishes the socket of a running instance from a stale one without a race.
//!
//! The plugin directory is locked too, as by instances of earlier versions. Only root can read it.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dra_files::make_private_dir;
use dra_model::Advice;
use dra_serve::{BindError, MAX_SOCKET_PATH, remove_if_there};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::time::{sleep, timeout};
use tracing::info;

/// The time between two attempts to lock the plugin directory.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The characters of a pod UID in a socket path that is too long with the whole UID.
const SHORT_UID_LENGTH: usize = 13;

/// Why an instance has no sockets.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// `path` is the shortest possible one.
    #[error("socket path {} is longer than {MAX_SOCKET_PATH} bytes", path.display())]
    TooLong { path: PathBuf },
    #[error("failed to create or open {}", path.display())]
    Directory {
        /// The directory, or a file in it.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another plugin process with pod UID {uid} holds {}", path.display())]
    SameUid {
        uid: String,
        /// The lock file.
        path: PathBuf,
    },
    #[error("a plugin still uses {} after {} s", path.display(), waited.as_secs())]
    InUse {
        /// The plugin directory.
        path: PathBuf,
        waited: Duration,
    },
    #[error(transparent)]
    Bind(BindError),
}

impl Advice for SocketError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::TooLong { .. } => Some("use a shorter --kubelet-root-dir".into()),
            Self::Directory { .. } => Some("check that the kubelet root directory is mounted and writable".into()),
            Self::SameUid { .. } => Some("stop that process first".into()),
            Self::InUse { .. } => Some("delete the pod of the plugin on this node".into()),
            Self::Bind(_) => None,
        }
    }
}

/// The directories and socket paths of one plugin instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketPaths {
    /// `<kubelet root>/plugins/<driver>`: has the state and the DRA socket; survives the instance.
    pub plugin_dir: PathBuf,
    /// `<kubelet root>/plugins_registry`: the kubelet watches it.
    pub registry_dir: PathBuf,
    /// Serves the DRA services.
    pub dra_path: PathBuf,
    /// Serves the registration service.
    pub registration_path: PathBuf,
    driver_name: String,
    pod_uid: String,
}

impl SocketPaths {
    /// Shortens the UID of the pod if a path is too long.
    pub fn new(kubelet_root_dir: &Path, driver_name: &str, pod_uid: &str) -> Result<Self, SocketError> {
        let plugin_dir = kubelet_root_dir.join("plugins").join(driver_name);
        let registry_dir = kubelet_root_dir.join("plugins_registry");
        let short: String = pod_uid.chars().take(SHORT_UID_LENGTH).collect();
        let dra_path = first_that_fits([pod_uid, &short].map(|uid| plugin_dir.join(format!("dra-{uid}.sock"))))?;
        let registration_path =
            first_that_fits([pod_uid, &short].map(|uid| registry_dir.join(registration_name(driver_name, uid))))?;
        let (driver_name, pod_uid) = (driver_name.to_owned(), pod_uid.to_owned());
        Ok(Self { plugin_dir, registry_dir, dra_path, registration_path, driver_name, pod_uid })
    }

    /// Whether the instance of another pod accepts connections.
    pub fn accepts_connections(&self, pod_uid: &str) -> bool {
        let short: String = pod_uid.chars().take(SHORT_UID_LENGTH).collect();
        let paths = [pod_uid, &short].map(|uid| self.plugin_dir.join(format!("dra-{uid}.sock")));
        paths.iter().any(|path| UnixStream::connect(path).is_ok())
    }

    fn instances_dir(&self) -> PathBuf {
        self.plugin_dir.join("instances")
    }
}

/// The `@` makes the requests of the kubelet valid. Its registration client (1.37, `operationexecutor.dial`) sends the path of the
/// socket as the HTTP/2 authority, with `/` as `%2F`; an authority may contain `%` only before an `@`, and the server here refuses
/// any other with a protocol error. The kubelet accepts any name that does not begin with a dot.
fn registration_name(driver_name: &str, uid: &str) -> String {
    format!("{driver_name}@{uid}-reg.sock")
}

fn first_that_fits(candidates: [PathBuf; 2]) -> Result<PathBuf, SocketError> {
    let [long, short] = candidates;
    [long, short.clone()]
        .into_iter()
        .find(|path| path.as_os_str().len() <= MAX_SOCKET_PATH)
        .ok_or(SocketError::TooLong { path: short })
}

/// The lock of a running instance, held until the process exits.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
    /// Each running or starting instance has a shared lock.
    plugin_dir: File,
    paths: SocketPaths,
}

impl InstanceLock {
    /// Whether no other instance runs or starts. If so, none starts until this process exits.
    pub fn is_last(&self) -> bool {
        flock(&self.plugin_dir, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// Removes the empty directories of the plugin. The last instance calls this when no claim is left.
    pub fn remove_empty_dirs(&self) {
        // The lock files of instances that stopped since the start of this one, as in an upgrade, still exist.
        remove_stopped_instances(&self.paths);
        remove_if_there(&self.paths.instances_dir().join(&self.paths.pod_uid));
        for name in ["instances", "claims", "gpus", "quarantine"] {
            // A directory with files of a claim or of another program stays.
            fs::remove_dir(self.paths.plugin_dir.join(name)).ok();
        }
    }
}

/// Locks the name of this instance and removes the sockets of stopped instances. Waits for a process with the exclusive lock,
/// such as one that restores the GPUs of the node.
pub async fn claim_instance(paths: &SocketPaths) -> Result<InstanceLock, SocketError> {
    let instances_dir = paths.instances_dir();
    let directory = |source| SocketError::Directory { path: instances_dir.clone(), source };
    make_private_dir(&paths.plugin_dir).map_err(directory)?;
    let plugin_dir = File::open(&paths.plugin_dir).map_err(directory)?;
    lock(&plugin_dir, FlockOperation::NonBlockingLockShared, &paths.plugin_dir).await?;
    make_private_dir(&instances_dir).map_err(directory)?;
    let lock_path = instances_dir.join(&paths.pod_uid);
    let make = || File::options().write(true).create(true).truncate(true).mode(0o600).open(&lock_path);
    // The file is open for reading only, so that its file system can be remounted read-only.
    let file = make().and_then(|_made| File::open(&lock_path)).map_err(directory)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(SocketError::SameUid { uid: paths.pod_uid.clone(), path: lock_path });
    }
    remove_stopped_instances(paths);
    Ok(InstanceLock { _file: file, plugin_dir, paths: paths.clone() })
}

/// The lock without which no instance runs or starts, until it is dropped.
#[derive(Debug)]
pub struct ExclusiveLock {
    _plugin_dir: File,
}

/// Waits until the last instance stops. Returns `None` and creates nothing on a node without a plugin directory.
pub async fn lock_exclusively(paths: &SocketPaths, limit: Duration) -> Result<Option<ExclusiveLock>, SocketError> {
    let path = &paths.plugin_dir;
    let plugin_dir = match File::open(path) {
        Ok(plugin_dir) => plugin_dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SocketError::Directory { path: path.clone(), source }),
    };
    let locked = timeout(limit, lock(&plugin_dir, FlockOperation::NonBlockingLockExclusive, path)).await;
    locked.map_err(|_elapsed| SocketError::InUse { path: path.clone(), waited: limit })??;
    Ok(Some(ExclusiveLock { _plugin_dir: plugin_dir }))
}

/// Takes a lock as soon as no other process holds it. Retries instead of blocking, because a blocked flock(2) cannot be
/// cancelled.
async fn lock(plugin_dir: &File, operation: FlockOperation, path: &Path) -> Result<(), SocketError> {
    let mut waits = false;
    loop {
        match flock(plugin_dir, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(SocketError::Directory { path: path.to_owned(), source: errno.into() }),
        }
        if !std::mem::replace(&mut waits, true) {
            info!(path = %path.display(), "waiting for another plugin process to stop");
        }
        sleep(LOCK_RETRY_INTERVAL).await;
    }
}

/// Continues after a failure: a stale socket only causes log lines of the kubelet.
fn remove_stopped_instances(paths: &SocketPaths) {
    let Ok(entries) = fs::read_dir(paths.instances_dir()) else { return };
    for entry in entries.flatten() {
        let uid = entry.file_name().to_string_lossy().into_owned();
        let is_stopped = uid != paths.pod_uid
            && File::open(entry.path())
                .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
        if is_stopped {
            remove_sockets_of(paths, &uid);
            remove_if_there(&entry.path());
        }
    }
}

fn remove_sockets_of(paths: &SocketPaths, uid: &str) {
    let short: String = uid.chars().take(SHORT_UID_LENGTH).collect();
    for uid in [uid, &short] {
        remove_if_there(&paths.registry_dir.join(registration_name(&paths.driver_name, uid)));
        remove_if_there(&paths.plugin_dir.join(format!("dra-{uid}.sock")));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use dra_model::explain;

    use super::*;

    const UID: &str = "3f1b2c4d-0000-4000-8000-123456789abc";
    const OTHER: &str = "aaaaaaaa-0000-4000-8000-123456789abc";

    #[test]
    fn paths_are_short_enough_or_the_advice_names_the_flag() {
        let paths = SocketPaths::new(Path::new("/var/lib/kubelet"), "gpu.nvidia.com", UID).unwrap();
        assert_eq!(
            paths.registration_path,
            Path::new("/var/lib/kubelet/plugins_registry/gpu.nvidia.com@3f1b2c4d-0000-4000-8000-123456789abc-reg.sock")
        );
        let deep = format!("/var/lib/{}", "k".repeat(40));
        let paths = SocketPaths::new(Path::new(&deep), "gpu.nvidia.com", UID).unwrap();
        assert!(paths.registration_path.ends_with("gpu.nvidia.com@3f1b2c4d-0000-reg.sock"));
        let deeper = format!("/var/lib/{}", "k".repeat(90));
        let refused = SocketPaths::new(Path::new(&deeper), "gpu.nvidia.com", UID).unwrap_err();
        assert!(explain(&refused).ends_with("use a shorter --kubelet-root-dir"), "{refused}");
    }

    #[tokio::test]
    async fn sockets_of_stopped_instances_are_removed_and_those_of_running_ones_stay() {
        let root = tempfile::tempdir().unwrap();
        let paths = |uid| SocketPaths::new(root.path(), "d", uid).unwrap();
        let (stopped, running, own) = (paths("stopped"), paths(OTHER), paths(UID));
        fs::create_dir_all(&own.registry_dir).unwrap();
        let _running = claim_instance(&running).await.unwrap();
        drop(claim_instance(&stopped).await.unwrap());
        for path in [&stopped.dra_path, &stopped.registration_path, &running.dra_path, &running.registration_path] {
            fs::write(path, "").unwrap();
        }
        let _me = claim_instance(&own).await.unwrap();
        assert!(!stopped.dra_path.exists() && !stopped.registration_path.exists());
        assert!(running.dra_path.exists() && running.registration_path.exists());
        assert!(matches!(claim_instance(&running).await, Err(SocketError::SameUid { .. })));
    }

    #[tokio::test]
    async fn only_root_can_open_the_files_that_an_instance_locks() {
        let root = tempfile::tempdir().unwrap();
        let paths = SocketPaths::new(root.path(), "d", UID).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        // As an earlier version created them.
        for dir in [&paths.plugin_dir, &paths.instances_dir()] {
            fs::create_dir_all(dir).unwrap();
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let _me = claim_instance(&paths).await.unwrap();
        let modes =
            [&paths.plugin_dir, &paths.instances_dir(), &paths.instances_dir().join(UID)].map(|path| mode(path));
        assert_eq!(modes, [0o700, 0o700, 0o600]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_exclusive_lock_waits_for_the_last_instance_for_a_limited_time() {
        let root = tempfile::tempdir().unwrap();
        let paths = |uid| SocketPaths::new(root.path(), "d", uid).unwrap();
        let limit = Duration::from_mins(1);
        assert!(lock_exclusively(&paths(UID), limit).await.unwrap().is_none());
        assert!(!paths(UID).plugin_dir.exists());
        let instance = claim_instance(&paths(OTHER)).await.unwrap();
        let refused = lock_exclusively(&paths(UID), limit).await.unwrap_err();
        let dir = paths(UID).plugin_dir;
        assert_eq!(
            explain(&refused),
            format!("a plugin still uses {} after 60 s; delete the pod of the plugin on this node", dir.display())
        );
        let ending = async {
            sleep(limit / 2).await;
            drop(instance);
        };
        let own_paths = paths(UID);
        let (locked, ()) = tokio::join!(lock_exclusively(&own_paths, limit), ending);
        assert!(locked.unwrap().is_some());
    }

    #[tokio::test]
    async fn the_last_instance_removes_the_directories_of_earlier_ones() {
        let root = tempfile::tempdir().unwrap();
        let paths = |uid| SocketPaths::new(root.path(), "d", uid).unwrap();
        let before = claim_instance(&paths(OTHER)).await.unwrap();
        let after = claim_instance(&paths(UID)).await.unwrap();
        assert!(!after.is_last());
        drop(before);
        assert!(after.is_last());
        after.remove_empty_dirs();
        assert_eq!(fs::read_dir(paths(UID).plugin_dir).unwrap().count(), 0);
    }
}
