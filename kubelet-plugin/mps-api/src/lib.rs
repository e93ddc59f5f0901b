// SPDX-License-Identifier: Apache-2.0
//! The protocol between the kubelet plugin and the MPS host in values of the driver.
//!
//! [`wire`] converts values of the port `dra_hardware::Daemons` into messages and back, for both ends of the socket;
//! [`client`] implements that port over the socket. The plugin and the MPS host use this crate and not each other.
//!
//! Reading order: [`observed`], [`ids`], [`wire`], [`failed`], [`client`].

pub mod observed;

pub mod ids;

pub mod wire;

pub mod failed;

pub mod client;

pub use client::{MpsClient, SocketPathError};
pub use failed::FailedDaemons;
pub use ids::is_ours;
pub use observed::{ObservedDaemon, ObservedDaemons};
pub use wire::DaemonChange;
