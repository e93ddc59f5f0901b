// SPDX-License-Identifier: Apache-2.0
//! What this node has prepared, on disk.
//!
//! One claim record per claim, `claims/<uid>.json`, and one ledger per GPU whose settings this driver changed or whose
//! daemons it started, `gpus/<uuid>.json`. A claim record is written before the first effect of the claim and removed after
//! the last one:
//!
//! ```text
//! (no file) -> Preparing -> Ready -> (no file)         each arrow is one atomic change of one file
//!                  |          |
//!                  +-> Undoing +-> Undoing -> (no file)      only where an undo failed in part
//! ```
//!
//! `Preparing` and `Undoing` are durable when the call returns: temporary file, fsync, rename, fsync of the directory.
//! `Ready` is a mark that is appended to the durable `Preparing` record without fsync. A power cut may lose the mark. The
//! record is then `Preparing` again and the claim is prepared again, which every new boot requires.
//!
//! A claim record that cannot be decoded is moved to `quarantine/` together with the reason. A record of a newer driver stays
//! in place until a call for its claim arrives. In both cases the devices that can be salvaged from the bytes stay reserved
//! until the claim is prepared again, unprepared or known to be deleted.
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
pub use store::{Inspected, Listing, RecordStore, StoreError};
