// SPDX-License-Identifier: Apache-2.0
//! Safe access to the NVIDIA management library.
//!
//! A caller passes the path of a `libnvidia-ml.so.1` and gets plain numbers and strings, or the numeric code of NVML. This
//! crate does not use the domain model. Functions that change the machine are named `set_…`, `create_…` or `destroy_…`.
//!
//! ```text
//! Session (locates, loads and reloads the file) -> Nvml (one loaded and initialised library) -> Device -> answers
//!                                                                                       \-> EventSet -> events
//! ```
//!
//! Rules of this crate, the only one with `unsafe`:
//! * `nvml-wrapper` loads, initialises and shuts down the library, and serves the queries that it implements correctly. All
//!   others go through the fields (never the methods, which panic) of `NvmlLib`.
//! * No handle leaves this crate. A handle of a GPU instance or compute instance is used within one function, because it
//!   becomes invalid with the instance. A device handle borrows the [`Nvml`] that it came from.
//! * NVML is documented to be thread-safe, so everything public is `Send + Sync`. Every call may block in the kernel.
#![expect(unsafe_code, reason = "this crate is the boundary to a C library; nothing above it needs unsafe")]

pub mod error;

pub mod session;

pub mod library;

pub mod device;

pub mod mig;

pub mod instances;

pub mod fields;

pub mod events;

pub mod measurements;

pub mod nvlink;

pub use device::{Device, Memory};
pub use error::{LoadError, NvmlError};
pub use events::{Event, EventSet};
pub use instances::Activation;
pub use library::Nvml;
pub use measurements::RemappedRows;
pub use mig::{ComputeInstance, GpuInstance, GpuInstanceProfile, MigAttributes, Slices};
pub use nvlink::{NvLinkErrors, NvLinks};
pub use session::Session;
