// SPDX-License-Identifier: Apache-2.0
//! Prepares a claim, from its allocation to usable devices, and undoes it.
//!
//! ```text
//! prepare    lock claim -> record? -- Ready, this boot --------------------+
//!                             |                                           v
//!                             +-> fetch the claim --> resolve names -> lock GPUs -> read them again
//!                                                                         |
//!            refusal <- plan (pure) <- conflicts with other records <-----+
//!                         |
//!            nodes and driver files checked                               nothing was changed up to here
//!                         |
//!            Preparing, durable -> effect, effect, ... CDI spec -> Ready -> answer     a failure undoes the effects before it
//!
//! unprepare  lock claim -> record? -> lock GPUs -> undo in reverse order, past failures -> no record | Undoing, durable
//! ```
//!
//! A quarantined record conflicts too: see [`state::quarantine`]. A repeated prepare takes the same way, with the record in
//! place of the API server, and repairs what differs. Only [`effects`] change the machine, and only after the record names
//! them. Neither unprepare nor its retry needs the API server or the NVIDIA driver.
//!
//! Several claims may need the settings of a GPU or an MPS daemon. The record of each claim names what it needs, the ledger of
//! the GPU its original settings, and the unprepare of the last claim restores them. A restore that fails stays pending: it
//! stops no claim from leaving, but the next claim on that GPU from being prepared.
//!
//! The directories, each using only those before it: [`decide`] (pure) and [`state`], [`effects`], [`flows`]. [`engine`] and
//! [`error`] are what callers see.

pub mod decide;

pub mod state;

pub mod effects;

pub mod flows;

pub mod error;

pub mod engine;

pub use decide::prepared_device::{PreparedDevice, PreparedSharing, ignored};
pub use decide::refusal::Refusal;
pub use decide::static_mig::{NoPlan, StaticMig};
pub use effects::gpu_settings::Drift;
pub use engine::Engine;
pub use error::{OpenError, PrepareCause, PrepareError, UnprepareCause, UnprepareError};
pub use flows::inspect::{DaemonDevice, PreparedShares};
pub use flows::report::{Problem, Reconciliation};
pub use flows::restore::Restoration;
pub use flows::static_mig::StaticMigError;
pub use state::claim_api::{ClaimLookup, FetchError};
pub use state::counters::RestoreOutcome;
pub use state::lock_error::NotLocked;
pub use state::mig_changes::{MigChange, MigChangeKind};
pub use state::node::Settings;
pub use state::other_claims::OtherClaimsError;
