// SPDX-License-Identifier: Apache-2.0
//! What NVML answers instead of an answer.

use std::path::PathBuf;

/// A call answered with a code other than success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{call} returned code {code}")]
pub struct NvmlError {
    /// The C function.
    pub call: &'static str,
    /// Its `nvmlReturn_t`; [`code::FUNCTION_NOT_FOUND`] also when the library lacks the function.
    pub code: u32,
}

impl NvmlError {
    /// Whether this GPU, or this version of the driver, has no answer to the question at all.
    pub fn is_unsupported(self) -> bool {
        [code::NOT_SUPPORTED, code::FUNCTION_NOT_FOUND, code::ARGUMENT_VERSION_MISMATCH].contains(&self.code)
    }

    /// Whether the driver behind the library went away, so that only loading it again can help.
    ///
    /// After a driver upgrade under a running process the library answers 18, after an unload 9 or 1.
    pub fn is_driver_gone(self) -> bool {
        [code::UNINITIALIZED, code::DRIVER_NOT_LOADED, code::LIB_RM_VERSION_MISMATCH].contains(&self.code)
    }
}

/// The codes of `nvmlReturn_t` that someone decides by.
pub mod code {
    /// The library was not initialised, or lost its driver.
    pub const UNINITIALIZED: u32 = 1;
    /// A wrong argument; also an index past the end.
    pub const INVALID_ARGUMENT: u32 = 2;
    /// This GPU does not have it.
    pub const NOT_SUPPORTED: u32 = 3;
    /// Only root may ask, or only the owner of a capability.
    pub const NO_PERMISSION: u32 = 4;
    /// No such object, or no longer.
    pub const NOT_FOUND: u32 = 6;
    /// The buffer was too small.
    pub const INSUFFICIENT_SIZE: u32 = 7;
    /// The kernel driver is not loaded.
    pub const DRIVER_NOT_LOADED: u32 = 9;
    /// The library lacks the function.
    pub const FUNCTION_NOT_FOUND: u32 = 13;
    /// The kernel driver is of another version than the library.
    pub const LIB_RM_VERSION_MISMATCH: u32 = 18;
    /// The struct version is unknown to the library.
    pub const ARGUMENT_VERSION_MISMATCH: u32 = 25;
    /// Anything else, answers that are not UTF-8 included.
    pub const UNKNOWN: u32 = 999;
}

/// The library is not in use, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// There is no such file.
    #[error("{reason}")]
    Missing {
        /// What was looked for, and where.
        reason: String,
    },
    /// The file is not a library that can be loaded.
    #[error("failed to load {}: {reason}", path.display())]
    Unloadable {
        path: PathBuf,
        /// What the dynamic loader said.
        reason: String,
    },
    /// It was loaded and refused to start.
    #[error("the library failed to initialize")]
    Refused(#[source] NvmlError),
}
