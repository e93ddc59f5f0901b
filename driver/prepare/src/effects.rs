// SPDX-License-Identifier: Apache-2.0
//! The effects of a claim on the machine, one file each, with three functions:
//!
//! * `apply` brings the effect about and may write into the record what it learned. What exists already is taken over.
//! * `verify` checks that the effect is still there, and repairs it.
//! * `undo` removes the effect, as far as no other claim relies on it. Undoing what was never done is success.
//!
//! So each of them can be repeated after a crash. Settings and daemons belong to a GPU, and several claims may need them: they
//! go with the last of these claims, and what cannot be restored then is a pending restore of the GPU, which stops no claim
//! from leaving, but stops the next claim on that GPU.
//!
//! Reading order: [`error`], [`tools`], [`prerequisites`], [`ledger`], [`mps_daemon`], [`originals`], [`retry`], [`mig_mode`],
//! [`instances`], [`restore`], [`gpu_settings`], [`partition`], [`device_files`], [`claim_spec`], [`step`].

pub mod holders;

pub mod error;

pub mod tools;

pub(crate) mod prerequisites;

pub(crate) mod ledger;

pub(crate) mod mps_daemon;

mod originals;

mod retry;

mod mig_mode;

mod instances;

pub(crate) mod restore;

pub mod gpu_settings;

mod partition;

pub(crate) mod static_mig;

mod device_files;

mod claim_spec;

pub(crate) mod step;
