// SPDX-License-Identifier: Apache-2.0
//! How many shares of a GPU this driver offers at most, to which more replicas are limited.

use std::ops::RangeInclusive;

/// A share has at least one percent of the threads.
pub const DEFAULT_SHARES: RangeInclusive<u32> = 1..=100;

/// The API allows any number. A thousand claims are more than a node can run pods, and each still has a MiB of a GPU with one GiB.
pub const MAX_TIME_SLICES: RangeInclusive<u32> = 1..=1000;
