// SPDX-License-Identifier: Apache-2.0
//! A simulated machine with NVIDIA GPUs.
//!
//! One engine with two interfaces:
//!
//! ```text
//! catalog (GPU models as data) -> engine::State --+-> simulator::Simulator      in this process, for crash and property tests
//!                                                 +-> store::Store (state.json) -> library/ = libnvidia-ml.so.1, gpu-sim, tree/
//! ```
//!
//! The engine is pure and synchronous: it has no clock, no files and no threads. A difference from a real GPU is a bug of the
//! simulator and is fixed in its data or in its rules, each of which names its source.

pub mod catalog;
pub mod code;
pub mod engine;
pub mod identity;
pub mod machine;
pub mod simulator;
pub mod state;
pub mod store;
pub mod tree;

pub use code::Code;
pub use simulator::Simulator;
pub use state::{Setup, State};
