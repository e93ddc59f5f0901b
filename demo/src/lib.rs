// SPDX-License-Identifier: Apache-2.0
//! Scenes that show the features of the driver on a real cluster.
//!
//! ```text
//! Repository -> driver::build_image, install -> Cluster with the driver -> scenes -> GPUs of the pods
//! ```
//!
//! A scene applies one file of `demo/workloads`, waits, and returns its observations. `gpu-demo` prints them, the end-to-end tests
//! assert them. The crate `dra-cluster` creates the cluster.

pub mod driver;
mod error;
pub mod monitoring;
pub mod published;
mod repository;
pub mod scenes;
mod seen;
pub mod settings;
mod stage;

pub use error::{DemoError, Doing, Result};
pub use repository::Repository;
pub use seen::{Seen, SeenGpu, SeenMig};
pub use stage::{PodSaw, Stage, refusals, text, texts};
