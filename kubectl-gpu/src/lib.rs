// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu`: shows what the GPUs of a cluster do, and why a pod waits for one.
//!
//! ```text
//! kubeconfig ── access ──> client ── dra_explain ──> slices, claims, pods ── status, faults, top (pure) ──┐
//!                                              └──> why, fit (pure) ──────────────────────────────────────┴─ table, or JSON or YAML
//! ```
//!
//! The program has the rights of its user, and names those that are missing. Only `drain`, `undrain`, `clear` and `migrate` change
//! anything. It runs where `kubectl` runs. `verify`, `doctor` and `clear` start a program in the pod of the driver on a node (`exec`).
//!
//! Reading order: [`args`], [`access`], [`bar`], [`table`], [`status`], [`age`], [`why_table`], [`manifest`], [`fit`], [`target`],
//! [`rules`], [`holders`], [`drain`], [`faults`], [`service_reading`], [`metrics_text`], [`top`], [`top_reading`], [`driver_pods`],
//! [`exec`], [`clear`], [`verify`], [`support`], [`doctor`], [`doctor_reading`], [`report`], [`migrate`], [`output`], [`error`], [`watch`],
//! [`completion`], [`app`].

pub mod args;

pub mod access;

pub mod bar;

pub mod table;

pub mod status;

pub mod age;

pub mod why_table;

pub mod manifest;

pub mod fit;

pub mod target;

pub mod rules;

pub mod holders;

pub mod drain;

pub mod faults;

pub mod service_reading;

pub mod metrics_text;

pub mod top;

pub mod top_reading;

pub mod driver_pods;

pub mod exec;

pub mod clear;

pub mod verify;

pub mod support;

pub mod doctor;

pub mod doctor_reading;

pub mod report;

pub mod migrate;

pub mod output;

pub mod error;

pub mod watch;

mod commands;

mod clearing;

mod verifying;

mod doctoring;
mod health_commands;

mod draining;

mod migrating;

pub mod completion;

pub mod app;
