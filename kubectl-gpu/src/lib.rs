// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu`: shows what the GPUs of a cluster do, and why a pod waits for one.
//!
//! ```text
//! kubeconfig ── access ──> client ── dra_explain ──> slices, claims, pods ── status (pure) ──┐
//!                                              └──> why, fit (pure) ─────────────────────────┴─ table, or JSON or YAML
//! ```
//!
//! The program has the rights of its user, and names those that are missing. It runs where `kubectl` runs. `verify`, `doctor` and `clear`
//! start a program in the pod of the driver on a node (`exec`).
//!
//! Reading order: [`args`], [`access`], [`bar`], [`table`], [`status`], [`age`], [`why_table`], [`manifest`], [`fit`], [`target`],
//! [`driver_pods`], [`exec`], [`clear`], [`verify`], [`support`], [`doctor`], [`doctor_reading`], [`report`], [`output`], [`error`],
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

pub mod driver_pods;

pub mod exec;

pub mod clear;

pub mod verify;

pub mod support;

pub mod doctor;

pub mod doctor_reading;

pub mod report;

pub mod output;

pub mod error;

mod commands;

mod clearing;

mod verifying;

mod doctoring;

pub mod completion;

pub mod app;
