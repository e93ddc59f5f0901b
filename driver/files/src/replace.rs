// SPDX-License-Identifier: Apache-2.0
//! Replaces a file in one atomic step.

use std::io;
use std::path::{Path, PathBuf};

use crate::port::{Files, NewFile};

/// Ends the names of temporary files. Readers of the directories read `.json` only.
pub const TEMP_SUFFIX: &str = ".tmp";

/// Replaces a file in one step, through a temporary file in the same directory. Two writers of one file use different
/// names for `writer`.
pub fn replace(files: &dyn Files, path: &Path, bytes: &[u8], writer: &str, how: NewFile) -> io::Result<()> {
    replace_unsynced(files, path, bytes, writer, how)?;
    match path.parent() {
        Some(dir) if how.durable => files.sync_dir(dir),
        Some(_) | None => Ok(()),
    }
}

/// As [`replace`], but the new name survives a power cut only after a sync of the directory.
pub fn replace_unsynced(files: &dyn Files, path: &Path, bytes: &[u8], writer: &str, how: NewFile) -> io::Result<()> {
    let temp = temp_path(path, writer)?;
    files.write(&temp, bytes, how).and_then(|()| files.rename(&temp, path)).inspect_err(|_error| {
        // The first error is reported. A leftover is overwritten by the next attempt or removed at the next start.
        files.remove(&temp).ok();
    })
}

fn temp_path(path: &Path, writer: &str) -> io::Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(path.with_file_name(format!(".{name}.{writer}{TEMP_SUFFIX}")))
}
