// SPDX-License-Identifier: Apache-2.0
//! Takes from this process what it does not need, so that a fault of it is worth little to an image.
//!
//! The hook runs as root of the container's user namespace with all capabilities, and while the filesystem of the host is
//! still visible. It keeps the capabilities to write files of any owner and to set the owner of a file, and CAP_SYS_ADMIN until
//! the last mount. System calls that it does not make fail with EPERM.

use std::io;

use rustix::fs::Mode;
use rustix::process::umask;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs};

use crate::system_calls::{self, Phase};

/// The process keeps too much, so it must not touch the container.
#[derive(Debug, thiserror::Error)]
pub enum RestrictError {
    #[error("failed to forbid new privileges")]
    NewPrivileges {
        #[source]
        source: io::Error,
    },
    #[error("failed to drop capabilities")]
    Capabilities {
        #[source]
        source: io::Error,
    },
    #[error("failed to limit system calls")]
    SystemCalls {
        #[source]
        source: io::Error,
    },
}

/// Limits the process, and all threads that it starts, to what one phase needs. Limits only become stricter.
///
/// They apply to the calling thread, so it must be the only one.
pub fn limit(phase: Phase) -> Result<(), RestrictError> {
    umask(Mode::empty());
    set_no_new_privs(true).map_err(|source| RestrictError::NewPrivileges { source: source.into() })?;
    drop_capabilities(phase).map_err(|source| RestrictError::Capabilities { source })?;
    system_calls::limit(phase).map_err(|source| RestrictError::SystemCalls { source })
}

fn drop_capabilities(phase: Phase) -> io::Result<()> {
    let files = CapabilitySet::DAC_OVERRIDE | CapabilitySet::CHOWN;
    let wanted = match phase {
        Phase::Mounts => files | CapabilitySet::SYS_ADMIN,
        Phase::Files => files,
    };
    let held = wanted & capabilities(None)?.permitted;
    Ok(set_capabilities(
        None,
        CapabilitySets { effective: held, permitted: held, inheritable: CapabilitySet::empty() },
    )?)
}
