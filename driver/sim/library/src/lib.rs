// SPDX-License-Identifier: Apache-2.0
//! The simulated `libnvidia-ml.so.1`: NVML's C functions over the shared state of a simulated machine.
//!
//! ```text
//! C caller -> exports::* -> call::guard -> dra_sim::engine on a snapshot (reads) or under the lock (changes)
//! ```
//!
//! In: C arguments, trusted only as far as C allows. Out: NVML return codes and filled buffers. A panic never crosses the C
//! boundary. The types in [`ffi`] define the meaning of each pointer; the exported functions themselves are safe code.
//! Functions that are not simulated answer `NOT_SUPPORTED`, because Go clients abort on a missing symbol.
#![expect(unsafe_code, reason = "a C interface: exported symbols and the caller's pointers")]

mod call;
mod ffi;
mod handle;
mod session;
mod exports {
    pub(crate) mod condition;
    pub(crate) mod control;
    pub(crate) mod errors;
    pub(crate) mod events;
    pub(crate) mod fields;
    pub(crate) mod identity;
    pub(crate) mod lookup;
    pub(crate) mod mig_compute;
    pub(crate) mod mig_gpu;
    pub(crate) mod private;
    pub(crate) mod processes;
    pub(crate) mod statistics;
    pub(crate) mod system;
    pub(crate) mod topology;
    pub(crate) mod unsupported;
}
