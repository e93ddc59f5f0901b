// SPDX-License-Identifier: Apache-2.0
//! What makes the processes of a container clients of an MPS daemon: its directories, and the limits of the share as
//! environment. Pure.
//!
//! A client finds the daemon by `CUDA_MPS_PIPE_DIRECTORY` and exchanges data with the server through `/dev/shm`. What is
//! mounted is the folder that holds the pipe directory: a daemon that is started again makes a fresh pipe directory, which
//! containers that run already then see as well.
//!
//! Limits in the environment can lower what the daemon allows and never raise it. They name the device by its place among
//! those of the daemon: a string with the UUID of a GPU that the client does not see is dropped as a whole, limits included
//! (NVIDIA, Multi-Process Service, environment variables).

use std::path::{Path, PathBuf};

use dra_model::ShareLimits;

use crate::error::{RenderError, absolute};
use crate::spec::CdiMount;

/// A container as the client of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MpsClient {
    /// The folder that holds the daemon's pipe directory, on the host.
    pub run_dir: PathBuf,
    /// The shared memory of the daemon and its clients, on the host.
    pub shm_dir: PathBuf,
    /// Of a share; nothing where the daemon itself has the limits.
    pub limits: ShareLimits,
}

const RUN_DIR: &str = "/tmp/nvidia-mps";

const SHM_DIR: &str = "/dev/shm";

/// Connecting to a socket needs no right to write to its folder. With it, root in a container could plant symlinks where
/// the daemon, root on the host, makes its files.
const RUN_OPTIONS: &[&str] = &["ro", "nosuid", "nodev", "noexec", "rbind", "rprivate"];

/// Clients and server make files there.
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
