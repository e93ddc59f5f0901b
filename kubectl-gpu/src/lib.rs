// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu`: shows what the GPUs of a cluster do.
//!
//! ```text
//! kubeconfig ── access ──> client ── reading ──> slices, claims, pods ──┐
//!                                                 status (pure) <───────┘
//!                                                    └── table, or JSON or YAML ──> standard output, exit code
//! ```
//!
//! The program only reads, with the rights of its user, and names the rights that are missing. It runs where `kubectl` runs.
//!
//! Reading order: [`args`], [`access`], [`reading`], [`bar`], [`status`], [`table`], [`output`], [`app`].

pub mod args;

pub mod access;

pub mod reading;

pub mod bar;

pub mod table;

pub mod status;

pub mod output;

pub mod app;
