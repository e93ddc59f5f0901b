// SPDX-License-Identifier: Apache-2.0
//! The engines of a GPU or of a part of it.

use serde::{Deserialize, Serialize};

/// Counts of the engines of a GPU or of a MIG device (`nvmlDeviceAttributes_t`, `nvmlGpuInstanceProfileInfo_t`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engines {
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Copy engines.
    pub copy_engines: u32,
    /// Video decoders.
    pub decoders: u32,
    /// Video encoders.
    pub encoders: u32,
    /// JPEG engines.
    pub jpeg_engines: u32,
    /// Optical flow accelerators.
    pub ofa_engines: u32,
}
