// SPDX-License-Identifier: Apache-2.0
//! Opens files of the container: the only file that resolves a path, always with `openat2` below an open directory.
//!
//! The image may have a symbolic link at every component. `RESOLVE_IN_ROOT` resolves absolute links and `..` inside of the
//! container's root, and `RESOLVE_NO_MAGICLINKS` refuses the links of procfs that lead out of it. What the hook changes must
//! in addition lie on the root filesystem itself (`RESOLVE_NO_XDEV`): a volume that is mounted into the container belongs to
//! the host or to other containers, which may also change it at the same time.
//!
//! Source: openat2(2). The call exists since Linux 5.6, and may fail with EAGAIN while directories are renamed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, fstat, openat2, statx};
use rustix::io::Errno;

/// Calls of one `openat2`, if directories are renamed meanwhile.
const MAX_ATTEMPTS: usize = 64;

/// How a path that may have links is resolved: links stay inside, mount points are crossed.
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// The same on one filesystem.
const OWN: ResolveFlags = INSIDE.union(ResolveFlags::NO_XDEV);

/// How an entry of an open directory is opened.
const ENTRY: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// The size that most of the files fit in.
const READ_BYTES: usize = 64 * 1024;

const REFERENCE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// The root directory of the container.
#[derive(Debug)]
pub struct ContainerRoot {
    dir: OwnedFd,
}

impl ContainerRoot {
    pub fn new(dir: OwnedFd) -> Self {
        Self { dir }
    }

    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// A reference to a file of the container, on whatever filesystem. Opens no device and waits for no FIFO.
    pub fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        open(self.dir(), path, REFERENCE, Mode::empty(), INSIDE)
    }

    /// A directory of the root filesystem.
    pub fn own_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        open(self.dir(), path, REFERENCE | OFlags::DIRECTORY, Mode::empty(), OWN)
    }
}

/// A directory of the host, whose path only the container runtime chooses.
pub fn host_dir(path: &Path) -> io::Result<OwnedFd> {
    open(CWD, path, REFERENCE | OFlags::DIRECTORY, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

/// A regular file of the host, of at most `limit` bytes.
pub fn host_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = open(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?;
    read(file, limit)
}

/// A reference to a path without any link below a directory, on its filesystem.
pub fn entry(dir: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    open(dir, path, REFERENCE | OFlags::NOFOLLOW, Mode::empty(), ENTRY)
}

/// A reference to the root of a mount that is an entry of a directory.
pub fn mount_point(dir: impl AsFd, name: &Path) -> io::Result<OwnedFd> {
    let resolve = ENTRY.difference(ResolveFlags::NO_XDEV);
    open(dir, name, REFERENCE | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty(), resolve)
}

/// Opens the file to read it that a reference from [`entry`] leads to.
///
/// The reference must be to a regular file, because opening another kind may wait or act. The path cannot be opened by the
/// reference itself without procfs, so it is resolved a second time. Another file there is opened without waiting for it, and is
/// an error.
pub fn reopen(dir: impl AsFd, path: &Path, reference: impl AsFd) -> io::Result<OwnedFd> {
    let expected = fstat(reference)?;
    if FileType::from_raw_mode(expected.st_mode) != FileType::RegularFile {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = open(dir, path, flags, Mode::empty(), ENTRY)?;
    let found = fstat(&file)?;
    if (found.st_dev, found.st_ino, found.st_mode) != (expected.st_dev, expected.st_ino, expected.st_mode) {
        return Err(io::Error::other("another file appeared in its place"));
    }
    Ok(file)
}

/// Creates a file with a name that must be free, for its owner alone.
pub fn create(dir: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(dir, Path::new(name), flags, Mode::RUSR | Mode::WUSR, ENTRY).map(File::from)
}

/// The content of an open file, of at most `limit` bytes.
pub fn read(file: OwnedFd, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(READ_BYTES);
    File::from(file).take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Device and inode, and whether it is the root of a mount.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    file: (u32, u32, u64),
    pub is_mount_root: bool,
}

impl Identity {
    pub fn of(reference: impl AsFd) -> io::Result<Self> {
        let found = statx(reference, "", AtFlags::EMPTY_PATH, StatxFlags::INO)?;
        let known = found.stx_attributes & found.stx_attributes_mask;
        let is_mount_root = known.contains(rustix::fs::StatxAttributes::MOUNT_ROOT);
        Ok(Self { file: (found.stx_dev_major, found.stx_dev_minor, found.stx_ino), is_mount_root })
    }

    pub fn is_same_file(&self, other: &Self) -> bool {
        self.file == other.file
    }
}

fn open(dir: impl AsFd, path: &Path, flags: OFlags, mode: Mode, resolve: ResolveFlags) -> io::Result<OwnedFd> {
    let mut opened = Err(Errno::AGAIN);
    for _ in 0..MAX_ATTEMPTS {
        opened = openat2(dir.as_fd(), path, flags, mode, resolve);
        if !matches!(opened, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    Ok(opened?)
}
