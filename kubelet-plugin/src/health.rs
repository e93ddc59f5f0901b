// SPDX-License-Identifier: Apache-2.0
//! The health of the GPUs of this node.
//!
//! ```text
//! watch (a thread per GPU: events of NVML) -+-> monitor -> dra_health::GpuHealth -> findings -> NodeState -> controller -> taints
//! monitor (polls)                          -+       \-> store (disk)   ^        \-> Events on the Node
//!                       permit (Leases of the cluster) ----------------+
//! ```

pub mod store;

pub mod metrics;

pub mod clear;

pub mod permit;

pub mod watch;

pub mod monitor;

pub mod service;
