// SPDX-License-Identifier: Apache-2.0
//! Where the sockets of one plugin instance are, and whose they are.
//!
//! During a rolling upgrade two instances live on one node, so every name carries the pod's UID. An instance holds a
//! lock on a file of its name as long as it lives: whoever can take that lock knows that the instance is dead and may
//! remove the sockets it left behind. Nothing else tells a live socket from a stale one without a race.
//!
//! The plugin's directory is locked too, as instances of earlier versions do. No other user can open it or what is in it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dra_files::make_private_dir;
use dra_serve::{BindError, MAX_SOCKET_PATH, remove_if_there};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::time::{sleep, timeout};
use tracing::info;

/// How often it is looked whether another instance has ended.
const LOOK: Duration = Duration::from_millis(100);

/// How much of a pod UID is kept when the whole does not fit.
const SHORT_UID: usize = 13;

/// Why an instance has no sockets.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kubelet's directory is too deep for a socket path.
    #[error("socket path {path} is longer than {MAX_SOCKET_PATH} bytes: use a shorter --kubelet-root-dir")]
    TooLong {
        /// The shortest path there could be.
        path: PathBuf,
    },
    /// The plugin directory cannot be used.
    #[error("failed to prepare {path}: check that the kubelet root directory is mounted and writable")]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A second process with the same pod UID.
    #[error("another plugin process with pod UID {uid} holds {path}: it must end first")]
    SameUid {
        /// The UID.
        uid: String,
        /// The lock file.
        path: PathBuf,
    },
    /// An instance that does not end.
    #[error("a plugin still works in {path} after {} s: end the plugin's pod on this node (will retry)", patience.as_secs())]
    InUse {
        /// The plugin's directory.
        path: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The socket cannot be made.
    #[error(transparent)]
    Bind(BindError),
}

/// The directories and socket paths of one plugin instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketPaths {
    /// `<kubelet root>/plugins/<driver>`: state and the DRA socket; survives the instance.
    pub plugin_dir: PathBuf,
    /// `<kubelet root>/plugins_registry`: watched by the kubelet.
    pub registry_dir: PathBuf,
    /// Serves the DRA services.
    pub dra_path: PathBuf,
    /// Serves the registration service.
    pub registration_path: PathBuf,
    driver_name: String,
    pod_uid: String,
}

impl SocketPaths {
    /// The paths of an instance; the pod's UID is shortened where the whole does not fit.
    pub fn new(kubelet_root_dir: &Path, driver_name: &str, pod_uid: &str) -> Result<Self, SocketError> {
        let plugin_dir = kubelet_root_dir.join("plugins").join(driver_name);
        let registry_dir = kubelet_root_dir.join("plugins_registry");
        let short: String = pod_uid.chars().take(SHORT_UID).collect();
        let dra_path = first_that_fits([pod_uid, &short].map(|uid| plugin_dir.join(format!("dra-{uid}.sock"))))?;
        let registration_path =
            first_that_fits([pod_uid, &short].map(|uid| registry_dir.join(registration_name(driver_name, uid))))?;
        let (driver_name, pod_uid) = (driver_name.to_owned(), pod_uid.to_owned());
        Ok(Self { plugin_dir, registry_dir, dra_path, registration_path, driver_name, pod_uid })
    }

    /// Whether the instance of another pod still answers.
    pub fn answers(&self, pod_uid: &str) -> bool {
        let short: String = pod_uid.chars().take(SHORT_UID).collect();
        let paths = [pod_uid, &short].map(|uid| self.plugin_dir.join(format!("dra-{uid}.sock")));
        paths.iter().any(|path| UnixStream::connect(path).is_ok())
    }

    fn instances_dir(&self) -> PathBuf {
        self.plugin_dir.join("instances")
    }
}

/// The `@` lets the kubelet in. Its registration client (1.37, `operationexecutor.dial`) gives the socket's path as the HTTP/2
/// authority, with `/` as `%2F`; an authority may have `%` only before an `@`, and the server here refuses any other
/// with a protocol error. The kubelet takes any name that does not begin with a dot.
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

/// The proof that an instance lives, held until the process ends.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
    /// Locked shared by every instance that lives or starts.
    plugin_dir: File,
    paths: SocketPaths,
}

impl InstanceLock {
    /// Whether no other instance lives or starts; from then on none starts until this process ends.
    pub fn is_last(&self) -> bool {
        flock(&self.plugin_dir, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// Removes the folders of the plugin that are empty; the last instance does this when no claim is left.
    pub fn remove_empty_dirs(&self) {
        // Of an instance that ended while this one lived, as in every upgrade, the lock is still there.
        remove_dead_instances(&self.paths);
        remove_if_there(&self.paths.instances_dir().join(&self.paths.pod_uid));
        for name in ["instances", "claims", "gpus", "quarantine"] {
            // One that is not empty stays: what is in it is not ours to judge.
            fs::remove_dir(self.paths.plugin_dir.join(name)).ok();
        }
    }
}

/// Claims this instance's name and removes the sockets that dead instances left behind. Waits for a process that wants to be
/// alone on the node, such as one that restores its GPUs.
pub async fn claim_instance(paths: &SocketPaths) -> Result<InstanceLock, SocketError> {
    let instances_dir = paths.instances_dir();
    let directory = |source| SocketError::Directory { path: instances_dir.clone(), source };
    make_private_dir(&paths.plugin_dir).map_err(directory)?;
    let plugin_dir = File::open(&paths.plugin_dir).map_err(directory)?;
    lock(&plugin_dir, FlockOperation::NonBlockingLockShared, &paths.plugin_dir).await?;
    make_private_dir(&instances_dir).map_err(directory)?;
    let lock_path = instances_dir.join(&paths.pod_uid);
    let make = || File::options().write(true).create(true).truncate(true).mode(0o600).open(&lock_path);
    // Held by a file open for reading, which keeps no disk from becoming read-only.
    let file = make().and_then(|_made| File::open(&lock_path)).map_err(directory)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(SocketError::SameUid { uid: paths.pod_uid.clone(), path: lock_path });
    }
    remove_dead_instances(paths);
    Ok(InstanceLock { _file: file, plugin_dir, paths: paths.clone() })
}

/// Proof that no instance lives or starts, held until it is dropped.
#[derive(Debug)]
pub struct Alone {
    _plugin_dir: File,
}

/// Waits until the last instance has ended. `None` where there was none ever, and nothing is made.
pub async fn wait_alone(paths: &SocketPaths, patience: Duration) -> Result<Option<Alone>, SocketError> {
    let path = &paths.plugin_dir;
    let plugin_dir = match File::open(path) {
        Ok(plugin_dir) => plugin_dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SocketError::Directory { path: path.clone(), source }),
    };
    let locked = timeout(patience, lock(&plugin_dir, FlockOperation::NonBlockingLockExclusive, path)).await;
    locked.map_err(|_elapsed| SocketError::InUse { path: path.clone(), patience })??;
    Ok(Some(Alone { _plugin_dir: plugin_dir }))
}

