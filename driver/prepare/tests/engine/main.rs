// SPDX-License-Identifier: Apache-2.0
//! The engine on a node of its own: a machine in memory, and a driver root, procfs and device nodes in a directory.
//!
//! Making device nodes needs root.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its builders too"
)]

mod cases;
mod claims;
mod configurations;
mod crash;
mod daemons;
mod deadline;
mod machine;
mod make_way;
mod messages;
mod mig;
mod mig_node;
mod mig_scenarios;
mod node;
mod parallel;
mod pending_restores;
mod quarantine;
mod reconcile;
mod scenarios;
mod sharing;
mod static_mig;
