// SPDX-License-Identifier: Apache-2.0
//! From a claim to a usable device and back.
//!
//! ```text
//! prepare    lock claim -> record? -- Ready, this boot --------------------+
//!                             |                                           v
//!                             +-> fetch the claim --> resolve names -> lock GPUs -> read them anew
//!                                                                         |
//!            refusal <- plan (pure) <- conflicts with other records <-----+
//!                         |
//!            nodes and driver files checked, specs rendered               nothing was changed up to here
//!                         |
//!            Preparing, durable -> step, step, ... -> Ready -> answer     a failing step undoes those before it
//!
//! unprepare  lock claim -> record? -> lock GPUs -> undo in reverse order, past failures -> no record | Undoing, durable
//! ```
//!
//! A record that cannot be read is a conflict too: see [`doubts`]. A repeated prepare takes the same way, with the record in place of the API server, and repairs what differs. Only
//! [`run`] and [`undo`] change the machine, and only after the record says so. Neither unprepare nor its retry asks the
//! API server or the driver for anything.
//!
//! Settings of a GPU and MPS daemons may be needed by several claims. What each claim needs is in its record, what was
//! found before the first of them in the GPU's ledger, and whoever leaves last gives it back. What cannot be given back
//! then is owed: it keeps no claim from leaving, and the next claim on that GPU from coming.
//!
//! Reading order: [`holder`], [`refusal`], [`resolve`], [`configuration`], `sharing`, `limits`, [`doubts`], [`conflicts`], `shares`,
//! [`plan`], [`locks`], [`users`], [`step`], [`run`], [`undo`], [`fetch`], [`error`], `missing`, [`engine`], [`reconcile`], `debts`,
//! [`retire`].

pub mod holder;

pub mod refusal;

pub mod resolve;

pub mod configuration;

mod sharing;

mod limits;

pub mod doubts;

pub mod conflicts;

mod shares;

pub mod plan;

pub mod answer;

pub mod locks;

pub mod users;

mod tally;

mod missing;

pub mod step;

pub mod run;

pub mod undo;

pub mod fetch;

pub mod error;

pub mod engine;

pub mod reconcile;

mod debts;

pub mod retire;

pub use answer::{PreparedDevice, PreparedSharing};
pub use configuration::ignored;
pub use debts::Restoration;
pub use engine::{Engine, OthersError, Promise, Settings};
pub use error::{NotLocked, OpenError, PrepareCause, PrepareError, UnprepareCause, UnprepareError};
pub use fetch::FetchError;
pub use reconcile::{ClaimLife, Reconciliation};
pub use refusal::Refusal;
pub use step::Drift;
pub use tally::Deed;
