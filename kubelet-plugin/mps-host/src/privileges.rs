// SPDX-License-Identifier: Apache-2.0
//! The privileges of a daemon and its servers: those of the privileged MPS host without all that MPS does not need.
//!
//! They are dropped before the control program runs, irrevocably: neither the program nor its children regain them, also not
//! by executing a setuid program. System calls are filtered as well. A server of a user other than root has no capabilities.

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, capability_is_in_bounding_set, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_no_new_privs,
};

use crate::system_calls;

/// The capabilities of root that stay.
const RETAINED: CapabilitySet = CapabilitySet::empty()
    // The daemon starts servers as the users of their clients (seen: setuid).
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    // The daemon kills servers and clients of other users.
    .union(CapabilitySet::KILL)
    // The server of root shares files in /dev/shm with clients of other users, who own them, and removes them.
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    // The daemon reads the namespaces of its clients in /proc (seen: /proc/PID/ns/pid).
    .union(CapabilitySet::SYS_PTRACE)
    // Servers pin memory beyond RLIMIT_MEMLOCK.
    .union(CapabilitySet::IPC_LOCK);

/// Drops all other privileges.
pub fn drop_all() -> io::Result<()> {
    for capability in all()? {
        if !RETAINED.contains(capability) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    clear_ambient_capability_set()?;
    set_no_new_privs(true)?;
    system_calls::apply_filters()
}

/// Every capability of this kernel, also those that are newer than this program.
fn all() -> io::Result<Vec<CapabilitySet>> {
    let mut found = Vec::new();
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(capability) {
            Ok(_is_there) => found.push(capability),
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(found)
}
