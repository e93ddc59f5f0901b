// SPDX-License-Identifier: Apache-2.0
//! The kinds of configuration, one for each kind of device.

use std::fmt;

/// The devices a configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigKind {
    /// `GpuConfig`, for whole GPUs and for their shares.
    Gpu,
    /// `MigDeviceConfig`, for MIG devices.
    Mig,
}

impl fmt::Display for ConfigKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpu => "GpuConfig",
            Self::Mig => "MigDeviceConfig",
        })
    }
}
