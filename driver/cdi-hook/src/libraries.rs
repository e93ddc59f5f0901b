// SPDX-License-Identifier: Apache-2.0
//! Finds the libraries of the driver in the container, where the runtime has mounted them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

use crate::ld_cache::Library;
use crate::resolve::ContainerRoot;

/// The libraries that the container has, and those that it lacks.
#[derive(Debug, Default)]
pub struct FoundLibraries {
    pub libraries: Vec<Library>,
    /// SONAMEs of the others.
    pub missing: Vec<OsString>,
    /// Whether a file could not be examined, so that a missing library may be there.
    pub is_uncertain: bool,
}

/// Searches each library in the directories; the first that has it is used.
pub fn find(root: &ContainerRoot, dirs: &[PathBuf], sonames: &[OsString]) -> FoundLibraries {
    let mut found = FoundLibraries::default();
    for soname in sonames {
        let mut at = None;
        for path in dirs.iter().map(|dir| dir.join(soname)) {
            let error = match root.find(&path).and_then(|reference| Ok(fstat(reference)?)) {
                // A runtime creates an empty file to mount a library on, which an image may contain.
                Ok(file) if FileType::from_raw_mode(file.st_mode) == FileType::RegularFile && file.st_size > 0 => {
                    at = Some(path);
                    break;
                }
                Ok(_) => continue,
                Err(error) => error,
            };
            found.is_uncertain |= !is_absence(&error);
        }
        match at {
            Some(path) => found.libraries.push(Library { soname: bytes(soname), path: bytes(path.as_os_str()) }),
            None => found.missing.push(soname.clone()),
        }
    }
    found
}

fn bytes(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

/// Whether programs of the container get the same answer. They may follow links that the hook refuses.
fn is_absence(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR))
}
