// SPDX-License-Identifier: Apache-2.0
//! Why a pod waits for its claims.
//!
//! ```text
//! client ── reading, cluster ──> slices, claims, classes, nodes ──┐
//! pod or claim ── subject_reading ──> subject ── why (pure) <─────┘──> the verdict, the nodes by reason, what would help
//! ```
//!
//! The crate only reads, with the rights of its client, and names those that are missing.
//!
//! Reading order: [`text`], [`request`], [`access`], [`reading`], [`cluster`], [`subject`], [`subject_reading`], [`why`],
//! [`brief`], [`pending`].

pub mod text;

pub mod request;

pub mod access;

pub mod reading;

pub mod cluster;

pub mod subject;

pub mod subject_reading;

pub mod why;

pub mod brief;

pub mod pending;
