// SPDX-License-Identifier: Apache-2.0
//! Locks between processes: one file per lock, taken with flock(2), so that the kernel releases it when its holder exits.
//!
//! The file names its last holder in its first line. Only root can open it, because a process that can open a file can lock it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// The longest first line that is read.
const MAX_HOLDER_BYTES: u64 = 300;

/// The locked file, or `None` while another process holds the lock. `holder` may be empty.
pub fn try_lock(path: &Path, holder: &str) -> io::Result<Option<File>> {
    let file = open(path)?;
    match file.try_lock() {
        Ok(()) if is_at(&file, path)? => {
            // A full disk loses the name, not the lock. The file is cut after the write: ext4 flushes a file that was cut to
            // nothing and written again when it is closed, which costs a disk access.
            let line = if holder.is_empty() { String::new() } else { format!("{holder}\n") };
            let len = u64::try_from(line.len()).map_err(io::Error::other)?;
            file.write_all_at(line.as_bytes(), 0).and_then(|()| file.set_len(len)).ok();
            Ok(Some(file))
        }
        // The holder removed the file when it released the lock.
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The last holder of a lock, if the file names it.
pub fn lock_holder(path: &Path) -> Option<String> {
    let mut text = String::new();
    options().and_then(|options| options.open(path)).ok()?.take(MAX_HOLDER_BYTES).read_to_string(&mut text).ok()?;
    // The bytes behind the first line are of an earlier holder.
    text.lines().next().filter(|holder| !holder.is_empty()).map(str::to_owned)
}

/// Whether the disk is full, out of inodes or read-only, so that other processes cannot create the file either.
pub fn takes_no_file(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::PermissionDenied
    )
}

/// Creates the file if it is missing. An existing file can be locked on a read-only disk too.
fn open(path: &Path) -> io::Result<File> {
    let created = options()?.write(true).create(true).truncate(false).mode(0o600).open(path);
    match created {
        Err(error) if takes_no_file(&error) => options()?.open(path).map_err(|_absent| error),
        created => created,
    }
}

/// For reading, not through a symbolic link and without waiting for the other end of a pipe.
fn options() -> io::Result<OpenOptions> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(i32::try_from(flags.bits()).map_err(io::Error::other)?);
    Ok(options)
}

/// Whether the path still leads to this file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
