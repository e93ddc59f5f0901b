// SPDX-License-Identifier: Apache-2.0
//! Judges the health of GPUs: signals in, findings out. Pure: no I/O and no clock.
//!
//! ```text
//! XIDs, answers of polls -> GpuHealth (faults of one GPU, with their proof of recovery) -> findings, by the policy -> budget
//! ```
//!
//! A fault ends only by proof or by an administrator, never by silence. What is remembered is a value that callers keep on disk.
//! Reading order: [`xid`], [`policy`], [`gpu`], [`budget`].

pub mod xid;

pub mod policy;

pub mod gpu;

pub mod budget;

pub use budget::within_budget;
pub use gpu::{Answer, GpuHealth, Signal};
pub use policy::{Fault, Policy, Replacement, Rule};
