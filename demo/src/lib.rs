// SPDX-License-Identifier: Apache-2.0
//! The features of the driver as scenes on a real cluster.
//!
//! ```text
//! Repository -> driver::build_image, install -> Cluster with the driver -> scenes -> what the pods saw
//! ```
//!
//! A scene applies one file of `demo/workloads`, waits, and returns what pods and
//! users were shown; it never judges. `gpu-demo` prints the answers, the
//! end-to-end tests assert them. Nothing here knows how the cluster is made.

pub mod driver;
mod error;
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
