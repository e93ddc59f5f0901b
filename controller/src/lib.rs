// SPDX-License-Identifier: Apache-2.0
//! Keeps the ResourceSlices of a node equal to its inventory.
//!
//! ```text
//! plugin ──unix socket──> view::stream ──┐
//! inventory file ───────> view::file ────┴─> NodeReport ─┐
//!                                                      ├─> publisher: debounce, list, pack, diff, apply
//! API server ──watch of own slices──> news ────────────┘          └─> events on the Node
//! ```
//!
//! Slices are written only while the plugin is connected and registered with the kubelet; otherwise nothing is written
//! and nothing deleted (the kubelet wipes the slices of a driver that stays away). Nothing here opens a device, reads a
//! claim or touches the host: the process runs without privileges and needs no path but the plugin's socket.
//!
//! Reading order: [`args`], [`app`], [`view`], [`publisher`].

pub mod args;

pub mod app;

pub mod node_report;

pub mod node_source;

pub mod publisher;

pub mod apply;

pub mod feature_support;

pub mod slice_events;

pub mod node_events;

pub mod withdraw;

pub mod node_cleanup;

pub mod check;

pub mod cluster;

pub mod rate_limits;

pub mod repeated_failures;

pub mod metrics;
