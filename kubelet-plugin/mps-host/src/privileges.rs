// SPDX-License-Identifier: Apache-2.0
//! The rights of a daemon and its servers: those of the host, which is privileged, less all that MPS works without.
//!
//! They are given up for good before the control program is run: neither it nor what it starts gets them back, and none of
//! them gets rights by running a program that gives some; what they may ask of the kernel is reduced as well. A server of a user other than root has none at all.

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, capability_is_in_bounding_set, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_no_new_privs,
};

use crate::system_calls;

/// What root may still do.
const RETAINED: CapabilitySet = CapabilitySet::empty()
    // The daemon starts servers as the users of their clients (seen: setuid).
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    // It ends servers and clients of other users.
    .union(CapabilitySet::KILL)
    // Root's server shares files in /dev/shm with clients of other users, who own them, and removes them.
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    // The daemon looks at the namespaces of its clients in /proc (seen: /proc/PID/ns/pid).
    .union(CapabilitySet::SYS_PTRACE)
    // Servers pin memory, more than a limit may allow.
    .union(CapabilitySet::IPC_LOCK);

/// Gives up all others.
pub fn reduce() -> io::Result<()> {
    for capability in all()? {
        if !RETAINED.contains(capability) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    clear_ambient_capability_set()?;
    set_no_new_privs(true)?;
    system_calls::reduce()
}

/// Every capability that this kernel knows, also those that came after this program.
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
