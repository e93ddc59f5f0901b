// SPDX-License-Identifier: Apache-2.0
//! Judges the health of GPUs: signals in, findings out. Pure: no I/O and no clock.
//!
//! ```text
//! XIDs, answers of polls -> GpuHealth (faults of one GPU, with their proof of recovery) -> findings, by the policy -> budget of the node
//! Leases of the cluster -> slots, of which an evicting node has one
//! ```
//!
//! A fault ends only by proof or by an administrator, never by silence. What is remembered is a value that callers keep on disk.
//! Reading order: [`xid`], [`policy`], [`gpu`], [`budget`], [`slots`].

pub mod xid;

pub mod policy;

pub mod gpu;

pub mod budget;

pub mod slots;

pub use budget::{evicting, hold_back, within_budget};
pub use gpu::{Answer, GpuHealth, Signal};
pub use policy::{Fault, Policy, Replacement, Rule};
