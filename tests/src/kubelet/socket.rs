// SPDX-License-Identifier: Apache-2.0
//! The registration sockets in the registry directory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// A socket file. A new file at the same path is another socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Socket {
    pub(super) path: PathBuf,
    inode: u64,
    /// Seconds and nanoseconds.
    created: (i64, i64),
}

impl Socket {
    fn of(entry: &fs::DirEntry) -> Option<Self> {
        let found = entry.metadata().ok().filter(|found| found.file_type().is_socket())?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let created = (found.ctime(), found.ctime_nsec());
        (!hidden).then(|| Self { path: entry.path(), inode: found.ino(), created })
    }
}

/// The sockets in the registry; names that begin with a dot do not count.
pub(super) fn sockets(registry_dir: &Path) -> BTreeSet<Socket> {
    let Ok(entries) = fs::read_dir(registry_dir) else { return BTreeSet::new() };
    entries.flatten().filter_map(|entry| Socket::of(&entry)).collect()
}
