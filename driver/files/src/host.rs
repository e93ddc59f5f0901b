// SPDX-License-Identifier: Apache-2.0
//! The files of this machine.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::OFlags;

use crate::port::{FileVersion, Files, MIN_AGE, NewFile};

/// [`Files`] on the file systems of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostFiles;

impl Files for HostFiles {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        // Checked before opening: opening a device can have an effect, and opening a socket fails with another error.
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

    fn version(&self, path: &Path) -> io::Result<Option<FileVersion>> {
        let metadata = match std::fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let is_old = metadata.is_file() && is_before(changed, SystemTime::now().checked_sub(MIN_AGE));
        let version = FileVersion { device: metadata.dev(), inode: metadata.ino(), bytes: metadata.len(), changed };
        Ok(is_old.then_some(version))
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

/// Whether a time of seconds and nanoseconds lies before a limit. Nothing does without a limit, or with one before 1970.
fn is_before(time: (i64, i64), limit: Option<SystemTime>) -> bool {
    let since_epoch = limit.and_then(|limit| limit.duration_since(SystemTime::UNIX_EPOCH).ok());
    since_epoch.is_some_and(|limit| {
        let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        time < (seconds, i64::from(limit.subsec_nanos()))
    })
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    match (kind.is_file(), kind.is_symlink()) {
        (true, _) => Ok(()),
        (_, true) => Err(io::Error::new(io::ErrorKind::InvalidData, "is a symbolic link")),
        (_, false) => Err(io::Error::new(io::ErrorKind::InvalidData, "is not a regular file")),
    }
}

/// Does not follow a symlink, and does not wait for the other end of a pipe.
fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    options.custom_flags(i32::try_from(flags.bits()).map_err(io::Error::other)?).open(path)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode};

    use super::*;
    use crate::replace::replace;

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
        let (file, link, subdir) = (dir.path().join("file"), dir.path().join("link"), dir.path().join("subdir"));
        HostFiles.write(&file, b"0123456789", PLAIN).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        HostFiles.make_dir(&subdir).unwrap();
        let [pipe, socket] = ["pipe", "socket"].map(|name| dir.path().join(name));
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, limit) in [(&file, 9), (&link, 99), (&subdir, 99), (&pipe, 99), (&socket, 99)] {
            let error = HostFiles.read(path, limit).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{}", path.display());
        }
        assert_eq!(HostFiles.read(&file, 10).unwrap().unwrap(), b"0123456789");
    }

    /// Two changes of equal length within a tick of the clock look alike otherwise.
    #[test]
    fn a_version_stands_for_one_content_and_a_file_that_changed_just_now_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let version_when_old = || loop {
            if let Some(version) = HostFiles.version(&path).unwrap() {
                return version;
            }
            std::thread::yield_now();
        };
        assert_eq!(HostFiles.version(&path).unwrap(), None);
        let mut versions = Vec::new();
        for text in ["1", "2", "3"] {
            replace(&HostFiles, &path, text.as_bytes(), "me", PLAIN).unwrap();
            assert_eq!(HostFiles.version(&path).unwrap(), None, "it changed just now");
            let version = version_when_old();
            assert_eq!(HostFiles.version(&path).unwrap(), Some(version));
            versions.push(version);
            HostFiles.append(&path, b"x").unwrap();
            versions.push(version_when_old());
        }
        for (index, version) in versions.iter().enumerate() {
            assert!(!versions[..index].contains(version), "{versions:?}");
        }
        assert_eq!(HostFiles.version(dir.path()).unwrap(), None, "a directory");
    }

    #[test]
    fn an_absent_file_is_not_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("absent");
        assert_eq!(HostFiles.read(&absent, 9).unwrap(), None);
        assert_eq!(HostFiles.list(&absent).unwrap(), Vec::<String>::new());
        HostFiles.remove(&absent).unwrap();
        assert!(HostFiles.append(&absent, b"x").is_err());
    }
}
