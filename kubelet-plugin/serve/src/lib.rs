// SPDX-License-Identifier: Apache-2.0
//! gRPC servers on unix sockets with bounded cost: connections, calls, streams, bytes and time.
//!
//! The processes of a node share this. Nothing here knows GPUs, claims or a protocol.
//!
//! Reading order: [`socket`], [`server`].

pub mod socket;

pub mod server;

pub use server::{Bounds, StreamLimit, serve, stopping};
pub use socket::{BindError, MAX_SOCKET_PATH, bind, remove_if_there};
