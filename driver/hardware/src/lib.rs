// SPDX-License-Identifier: Apache-2.0
//! What this machine has and can be told to do.
//!
//! [`machine`] is the port to the GPUs, owned here and answered by NVML or by the simulator; discovery turns its answers
//! and sysfs into an inventory.

pub mod machine;

pub use machine::{GpuSelector, Machine, MachineError};
