// SPDX-License-Identifier: Apache-2.0
//! What this node has promised, on disk.
//!
//! One file per claim, `claims/<uid>.json`, and one per GPU whose settings or daemons are ours, `gpus/<uuid>.json`. A
//! claim's record is there before its first effect and goes after its last:
//!
//! ```text
//! (no file) -> Preparing -> Ready -> (no file)         each arrow is one atomic change of one file
//!                  |          |
//!                  +-> Undoing +-> Undoing -> (no file)      only where an undo could not be finished in one go
//! ```
//!
//! `Preparing` and `Undoing` are durable when the call returns: temporary file, fsync, rename, fsync of the folder.
//! `Ready` is a mark appended to the durable `Preparing` record and not fsynced, since it adds nothing that cannot be
//! derived: when a power cut eats the mark, the record says `Preparing` again and the claim is prepared anew, which a
//! new boot asks for anyway.
//!
//! A record that cannot be understood is moved to `quarantine/` with its reason; one that a newer driver wrote stays until
//! its claim is asked for. Its claim counts as holding what the bytes still name, until it is prepared again, unprepared
//! or known to be gone.
//!
//! Reading order: [`record`], [`frame`], [`versions`], [`salvaged`], [`quarantine`], [`store`], [`ledger`].

pub mod record;

pub mod frame;

pub mod versions;

mod file_names;

pub mod salvaged;

pub mod quarantine;

pub mod store;

pub mod ledger;

pub use ledger::{DamagedLedger, GpuLedger, LedgerFound, LedgerListing, LedgerStore};
pub use quarantine::Quarantined;
pub use record::{ClaimRecord, ClaimState, RecordedDevice, RecordedHardware, RecordedSharing, Step, Unknown};
pub use salvaged::Salvaged;
pub use store::{Listing, RecordStore, StoreError};
