// SPDX-License-Identifier: Apache-2.0
//! The `ld.so.cache` of the container: read, merged, replaced in one step.
//!
//! The file is replaced only by a complete one, of the same owner and mode. In every other case the image's own cache stays, and
//! the loader finds the libraries in the directories that it trusts.
//!
//! A root filesystem that the runtime has made read-only before its hooks keeps its cache: crun does that if the pod asks for
//! it, runc does it after the hooks.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{FileType, Gid, Stat, Uid, fchown, fstat};
use rustix::io::Errno;

use crate::ld_cache::{Cache, CacheError, Library, merge};
use crate::replace::replace;
use crate::resolve::{self, ContainerRoot};

/// Bytes of a cache. That of an image with 10 000 libraries has 1 MiB.
pub const MAX_CACHE_BYTES: u64 = 16 * 1024 * 1024;

const DIR: &str = "etc";

const NAME: &str = "ld.so.cache";

/// The cache of the container stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum CacheFileError {
    #[error("failed to open the directory /etc of the root filesystem")]
    Dir {
        #[source]
        source: io::Error,
    },
    #[error("the image has no ld.so.cache")]
    Absent,
    #[error("/etc/ld.so.cache is on another filesystem than the root")]
    Mounted,
    #[error("/etc/ld.so.cache is {kind}, not a regular file")]
    Kind { kind: &'static str },
    #[error("/etc/ld.so.cache has {bytes} bytes, more than {MAX_CACHE_BYTES}")]
    Size { bytes: u64 },
    #[error("failed to read /etc/ld.so.cache")]
    Read {
        #[source]
        source: io::Error,
    },
    #[error("/etc/ld.so.cache has an unknown format")]
    Format {
        #[source]
        source: CacheError,
    },
    #[error("the root filesystem is read-only")]
    ReadOnly,
    #[error("failed to replace /etc/ld.so.cache")]
    Replace {
        #[source]
        source: io::Error,
    },
}

/// Adds libraries to the cache of the container. Writes nothing if they are there.
pub fn update(root: &ContainerRoot, libraries: &[Library]) -> Result<(), CacheFileError> {
    let dir = root.own_dir(Path::new(DIR)).map_err(|source| CacheFileError::Dir { source })?;
    let (before, old) = read(&dir)?;
    let cache = Cache::parse(&old).map_err(|source| CacheFileError::Format { source })?;
    let new = merge(&cache, libraries).map_err(|source| CacheFileError::Format { source })?;
    if new == old {
        return Ok(());
    }
    let write = |name: &OsStr| write(resolve::create(&dir, name)?, &new, &before);
    replace(&dir, OsStr::new(NAME), write).map_err(|source| match Errno::from_io_error(&source) {
        Some(Errno::ROFS) => CacheFileError::ReadOnly,
        _ => CacheFileError::Replace { source },
    })
}

/// The cache and the owner and mode of its file.
fn read(dir: &OwnedFd) -> Result<(Stat, Vec<u8>), CacheFileError> {
    let path = Path::new(NAME);
    let failed = |source| CacheFileError::Read { source };
    let reference = resolve::entry(dir, path).map_err(|source| match Errno::from_io_error(&source) {
        Some(Errno::NOENT) => CacheFileError::Absent,
        Some(Errno::XDEV) => CacheFileError::Mounted,
        _ => failed(source),
    })?;
    let file = fstat(&reference).map_err(|error| failed(error.into()))?;
    if let Some(kind) = other_kind(&file) {
        return Err(CacheFileError::Kind { kind });
    }
    let bytes = u64::try_from(file.st_size).unwrap_or(u64::MAX);
    if bytes > MAX_CACHE_BYTES {
        return Err(CacheFileError::Size { bytes });
    }
    let content = resolve::reopen(dir, path, reference).and_then(|file| resolve::read(file, MAX_CACHE_BYTES));
    Ok((file, content.map_err(failed)?))
}

/// The word for a file that is not a regular one.
fn other_kind(file: &Stat) -> Option<&'static str> {
    match FileType::from_raw_mode(file.st_mode) {
        FileType::RegularFile => None,
        FileType::Directory => Some("a directory"),
        FileType::Symlink => Some("a symbolic link"),
        FileType::Fifo => Some("a FIFO"),
        FileType::Socket => Some("a socket"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("a device"),
        FileType::Unknown => Some("a file of an unknown kind"),
    }
}

fn write(mut file: File, bytes: &[u8], before: &Stat) -> io::Result<()> {
    file.write_all(bytes)?;
    // Readable for all is what `ldconfig` writes; set-user-ID means nothing for data.
    file.set_permissions(Permissions::from_mode(before.st_mode & 0o777))?;
    let created = fstat(file.as_fd())?;
    if (created.st_uid, created.st_gid) != (before.st_uid, before.st_gid) {
        fchown(&file, Some(Uid::from_raw(before.st_uid)), Some(Gid::from_raw(before.st_gid)))?;
    }
    Ok(())
}
