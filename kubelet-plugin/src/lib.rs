// SPDX-License-Identifier: Apache-2.0
//! The gRPC services a kubelet calls on a node with GPUs.
//!
//! ```text
//! kubelet ── registration ──────────────┐
//! kubelet ── dra_service ── claims ─────┼── dra_prepare::Engine ── hardware, CDI specs, records
//!                             ├─ fetch  │ (one GET per prepare)
//!                             └─ report │ (status.devices, Events)
//! controller ── node_service ── observe ┘ (inventory, registered)
//! ```
//!
//! It never lists or writes ResourceSlices. Everything that blocks (NVML, files, locks) runs on blocking threads.
//!
//! Reading order: [`args`], [`app`], [`sockets`], [`registration`], [`dra_service`], [`claims`], [`fetch`], [`news`],
//! [`daemons`], [`shown`], [`note`], [`outbox`], [`report`], [`reporter`], [`observe`], [`node_service`], [`reconcile`], [`readiness`],
//! [`promises`], [`restore`], [`metrics`]. Daemons of MPS are in a process of their own, which `dra_mps_api::MpsClient` asks.

pub mod args;

pub mod app;

pub mod sockets;

pub mod registration;

pub mod dra_service;

pub mod claims;

pub mod claim_api;

pub mod fetch;

pub mod news;

pub mod daemons;

pub mod shown;

pub mod note;

pub mod outbox;

pub mod report;

pub mod reporter;

pub mod observe;

pub mod node_service;

pub mod reconcile;

pub mod readiness;

pub mod promises;

pub mod restore;

pub mod metrics;
