// SPDX-License-Identifier: Apache-2.0
//! The engines of a GPU or of a part of it.

use serde::{Deserialize, Serialize};

/// Counts for a GPU or a MIG device (`nvmlDeviceAttributes_t`, `nvmlGpuInstanceProfileInfo_t`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engines {
    pub multiprocessors: u32,
    pub copy_engines: u32,
    pub decoders: u32,
    pub encoders: u32,
    pub jpeg_engines: u32,
    pub ofa_engines: u32,
}

impl Engines {
    /// Each count of the one less that of the other.
    pub fn without(self, other: Self) -> Self {
        Self {
            multiprocessors: self.multiprocessors.saturating_sub(other.multiprocessors),
            copy_engines: self.copy_engines.saturating_sub(other.copy_engines),
            decoders: self.decoders.saturating_sub(other.decoders),
            encoders: self.encoders.saturating_sub(other.encoders),
            jpeg_engines: self.jpeg_engines.saturating_sub(other.jpeg_engines),
            ofa_engines: self.ofa_engines.saturating_sub(other.ofa_engines),
        }
    }

    /// Whether the other has at least as many of each.
    pub fn fits_in(self, other: Self) -> bool {
        self.without(other) == Self::default()
    }
}
