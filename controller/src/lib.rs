// SPDX-License-Identifier: Apache-2.0
//! Publishes the inventory of a node as ResourceSlices.
//!
//! ```text
//! plugin ──unix socket──> node_source::stream ─┐
//! inventory file ───────> node_source::file ───┴─> NodeReport ─┐
//!                                                              ├─> publisher: debounce, list, pack, diff, apply
//! API server ──watch of own slices──> slice_events ────────────┘          └─> Events about the Node
//! ```
//!
//! Slices are written and deleted only while the plugin is connected and registered with the kubelet; the kubelet deletes the
//! slices of a driver that stays disconnected. The process opens no device, reads no claim and changes nothing on the host: it
//! runs without privileges and needs only the plugin's socket.
//!
//! Reading order: [`args`], [`app`], [`node_report`], [`publisher`].

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

mod workload;

pub mod rate_limits;

pub mod repeated_failures;

pub mod metrics;
