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
