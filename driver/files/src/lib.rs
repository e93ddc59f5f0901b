// SPDX-License-Identifier: Apache-2.0
//! Small files on a node: the port through which the driver changes its own directories.
//!
//! [`HostFiles`] is the real implementation; [`faults::FaultyFiles`] lets a test fail or cut any single effect. Nothing here
//! follows a symbolic link or opens anything but a regular file.
//!
//! Reading order: [`port`], [`replace`], [`dir_sync`], [`host`], [`private_dir`], [`lock_file`], [`faults`].

pub mod port;

pub mod replace;

pub mod dir_sync;

pub mod host;

pub mod private_dir;

pub mod lock_file;

pub mod faults;

pub use dir_sync::DirSync;
pub use host::HostFiles;
pub use lock_file::{lock_holder, takes_no_file, try_lock};
pub use port::{FileVersion, Files, NewFile};
pub use private_dir::make_private_dir;
pub use replace::{TEMP_SUFFIX, replace, replace_unsynced};
