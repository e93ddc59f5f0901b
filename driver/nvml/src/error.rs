// SPDX-License-Identifier: Apache-2.0
//! Return codes of NVML, and errors of loading it.

use std::path::PathBuf;

/// A call returned a code other than success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{call} returned code {code}")]
pub struct NvmlError {
    /// The C function.
    pub call: &'static str,
    /// Its `nvmlReturn_t`; [`code::FUNCTION_NOT_FOUND`] also when the library lacks the function.
    pub code: u32,
}

impl NvmlError {
    /// Whether this GPU or this version of the driver does not support the call.
    pub fn is_unsupported(self) -> bool {
        [code::NOT_SUPPORTED, code::FUNCTION_NOT_FOUND, code::ARGUMENT_VERSION_MISMATCH].contains(&self.code)
    }

    /// Whether the kernel driver was unloaded or replaced, so that the library must be loaded again.
    ///
    /// The library returns 18 after a driver upgrade under a running process, and 9 or 1 after an unload.
    pub fn is_driver_gone(self) -> bool {
        [code::UNINITIALIZED, code::DRIVER_NOT_LOADED, code::LIB_RM_VERSION_MISMATCH].contains(&self.code)
    }
}

/// The codes of `nvmlReturn_t` that change the behaviour of a caller.
pub mod code {
    /// The library was not initialised, or the driver was unloaded.
    pub const UNINITIALIZED: u32 = 1;
    /// A wrong argument; also an index past the end.
    pub const INVALID_ARGUMENT: u32 = 2;
    pub const NOT_SUPPORTED: u32 = 3;
    /// The call requires root, or a capability.
    pub const NO_PERMISSION: u32 = 4;
    pub const NOT_FOUND: u32 = 6;
    pub const INSUFFICIENT_SIZE: u32 = 7;
    pub const DRIVER_NOT_LOADED: u32 = 9;
    pub const TIMEOUT: u32 = 10;
    /// The library lacks the function.
    pub const FUNCTION_NOT_FOUND: u32 = 13;
    /// The kernel driver is of another version than the library.
    pub const LIB_RM_VERSION_MISMATCH: u32 = 18;
    /// A client holds the GPU or the instance.
    pub const IN_USE: u32 = 19;
    /// The struct version is unknown to the library.
    pub const ARGUMENT_VERSION_MISMATCH: u32 = 25;
    /// Also for texts that are not UTF-8.
    pub const UNKNOWN: u32 = 999;
}

/// Why the library is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("{reason}")]
    Missing {
        /// The file and the directories searched.
        reason: String,
    },
    #[error("failed to load {}: {reason}", path.display())]
    Unloadable {
        path: PathBuf,
        /// The message of the dynamic loader.
        reason: String,
    },
    #[error("the library failed to initialize")]
    Refused(#[source] NvmlError),
}
