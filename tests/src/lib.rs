// SPDX-License-Identifier: Apache-2.0
//! The product from outside: a node in a temporary directory, and what stands around it.
//!
//! ```text
//! simulated GPUs (dra-sim) <- plugin <-> kubelet (fake, real gRPC)
//!                             | |  \
//!  mps_host (fake, real gRPC) +  |   +-> api_server (fake, real HTTP)
//!                           controller
//! ```
//!
//! The plugin and the controller are the real ones, in this process or as processes. Nothing here sleeps: tests wait
//! for conditions. Reading order: [`wait`], [`api_server`], [`kubelet`], [`mps_host`], [`machine`], [`claim`],
//! [`containers`], [`program`], [`node`], [`prometheus`]; [`programs`] builds what is run, [`chart`] is rendered by helm,
//! [`source`] is for the checks of the source tree.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test harness stops at the first surprise, and says which"
)]

pub mod wait;

pub mod api_server;

pub mod kubelet;

pub mod mps_host;

pub mod programs;

pub mod machine;

pub mod claim;

pub mod containers;

pub mod disk;

pub mod program;

pub mod node;

pub mod chart;

pub mod prometheus;

pub mod source;

pub use api_server::ApiServer;
pub use claim::NewClaim;
pub use kubelet::Kubelet;
pub use mps_host::MpsHost;
pub use node::Node;
pub use program::Mode;
