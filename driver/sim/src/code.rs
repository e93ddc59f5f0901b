// SPDX-License-Identifier: Apache-2.0
//! NVML return codes with the texts of `nvmlErrorString`.
//!
//! The set is open: newer drivers add numbers, and an injected fault may use any of them, so a code is a number with names
//! for the ones that the engine itself returns. Source: nvml.h `nvmlReturn_t`; texts as the 550 library prints them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A return code, `nvmlReturn_t`; the engine answers none that is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u32);

impl Code {
    /// Only in a rule: the call does nothing and returns success.
    pub const SUCCESS: Self = Self(0);
    /// `nvmlInit` was not called.
    pub const UNINITIALIZED: Self = Self(1);
    /// An invalid value, such as an index beyond the last.
    pub const INVALID_ARGUMENT: Self = Self(2);
    /// Not supported by this GPU, or by its mode.
    pub const NOT_SUPPORTED: Self = Self(3);
    /// The call requires root, or a capability.
    pub const NO_PERMISSION: Self = Self(4);
    /// No such instance.
    pub const NOT_FOUND: Self = Self(6);
    /// The caller's buffer is too small.
    pub const INSUFFICIENT_SIZE: Self = Self(7);
    /// The kernel module is not loaded.
    pub const DRIVER_NOT_LOADED: Self = Self(9);
    /// No event came in time.
    pub const TIMEOUT: Self = Self(10);
    /// The library is older than the function.
    pub const FUNCTION_NOT_FOUND: Self = Self(13);
    /// The GPU fell off the bus.
    pub const GPU_IS_LOST: Self = Self(15);
    /// The GPU works again after a reset.
    pub const RESET_REQUIRED: Self = Self(16);
    /// Library and kernel module are of different versions.
    pub const VERSION_MISMATCH: Self = Self(18);
    /// Clients or instances use the object.
    pub const IN_USE: Self = Self(19);
    /// No slices or engines are left for the instance.
    pub const INSUFFICIENT_RESOURCES: Self = Self(23);
    /// A struct of a version that this library does not support.
    pub const ARGUMENT_VERSION_MISMATCH: Self = Self(25);
    /// Everything else.
    pub const UNKNOWN: Self = Self(999);

    /// The text of `nvmlErrorString` for a number, success included.
    pub const fn text_of(number: u32) -> &'static str {
        match number {
            0 => "Success",
            1 => "Uninitialized",
            2 => "Invalid Argument",
            3 => "Not Supported",
            4 => "Insufficient Permissions",
            5 => "Already Initialized",
            6 => "Not Found",
            7 => "Insufficient Size",
            8 => "Insufficient External Power",
            9 => "Driver Not Loaded",
            10 => "Timeout",
            11 => "Interrupt Request Issue",
            12 => "NVML Shared Library Not Found",
            13 => "Function Not Found",
            14 => "Corrupted infoROM",
            15 => "GPU is lost",
            16 => "GPU requires reset",
            17 => "GPU access blocked by the operating system",
            18 => "Driver/library version mismatch",
            19 => "In use by another client",
            20 => "Insufficient Memory",
            21 => "No data",
            22 => "The requested vgpu operation is not available on target device, because ECC is enabled",
            23 => "Insufficient Resources",
            24 => "Invalid Frequency",
            25 => "Argument version mismatch",
            26 => "The requested functionality has been deprecated",
            27 => "The system is not in ready state",
            28 => "No supported GPUs were found",
            29 => "The requested operation cannot be performed because the resource is not in the correct state",
            _ => "Unknown Error",
        }
    }

    pub const fn text(self) -> &'static str {
        Self::text_of(self.0)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (NVML code {})", self.text(), self.0)
    }
}

impl std::error::Error for Code {}
