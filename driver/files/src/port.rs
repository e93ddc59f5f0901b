// SPDX-License-Identifier: Apache-2.0
//! The port: every effect on a directory of the driver is a method of [`Files`].

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How a new file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewFile {
    /// Exact permission bits, whatever the umask.
    pub mode: u32,
    /// Whether the bytes must survive a power cut.
    pub durable: bool,
}

/// The age from which the time of a change identifies it. Two changes may share a tick of the kernel's clock, which may stand still
/// for five ticks of 250 Hz where a virtual processor is not scheduled. Two changes with one time have another inode or length,
/// unless an inode is used again within it.
pub(crate) const MIN_AGE: Duration = Duration::from_millis(25);

/// Identifies the content of a file that has not changed for some ticks of the kernel's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileVersion {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) bytes: u64,
    /// Seconds and nanoseconds of the last change of content, name or attributes.
    pub(crate) changed: (i64, i64),
}

/// Small files in a few directories.
pub trait Files: fmt::Debug + Send + Sync {
    /// The whole file, or nothing if it is missing. A file with more than `limit` bytes, and anything but a regular file, is
    /// [`io::ErrorKind::InvalidData`].
    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>>;

    /// The version of a file. A file that is read afterwards and has the same version later still has the bytes that were read.
    /// There is none for a file that is missing, is no regular file, or changed just now.
    fn version(&self, path: &Path) -> io::Result<Option<FileVersion>>;

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
