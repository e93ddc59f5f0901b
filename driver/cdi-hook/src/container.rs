// SPDX-License-Identifier: Apache-2.0
//! Finds the root directory of the container from what the runtime writes to standard input.
//!
//! ```text
//! `root` of the state                    crun writes it, as config.json has it
//! `root.path` of config.json             where the OCI specification has it; `bundle` of the state is its directory
//! the working directory                  runc, if config.json cannot be read: in a user namespace the hook is another user
//! ```
//!
//! The first that is there is used. The working directory is accepted only if it is the root of a mount with a procfs below, and
//! neither the bundle nor `/`: other runtimes leave the hook in a directory of the host. The root of the host is never
//! accepted. `pid` is not used, because it is that of the container's PID namespace.
//!
//! Sources: `runtime.md` (State, Hooks) and `config.md` (Root) of the OCI runtime specification 1.2; `libcontainer/rootfs_linux.go`
//! of runc changes to the root before these hooks; `libcrun/container.c` of crun adds `root` to the state.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{PROC_SUPER_MAGIC, fstatfs};
use rustix::stdio::stdin;
use serde::Deserialize;

use crate::resolve::{self, ContainerRoot, Identity};

/// Bytes of the state. It has the annotations of the container, of which some runtimes make several from its volumes and commands.
pub const MAX_STATE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of config.json. That of a container is some ten thousands; an object of the API has at most 1.5 MiB, of which JSON may write
/// each byte as six.
const MAX_CONFIG_BYTES: u64 = 32 * 1024 * 1024;

/// The runtime writes the state before or just after the start of the hook.
const STATE_TIMEOUT: Duration = Duration::from_millis(400);

/// The root of the container is unknown.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("failed to read the state of the container from standard input")]
    State {
        #[source]
        source: io::Error,
    },
    #[error("the state of the container is no JSON of an OCI runtime")]
    Json {
        #[source]
        source: serde_json::Error,
    },
    #[error("`{}` is not an absolute path", .0.display())]
    Relative(PathBuf),
    #[error("failed to read {}", path.display())]
    Config {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is no configuration of an OCI runtime", path.display())]
    ConfigJson {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("failed to open the root directory {} of the container", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is the root directory of the host", .0.display())]
    Host(PathBuf),
    #[error("config.json cannot be read, and the working directory is not the root directory of a container")]
    WorkingDirectory,
}

/// The part of the state that is used.
#[derive(Debug, Deserialize)]
struct State {
    bundle: Option<PathBuf>,
    root: Option<PathBuf>,
}

/// The part of config.json that is used.
#[derive(Debug, Deserialize)]
struct Config {
    root: ConfigRoot,
}

#[derive(Debug, Deserialize)]
struct ConfigRoot {
    path: PathBuf,
}

/// Opens the root directory of the container whose state is on standard input.
pub fn root() -> Result<ContainerRoot, ContainerError> {
    let state = read_state().map_err(|source| ContainerError::State { source })?;
    let State { bundle, root } = serde_json::from_slice(&state).map_err(|source| ContainerError::Json { source })?;
    let path = match (root, bundle) {
        (Some(root), bundle) => bundle.unwrap_or_default().join(root),
        (None, Some(bundle)) => match configured_root(&bundle) {
            Err(ContainerError::Config { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                return working_directory(&bundle);
            }
            root => root?,
        },
        (None, None) => return Err(ContainerError::Relative(PathBuf::new())),
    };
    let absolute = if path.is_absolute() { path } else { return Err(ContainerError::Relative(path)) };
    let open = || {
        let dir = resolve::host_dir(&absolute)?;
        Ok((is_root_of_host(&dir)?, dir))
    };
    match open() {
        Ok((false, dir)) => Ok(ContainerRoot::new(dir)),
        Ok((true, _)) => Err(ContainerError::Host(absolute)),
        Err(source) => Err(ContainerError::Open { path: absolute, source }),
    }
}

/// Reads to the end of the input, never longer than the timeout for each part.
fn read_state() -> io::Result<Vec<u8>> {
    let (mut state, mut part) = (Vec::new(), [0; 16 * 1024]);
    let timeout = Timespec::try_from(STATE_TIMEOUT).or(Err(io::ErrorKind::InvalidInput))?;
    while state.len() <= MAX_STATE_BYTES {
        if poll(&mut [PollFd::new(&stdin(), PollFlags::IN)], Some(&timeout))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match rustix::io::read(stdin(), &mut part)? {
            0 => return Ok(state),
            bytes => state.extend(part.iter().take(bytes)),
        }
    }
    Err(io::ErrorKind::FileTooLarge.into())
}

/// `root.path`, which may be relative to the bundle.
fn configured_root(bundle: &Path) -> Result<PathBuf, ContainerError> {
    if !bundle.is_absolute() {
        return Err(ContainerError::Relative(bundle.to_owned()));
    }
    let path = bundle.join("config.json");
    let read = resolve::host_file(&path, MAX_CONFIG_BYTES);
    let bytes = read.map_err(|source| ContainerError::Config { path: path.clone(), source })?;
    let config: Config =
        serde_json::from_slice(&bytes).map_err(|source| ContainerError::ConfigJson { path, source })?;
    Ok(bundle.join(config.root.path))
}

fn working_directory(bundle: &Path) -> Result<ContainerRoot, ContainerError> {
    let path = PathBuf::from(".");
    let check = || {
        let dir = resolve::host_dir(&path)?;
        let is_bundle = std::env::current_dir().is_ok_and(|path| path == bundle)
            || resolve::host_dir(bundle)
                .and_then(Identity::of)
                .is_ok_and(|bundle| Identity::of(&dir).is_ok_and(|dir| dir.is_same_file(&bundle)));
        let is_usable = Identity::of(&dir)?.is_mount_root && !is_root_of_host(&dir)? && !is_bundle;
        let root = ContainerRoot::new(dir);
        Ok((is_usable && has_procfs(&root), root))
    };
    match check() {
        Ok((true, root)) => Ok(root),
        Ok((false, _)) => Err(ContainerError::WorkingDirectory),
        Err(source) => Err(ContainerError::Open { path, source }),
    }
}

/// Whether a directory is the root that this process has, which before the change to the container's root is the host's.
fn is_root_of_host(dir: &OwnedFd) -> io::Result<bool> {
    let host = Identity::of(resolve::host_dir(Path::new("/"))?)?;
    Ok(Identity::of(dir)?.is_same_file(&host))
}

fn has_procfs(root: &ContainerRoot) -> bool {
    let found = root.find(Path::new("proc")).and_then(|proc| Ok(fstatfs(proc)?));
    found.is_ok_and(|filesystem| filesystem.f_type == PROC_SUPER_MAGIC)
}
