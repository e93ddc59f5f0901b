// SPDX-License-Identifier: Apache-2.0
//! What the flows share: the stores, the locks, and what this process remembers. Everything that must survive a crash is in
//! the records, the ledgers, the spec directory and the hardware.
//!
//! Reading order: [`claim_api`], [`quarantine`], [`references`], [`counters`], [`mig_changes`], [`creations`], [`missing`],
//! [`prepare_order`], [`loaded_driver`], [`lock_queue`], [`locks`], [`lock_error`], [`call`], [`node`], [`other_claims`].

pub mod claim_api;

pub mod quarantine;

pub mod references;

pub mod counters;

pub mod mig_changes;

pub(crate) mod creations;

pub(crate) mod missing;

pub(crate) mod prepare_order;

pub(crate) mod loaded_driver;

mod lock_queue;

pub mod locks;

pub mod lock_error;

pub(crate) mod call;

pub mod node;

pub mod other_claims;
