// SPDX-License-Identifier: Apache-2.0
//! Safe access to the NVIDIA management library.
//!
//! In come the path of a `libnvidia-ml.so.1` and questions, out go plain numbers and strings or the numeric code NVML
//! answered with. Nothing here knows of the domain model. What changes the machine is named `set_…`.
//!
//! ```text
//! Session (which file, load, load again) -> Nvml (one loaded and initialised library) -> Device -> answers
//! ```
//!
//! Rules of this crate, the only one with `unsafe`:
//! * `nvml-wrapper` loads, initialises and shuts down; it also asks what it asks correctly. Everything it lacks or gets
//!   wrong goes through the fields (never the methods, which panic) of `NvmlLib`.
//! * No handle leaves this crate: GPU and compute instance handles live within one function, because they die with
//!   the instance; device handles borrow the [`Nvml`] they came from.
//! * NVML is documented to be thread-safe, so everything public is `Send + Sync`; every call may block in the kernel.
#![expect(unsafe_code, reason = "this crate is the boundary to a C library; nothing above it needs unsafe")]

pub mod error;

pub mod session;

pub mod library;

pub mod device;

pub mod mig;

pub use device::{Device, Memory};
pub use error::{LoadError, NvmlError};
pub use library::Nvml;
pub use mig::{ComputeInstance, GpuInstance, GpuInstanceProfile, MigAttributes, Slices};
pub use session::Session;
