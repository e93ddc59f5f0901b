// SPDX-License-Identifier: Apache-2.0
//! The port: every effect on a directory of the driver is a method of [`Files`].

use std::fmt;
use std::io;
use std::path::Path;

/// How a new file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewFile {
    /// Exact permission bits, whatever the umask.
    pub mode: u32,
    /// Whether the bytes must survive a power cut.
    pub durable: bool,
}

/// Small files in a few directories.
pub trait Files: fmt::Debug + Send + Sync {
    /// The whole file, or nothing if it is missing. A file with more than `limit` bytes, and anything but a regular file, is
    /// [`io::ErrorKind::InvalidData`].
    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>>;

    /// Names in a directory, sorted; a missing directory is empty.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Creates a directory and its parents.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// Writes a file, replacing the content of an older one.
    fn write(&self, path: &Path, bytes: &[u8], how: NewFile) -> io::Result<()>;

    /// Adds bytes to the end of an existing file.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Renames, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; a missing one is success.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes renames and removals in a directory survive a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}
