// SPDX-License-Identifier: Apache-2.0
//! Everything about the files below a directory that the hook could change.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Mode, owner, time of the last change of the content, and content.
pub(crate) type Listing = BTreeMap<PathBuf, (u32, u32, u32, i64, Vec<u8>)>;

pub(crate) fn of(path: &Path) -> Listing {
    let mut found = Listing::new();
    collect(path, &mut found);
    found
}

fn collect(path: &Path, found: &mut Listing) {
    let file = fs::symlink_metadata(path).unwrap();
    let content = if file.is_symlink() {
        fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()
    } else if file.is_file() && file.len() < 1 << 26 {
        fs::read(path).unwrap()
    } else {
        Vec::new()
    };
    found.insert(path.to_owned(), (file.mode(), file.uid(), file.gid(), file.mtime_nsec(), content));
    if file.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), found);
        }
    }
}

/// Files that a hook which was not interrupted never leaves.
pub(crate) fn temporary_files(path: &Path) -> Vec<PathBuf> {
    of(path).into_keys().filter(|path| path.to_string_lossy().contains(".gpu-cdi-hook")).collect()
}
