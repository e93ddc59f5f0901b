// SPDX-License-Identifier: Apache-2.0
//! The MPS host as a process, with NVIDIA's own control program where that suffices, else with a script before it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod host;

mod lifecycle;

mod faults;

mod clients;

mod other_users;

mod shm;

mod kills;

mod gpu_faults;

mod scripts;

mod stand_in;
