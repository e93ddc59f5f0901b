// SPDX-License-Identifier: Apache-2.0
//! Translation between the model and `resource.k8s.io/v1`.
//!
//! ```text
//! Inventory ── offer, attributes, capacity, counters ──> pack ──> slices ──┐
//!                                                                          ├─ diff ──> writes, in order
//! observed ResourceSlices ─────────────────────────────────────────────────┘
//! ResourceClaim ── claim ──> dra_model::Claim          prepared devices ── status ──> claim.status.devices
//! ```
//!
//! All functions are pure: no client, no clock, no randomness. The same inventory always gives the same bytes, so a restarted or
//! upgraded process writes nothing.
//!
//! Reading order: [`names`], [`limits`], [`quantity`], [`attributes`], [`offer`], [`capacity`], [`counters`], [`fragmentation`],
//! [`pack`], [`diff`], [`published`], [`claim`], [`status`].

pub mod names;

pub mod limits;

pub mod quantity;

pub mod attributes;

pub mod offer;

pub mod capacity;

pub mod counters;

pub mod fragmentation;

pub mod pack;

pub mod diff;

pub mod published;

pub mod claim;

pub mod consumers;

pub mod status;

pub use claim::{ClaimError, claim_of};
pub use consumers::{Consumer, consumers_of};
pub use diff::{Pool, Precondition, Write, diff};
pub use names::{DriverName, DriverNameError, slice_name};
pub use offer::{Features, Form, FormError, Offer, PartitionSettings, ShareSettings, WithoutAmount};
pub use pack::{SliceContent, pack};
pub use status::{DaemonHealth, DaemonStatus, DeviceStatus, Limits, SharingStatus, Strategy};
