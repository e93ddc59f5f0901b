// SPDX-License-Identifier: Apache-2.0
//! Paths inside a root directory. A symlink, absolute or not, never leads out of it.
//!
//! Debian's alternatives are absolute symlinks (`/usr/lib/…/libnvidia-ml.so.1 -> /etc/alternatives/…`). In a container that
//! sees the driver below `/driver-root`, an ordinary lookup would follow them into the container's own `/etc`. So the kernel
//! resolves them inside the root (`openat2` with `RESOLVE_IN_ROOT`, Linux 5.6).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// A directory that is `/` for every lookup in it.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    path: PathBuf,
}

/// The result of a lookup, symlinks followed.
#[derive(Debug)]
pub struct Found {
    /// Path relative to the root, without symlinks and without a leading slash.
    pub path: PathBuf,
    pub stat: Stat,
}

/// What an administrator does when the driver root cannot be opened.
pub const ADVICE: &str = "mount the NVIDIA driver there or correct the driver root";

/// The kernel returns EAGAIN for a lookup during a concurrent rename or mount.
const LOOKUPS: usize = 16;

impl Root {
    /// Opens the directory. It is opened again for each query, because another file system may be mounted there at any time.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let path = real_path(&dir)?;
        Ok(Self { dir, path })
    }

    pub fn find(&self, path: impl AsRef<Path>) -> io::Result<Found> {
        let file = self.lookup(path.as_ref(), OFlags::PATH)?;
        let stat = rustix::fs::fstat(&file)?;
        let path = real_path(&file)?;
        let inside = path.strip_prefix(&self.path).map_err(|_outside| io::Error::from(Errno::XDEV))?;
        Ok(Found { path: inside.to_owned(), stat })
    }

    /// Opens a file for reading.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<File> {
        Ok(self.lookup(path.as_ref(), OFlags::RDONLY | OFlags::NONBLOCK)?.into())
    }

    /// The names in a directory, sorted. Names that are not UTF-8 are left out.
    pub fn list(&self, path: impl AsRef<Path>) -> io::Result<Vec<String>> {
        let dir = self.lookup(path.as_ref(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir)? {
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The path for this process of a path that [`Root::find`] returned.
    pub fn outside(&self, found: &Path) -> PathBuf {
        self.path.join(found)
    }

    /// The directory itself, symlinks followed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lookup(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut last = Errno::AGAIN;
        for _ in 0..LOOKUPS {
            match rustix::fs::openat2(&self.dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(errno @ (Errno::AGAIN | Errno::INTR)) => last = errno,
                answer => return Ok(answer?),
            }
        }
        Err(last.into())
    }
}

/// The path of an open file for this process.
fn real_path(file: &OwnedFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn absolute_links_stay_in_the_root() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["usr/lib", "etc/alternatives", "usr/lib/nvidia/current"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        std::fs::write(dir.path().join("usr/lib/nvidia/current/libcuda.so.535"), "x").unwrap();
        symlink("/usr/lib/nvidia/current/libcuda.so.535", dir.path().join("etc/alternatives/libcuda")).unwrap();
        symlink("/etc/alternatives/libcuda", dir.path().join("usr/lib/libcuda.so.1")).unwrap();
        symlink("../../../../../../../../etc/passwd", dir.path().join("usr/lib/escape")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let found = root.find("usr/lib/libcuda.so.1").unwrap();
        assert_eq!(found.path, Path::new("usr/lib/nvidia/current/libcuda.so.535"));
        assert!(root.outside(&found.path).is_file());
        assert_eq!(root.find("usr/lib/escape").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(root.list("/usr/lib").unwrap(), [".", "..", "escape", "libcuda.so.1", "nvidia"]);
    }

    #[test]
    fn the_root_of_the_file_system_is_a_root_too() {
        let root = Root::open(Path::new("/")).unwrap();
        let found = root.find("dev/null").unwrap();
        assert_eq!((found.path.as_path(), root.outside(&found.path)), (Path::new("dev/null"), "/dev/null".into()));
    }
}
