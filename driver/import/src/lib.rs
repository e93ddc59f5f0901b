// SPDX-License-Identifier: Apache-2.0
//! Converts the sharing configuration of NVIDIA's device plugin, or the MIG layouts of mig-parted, to DeviceClasses,
//! ResourceClaimTemplates and values of the chart. Pure.
//!
//! ```text
//! ConfigMap, values or file -> document -+-> config  -> plan --------+-> render -> objects, values
//!                                         +-> layouts -> layout_plan -+
//!                                  └─────────┴────────────┴─> warnings ─> comments
//!               kubectl's slices -> published ────────────┘
//! ```
//!
//! Used by `gpu-import`, which reads files, and by `kubectl gpu migrate`, which reads the cluster.

pub mod import;

pub mod document;

pub mod files;

pub mod config;

pub mod keys;

pub mod limits;

pub mod published;

pub mod plan;

pub mod layout_plan;

pub mod layout_notes;

pub mod render;

pub mod warnings;

pub mod key_notes;
