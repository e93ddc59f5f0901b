// SPDX-License-Identifier: Apache-2.0
//! Container Device Interface specs of prepared claims.
//!
//! Every allocated device is two CDI devices, so that the long part exists once per driver version:
//!
//! ```text
//! k8s.gpu.nvidia.com-base_550.54.15.json     kind k8s.gpu.nvidia.com/base     device 550.54.15
//!     libraries, programs, control nodes; NVIDIA_VISIBLE_DEVICES=void keeps NVIDIA's own runtime from doing it again
//! k8s.gpu.nvidia.com-claim_<uid>.json        kind k8s.gpu.nvidia.com/claim    devices <uid>-<device name>
//!     the nodes of that device, nothing else
//! ```
//!
//! Runtimes apply edits in request order and let a later variable, node or mount replace an earlier one of the same
//! name. So two claims in one container add up: their base is the same device, equal nodes replace each other, and a
//! claim sets no variable, since the variable of one claim would undo that of the other.
//!
//! Reading order: [`names`], [`spec`], [`render`], [`store`].

pub mod names;

pub mod spec;

pub mod render;

pub mod store;

pub use names::{Kind, Naming};
pub use render::{Architecture, ClaimDevice, RenderError, RenderedSpec};
pub use store::{Ensured, SpecStore, SpecStoreError};
