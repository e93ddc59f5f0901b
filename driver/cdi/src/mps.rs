// SPDX-License-Identifier: Apache-2.0
//! The edits that make the processes of a container clients of an MPS daemon: the directories of the daemon, and the limits of
//! the share as environment variables. Pure.
//!
//! A client finds the daemon by `CUDA_MPS_PIPE_DIRECTORY` and exchanges data with the server through `/dev/shm`. The parent of
//! the pipe directory is mounted: a daemon that is restarted creates a new pipe directory, and running containers see it.
//!
//! Limits in the environment can lower the limits of the daemon and never raise them. They name the device by its index among
//! those of the daemon. A value with the UUID of a GPU that the client does not see is ignored as a whole, limits included
//! (NVIDIA, Multi-Process Service, environment variables).

use std::path::{Path, PathBuf};

use dra_model::ShareLimits;

use crate::error::{RenderError, absolute};
use crate::spec::CdiMount;

/// The edits for one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MpsClient {
    /// The parent of the pipe directory, on the host.
    pub run_dir: PathBuf,
    /// The shared memory of the daemon and its clients, on the host.
    pub shm_dir: PathBuf,
    /// The limits of a share; empty if the daemon itself has the limits.
    pub limits: ShareLimits,
}

const RUN_DIR: &str = "/tmp/nvidia-mps";

const SHM_DIR: &str = "/dev/shm";

/// Connecting to a socket does not need write access to its directory. With write access, root in a container could create
/// symlinks in the directory where the daemon, root on the host, creates its files.
const RUN_OPTIONS: &[&str] = &["ro", "nosuid", "nodev", "noexec", "rbind", "rprivate"];

/// Clients and server create files there.
const SHM_OPTIONS: &[&str] = &["rw", "nosuid", "nodev", "rbind", "rprivate"];

pub(crate) fn env(client: &MpsClient) -> Vec<String> {
    let ShareLimits { memory, threads } = client.limits;
    let pipe = format!("CUDA_MPS_PIPE_DIRECTORY={RUN_DIR}/pipe");
    let memory = memory.map(|memory| format!("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0={}M", memory.mib()));
    let threads = threads.map(|threads| format!("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE={threads}"));
    [Some(pipe), memory, threads].into_iter().flatten().collect()
}

pub(crate) fn mounts(client: &MpsClient) -> Result<Vec<CdiMount>, RenderError> {
    Ok(vec![mount(&client.run_dir, RUN_DIR, RUN_OPTIONS)?, mount(&client.shm_dir, SHM_DIR, SHM_OPTIONS)?])
}

fn mount(from: &Path, to: &str, options: &'static [&'static str]) -> Result<CdiMount, RenderError> {
    Ok(CdiMount { host_path: absolute(from)?, container_path: to.to_owned(), options })
}