/// Takes a lock as soon as no other process holds it. Tries again and again, since a thread that blocks in flock(2) hears of
/// no signal.
async fn lock(plugin_dir: &File, operation: FlockOperation, path: &Path) -> Result<(), SocketError> {
    let mut waits = false;
    loop {
        match flock(plugin_dir, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(SocketError::Directory { path: path.to_owned(), source: errno.into() }),
        }
        if !std::mem::replace(&mut waits, true) {
            info!(path = %path.display(), "waiting for the plugin that works there to end");
        }
        sleep(LOOK).await;
    }
}

/// Continues past anything that cannot be removed: a stale socket costs log lines in the kubelet, no more.
fn remove_dead_instances(paths: &SocketPaths) {
    let Ok(entries) = fs::read_dir(paths.instances_dir()) else { return };
    for entry in entries.flatten() {
        let uid = entry.file_name().to_string_lossy().into_owned();
        let dead = uid != paths.pod_uid
            && File::open(entry.path())
                .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
        if dead {
            remove_sockets_of(paths, &uid);
            remove_if_there(&entry.path());
        }
    }
}

fn remove_sockets_of(paths: &SocketPaths, uid: &str) {
    let short: String = uid.chars().take(SHORT_UID).collect();
    for uid in [uid, &short] {
        remove_if_there(&paths.registry_dir.join(registration_name(&paths.driver_name, uid)));
        remove_if_there(&paths.plugin_dir.join(format!("dra-{uid}.sock")));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const UID: &str = "3f1b2c4d-0000-4000-8000-123456789abc";
    const OTHER: &str = "aaaaaaaa-0000-4000-8000-123456789abc";

    #[test]
    fn paths_fit_or_the_setting_to_change_is_named() {
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
        assert!(refused.to_string().ends_with("use a shorter --kubelet-root-dir"), "{refused}");
    }

    #[tokio::test]
    async fn sockets_of_dead_instances_go_and_those_of_live_ones_stay() {
        let root = tempfile::tempdir().unwrap();
        let paths = |uid| SocketPaths::new(root.path(), "d", uid).unwrap();
        let (dead, live, mine) = (paths("dead"), paths(OTHER), paths(UID));
        fs::create_dir_all(&mine.registry_dir).unwrap();
        let _alive = claim_instance(&live).await.unwrap();
        drop(claim_instance(&dead).await.unwrap());
        for path in [&dead.dra_path, &dead.registration_path, &live.dra_path, &live.registration_path] {
            fs::write(path, "").unwrap();
        }
        let _me = claim_instance(&mine).await.unwrap();
        assert!(!dead.dra_path.exists() && !dead.registration_path.exists());
        assert!(live.dra_path.exists() && live.registration_path.exists());
        assert!(matches!(claim_instance(&live).await, Err(SocketError::SameUid { .. })));
    }

    #[tokio::test]
    async fn no_other_user_can_open_what_an_instance_locks() {
        let root = tempfile::tempdir().unwrap();
        let paths = SocketPaths::new(root.path(), "d", UID).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        // As an earlier version made them.
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
    async fn who_wants_to_be_alone_waits_for_the_last_instance_but_not_for_ever() {
        let root = tempfile::tempdir().unwrap();
        let paths = |uid| SocketPaths::new(root.path(), "d", uid).unwrap();
        let patience = Duration::from_mins(1);
        assert!(wait_alone(&paths(UID), patience).await.unwrap().is_none());
        assert!(!paths(UID).plugin_dir.exists());
        let instance = claim_instance(&paths(OTHER)).await.unwrap();
        let refused = wait_alone(&paths(UID), patience).await.unwrap_err().to_string();
        assert!(
            refused.ends_with(
                "still works in {} after 60 s: end the plugin's pod on this node (will retry)"
                    .replace("{}", &paths(UID).plugin_dir.display().to_string())
                    .as_str()
            ),
            "{refused}"
        );
        let ending = async {
            sleep(patience / 2).await;
            drop(instance);
        };
        let own_paths = paths(UID);
        let (alone, ()) = tokio::join!(wait_alone(&own_paths, patience), ending);
        assert!(alone.unwrap().is_some());
    }

    #[tokio::test]
    async fn the_last_instance_leaves_no_folder_of_earlier_ones() {
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
