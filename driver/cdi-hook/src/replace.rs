// SPDX-License-Identifier: Apache-2.0
//! Gives a new entry of a directory its name in one step: it is made under a random name and then renamed.
//!
//! Nothing is written through an existing entry, so hard links of it keep their content.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};
use rustix::rand::{GetRandomFlags, getrandom};

/// Makes an entry with `make` and renames it to `name`. What `make` left is removed if a step fails.
pub fn replace(dir: impl AsFd, name: &OsStr, make: impl FnOnce(&OsStr) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary_name()?;
    let renamed =
        make(&temporary).and_then(|()| Ok(renameat_with(&dir, &temporary, &dir, name, RenameFlags::empty())?));
    if renamed.is_err() {
        // If it fails, nothing was made, or a file with a name of ours stays in the container.
        unlinkat(&dir, &temporary, AtFlags::empty()).ok();
    }
    renamed
}

/// Random, so that an image cannot have it.
fn temporary_name() -> io::Result<OsString> {
    let mut random = [0; 8];
    let filled = getrandom(&mut random, GetRandomFlags::NONBLOCK)?;
    if filled < random.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(format!(".gpu-cdi-hook-{:016x}", u64::from_ne_bytes(random)).into())
}
