// SPDX-License-Identifier: Apache-2.0
//! The gRPC services that the kubelet calls on a node with GPUs.
//!
//! ```text
//! kubelet ── registration ──────────────┐
//! kubelet ── dra_service ── claims ─────┼── dra_prepare::Engine ── hardware, CDI specs, records
//!                             ├─ fetch  │ (one GET per prepare)
//!                             └─ report │ (status.devices, Events)
//! controller ── node_service ── observe ┘ (inventory, registered)
//! ```
//!
//! This crate never lists or writes ResourceSlices. Calls that block (NVML, files, locks) run on blocking threads. The MPS daemons
//! run in the MPS host, another process, which `dra_mps_api::MpsClient` calls.
//!
//! Reading order: [`args`], [`app`], [`sockets`], [`registration`], [`dra_service`], [`claims`], [`prepared_claim`], [`claim_api`], [`fetch`], [`report`],
//! [`outbox`], [`report_channel`], [`reporter`], [`event_text`], [`mps_warning`], [`daemon_states`], [`daemon_watch`], [`failed_daemons`], [`report_schedule`],
//! [`sharing_status`], [`static_mig_file`], [`static_mig`], [`observe`], [`node_service`], [`health`], [`reconcile`], [`readiness`], [`prepared_shares`], [`restore`],
//! [`host_args`], [`driver_text`], [`cdi_print`], [`json_report`], [`spec_report`], [`claim_print`], [`node_doctor`], [`metrics`].

pub mod args;

pub mod app;

pub mod sockets;

pub mod registration;

pub mod registration_socket;

pub mod dra_service;

pub mod claims;

pub mod prepared_claim;

pub mod claim_api;

pub mod fetch;

pub mod report;

pub mod outbox;

pub mod report_channel;

pub mod reporter;

pub mod event_text;

pub mod mps_warning;

pub mod daemon_states;

pub mod daemon_watch;

pub mod failed_daemons;

pub mod report_schedule;

pub mod sharing_status;

pub mod static_mig_file;

pub mod static_mig;

pub mod inventory_file;

pub mod observe;

pub mod node_service;

pub mod health;

pub mod reconcile;

pub mod readiness;

pub mod prepared_shares;

pub mod restore;

pub mod host_args;

pub mod driver_text;

pub mod cdi_print;

pub mod json_report;

pub mod spec_report;

pub mod claim_print;

pub mod node_doctor;

pub mod monitoring;

pub mod mig_metrics;

pub mod metrics;
