// SPDX-License-Identifier: Apache-2.0
//! What is on disk: golden files, damage, and faults at every effect.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking, in its builders too")]

mod ledgers;
mod records;
mod samples;
mod versions;
