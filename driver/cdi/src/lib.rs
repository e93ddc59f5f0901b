// SPDX-License-Identifier: Apache-2.0
//! Container Device Interface specs of prepared claims.
//!
//! Every allocated device consists of two or more CDI devices, so that the long part exists once per driver version:
//!
//! ```text
//! k8s.gpu.nvidia.com-base_550.54.15.json     kind k8s.gpu.nvidia.com/base     devices 550.54.15, 550.54.15-<capability>
//!     libraries, programs, control nodes of the capabilities compute and utility, or of one capability, with the hook
//!     `gpu-cdi-hook`; NVIDIA_VISIBLE_DEVICES=void disables the injection by NVIDIA's container runtime
//! k8s.gpu.nvidia.com-claim_<uid>.json        kind k8s.gpu.nvidia.com/claim    devices <uid>-<device name>
//!     the nodes of that device, and for clients of an MPS daemon its directories and limits
//! ```
//!
//! Runtimes apply edits in request order and let a later variable, node or mount replace an earlier one of the same
//! name. So two claims in one container can be combined: their base is the same device, and equal nodes replace each other.
//! Two claims with MPS cannot: a process is a client of one daemon, and the last claim selects it.
//!
#![doc = include_str!("../nvidia-toolkit.md")]
//!
//! Reading order: [`names`], [`spec`], [`error`], [`mps`], [`render`], [`store`], [`hook_program`].

pub mod names;

pub mod spec;

pub mod error;

pub mod mps;

pub mod render;

pub mod store;

pub mod hook_program;

pub use error::RenderError;
pub use hook_program::{HookProgram, HookProgramError, HookSettings};
pub use mps::MpsClient;
pub use names::{Kind, Naming};
pub use render::{Architecture, ClaimDevice, RenderedSpec};
pub use store::{Ensured, SpecStore, SpecStoreError};
