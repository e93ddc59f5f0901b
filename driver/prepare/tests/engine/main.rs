// SPDX-License-Identifier: Apache-2.0
//! The engine on a node of its own: a machine made of memory, a driver root, procfs and device nodes in a folder.
//!
//! Making device nodes needs root.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its builders too"
)]

mod configurations;
mod crash;
mod daemons;
mod deadline;
mod doubts;
mod holders;
mod life;
mod lives;
mod messages;
mod node;
mod owed;
mod parallel;
mod reconcile;
mod sharing;
mod twin;
