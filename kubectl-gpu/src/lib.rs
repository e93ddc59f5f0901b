// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu`: shows what the GPUs of a cluster do, and why a pod waits for one.
//!
//! ```text
//! kubeconfig ── access ──> client ── dra_explain ──> slices, claims, pods ── status (pure) ──┐
//!                                              └──> why, fit (pure) ─────────────────────────┴─ table, or JSON or YAML
//! ```
//!
//! The program only reads, with the rights of its user, and names the rights that are missing. It runs where `kubectl` runs.
//!
//! Reading order: [`args`], [`access`], [`bar`], [`table`], [`status`], [`age`], [`why_table`], [`manifest`],
//! [`fit`], [`output`], [`error`], [`completion`], [`app`].

pub mod args;

pub mod access;

pub mod bar;

pub mod table;

pub mod status;

pub mod age;

pub mod why_table;

pub mod manifest;

pub mod fit;

pub mod output;

pub mod error;

mod commands;

pub mod completion;

pub mod app;
