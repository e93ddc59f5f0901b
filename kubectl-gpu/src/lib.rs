// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu`: shows what the GPUs of a cluster do, and why a pod waits for one.
//!
//! ```text
//! kubeconfig ── access ──> client ── reading ──> slices, claims, pods ──┐
//!                         pod or claim ── subject_reading ──> subject ──┤
//!                                            status, why (pure) <───────┘
//!                                                    └── table, or JSON or YAML ──> standard output, exit code
//! ```
//!
//! The program only reads, with the rights of its user, and names the rights that are missing. It runs where `kubectl` runs.
//!
//! Reading order: [`args`], [`access`], [`request`], [`reading`], [`bar`], [`table`], [`status`], [`age`],
//! [`subject`], [`subject_reading`], [`why`], [`manifest`], [`fit`], [`output`], [`error`], [`completion`], [`app`].

pub mod args;

pub mod access;

pub mod request;

pub mod reading;

pub mod bar;

pub mod table;

pub mod status;

pub mod age;

pub mod subject;

pub mod subject_reading;

pub mod why;

pub mod manifest;

pub mod fit;

pub mod output;

pub mod error;

mod commands;

pub mod completion;

pub mod app;
