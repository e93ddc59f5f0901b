// SPDX-License-Identifier: Apache-2.0
//! The port to small files: every effect this driver has on its own folders goes through here.
//!
//! [`HostFiles`] is the real thing; [`faults::FaultyFiles`] lets a test cut or fail any single effect. Nothing here
//! follows a symlink or opens anything but a regular file.

pub mod faults;

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// How a new file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewFile {
    /// Exact permission bits, whatever the umask.
    pub mode: u32,
    /// Whether the bytes must survive a power cut.
    pub durable: bool,
}

/// Small files in a few folders.
pub trait Files: fmt::Debug + Send + Sync {
    /// The whole file, or nothing when there is none. More than `limit` bytes, or anything but a regular file, is
    /// [`io::ErrorKind::InvalidData`].
    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>>;

    /// Names in a folder, sorted; a missing folder is empty.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a folder and its parents.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// Writes a file, replacing the content of an older one.
    fn write(&self, path: &Path, bytes: &[u8], how: NewFile) -> io::Result<()>;

    /// Adds bytes to the end of an existing file.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Renames, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; a missing one is success.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes renames and removals in a folder survive a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The ending of temporary files; readers of our folders look at `.json` only.
pub const TEMP_SUFFIX: &str = ".tmp";

/// Replaces a file in one step, through a temporary file in the same folder. `writer` keeps two writers apart.
pub fn replace(files: &dyn Files, path: &Path, bytes: &[u8], writer: &str, how: NewFile) -> io::Result<()> {
    let temp = temp_path(path, writer)?;
    if let Err(error) = files.write(&temp, bytes, how).and_then(|()| files.rename(&temp, path)) {
        // The first error is the one to tell; a leftover is overwritten by the next attempt or swept at start.
        files.remove(&temp).ok();
        return Err(error);
    }
    match path.parent() {
        Some(dir) if how.durable => files.sync_dir(dir),
        Some(_) | None => Ok(()),
    }
}

fn temp_path(path: &Path, writer: &str) -> io::Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(path.with_file_name(format!(".{name}.{writer}{TEMP_SUFFIX}")))
}

/// The files of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostFiles;

impl Files for HostFiles {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        // Before it is opened: opening a device may do something, and opening a socket fails with an error of its own.
        match std::fs::symlink_metadata(path) {
            Ok(metadata) => regular(&metadata)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let file = match open(OpenOptions::new().read(true), path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        regular(&metadata)?;
        if metadata.len() > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("is larger than {limit} bytes")));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default().saturating_add(1));
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = entries
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn write(&self, path: &Path, bytes: &[u8], how: NewFile) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = open(options.write(true).create(true).truncate(true).mode(how.mode), path)?;
        file.set_permissions(std::fs::Permissions::from_mode(how.mode))?;
        file.write_all(bytes)?;
        if how.durable { file.sync_all() } else { Ok(()) }
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        open(OpenOptions::new().append(true), path)?.write_all(bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    match (kind.is_file(), kind.is_symlink()) {
        (true, _) => Ok(()),
        (_, true) => Err(io::Error::new(io::ErrorKind::InvalidData, "is a symbolic link")),
        (_, false) => Err(io::Error::new(io::ErrorKind::InvalidData, "is not a regular file")),
    }
}

/// Never through a symlink, and never waiting for the other end of a pipe.
fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    options.custom_flags(i32::try_from(flags.bits()).map_err(io::Error::other)?).open(path)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode};

    use super::*;

    const PLAIN: NewFile = NewFile { mode: 0o644, durable: false };

    #[test]
    fn a_file_is_replaced_whole_with_its_exact_mode_and_no_temporary_file_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        for text in ["first", "2"] {
            replace(&HostFiles, &path, text.as_bytes(), "me", NewFile { mode: 0o644, durable: true }).unwrap();
            assert_eq!(HostFiles.read(&path, 10).unwrap().unwrap(), text.as_bytes());
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(HostFiles.list(dir.path()).unwrap(), ["a.json"]);
    }

    #[test]
    fn only_regular_files_of_a_sane_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link, folder) = (dir.path().join("file"), dir.path().join("link"), dir.path().join("folder"));
        HostFiles.write(&file, b"0123456789", PLAIN).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        HostFiles.make_dir(&folder).unwrap();
        let [pipe, socket] = ["pipe", "socket"].map(|name| dir.path().join(name));
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, limit) in [(&file, 9), (&link, 99), (&folder, 99), (&pipe, 99), (&socket, 99)] {
            let error = HostFiles.read(path, limit).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{}", path.display());
        }
        assert_eq!(HostFiles.read(&file, 10).unwrap().unwrap(), b"0123456789");
    }

    #[test]
    fn what_is_absent_is_not_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("absent");
        assert_eq!(HostFiles.read(&absent, 9).unwrap(), None);
        assert_eq!(HostFiles.list(&absent).unwrap(), Vec::<String>::new());
        HostFiles.remove(&absent).unwrap();
        assert!(HostFiles.append(&absent, b"x").is_err());
    }
}
