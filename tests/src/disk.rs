// SPDX-License-Identifier: Apache-2.0
//! A directory whose disk can be full, out of inodes or read-only.
//!
//! Root writes whatever the permissions say, so for root it is a small tmpfs of its own; for others permissions do.

use std::ffi::CStr;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use rustix::process::geteuid;

/// The disk below a directory; taken away when it is dropped.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    mounted: bool,
}

/// How a disk can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// No byte is free.
    Full,
    /// No file can be made.
    NoInodes,
    /// Nothing can be written, made or removed.
    ReadOnly,
}

/// Enough for a few records and specs.
const SMALL: &CStr = c"size=1m,nr_inodes=100";

/// Whatever a node writes to what does not outlive a boot.
const LARGE: &CStr = c"size=64m";

/// More than the disk has.
const INODES: u32 = 1000;

/// How the names of files begin that only take space.
const BALLAST: &str = ".ballast";

impl Disk {
    /// Puts a disk of its own at an empty directory.
    pub fn at(dir: &Path) -> Self {
        Self::with(dir, SMALL)
    }

    /// The same with room for everything: what `/run` is on every host.
    pub fn run_dir(dir: &Path) -> Self {
        Self::with(dir, LARGE)
    }

    fn with(dir: &Path, options: &CStr) -> Self {
        let mounted = geteuid().is_root();
        if mounted {
            mount("tmpfs", dir, "tmpfs", MountFlags::empty(), options).expect("root may mount");
        }
        Self { dir: dir.to_owned(), mounted }
    }

    /// How it can fail: without a disk of its own only permissions help.
    pub fn hindrances(&self) -> &'static [Hindrance] {
        if self.mounted { &[Hindrance::Full, Hindrance::NoInodes, Hindrance::ReadOnly] } else { &[Hindrance::ReadOnly] }
    }

    /// Lets the disk fail.
    pub fn hinder(&self, how: Hindrance) {
        match how {
            Hindrance::Full => {
                let mut file = File::create(self.ballast_path(0)).expect("the disk is writable");
                while file.write_all(&[0; 4096]).is_ok() {}
            }
            Hindrance::NoInodes => {
                let made = (0..INODES).take_while(|number| File::create(self.ballast_path(*number)).is_ok()).count();
                assert!(made > 0, "the disk is writable");
            }
            Hindrance::ReadOnly => self.freeze(),
        }
    }

    fn freeze(&self) {
        if self.mounted {
            mount_remount(&self.dir, MountFlags::RDONLY, "").expect("root may mount");
        } else {
            self.permit(0o555);
        }
    }

    /// Ends [`Self::hinder`].
    pub fn release(&self) {
        if self.mounted {
            mount_remount(&self.dir, MountFlags::empty(), "").expect("root may mount");
            (0..INODES).take_while(|number| fs::remove_file(self.ballast_path(*number)).is_ok()).count();
        } else {
            self.permit(0o755);
        }
    }

    fn permit(&self, mode: u32) {
        let below = fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.path());
        for dir in below.filter(|path| path.is_dir()).chain([self.dir.clone()]) {
            fs::set_permissions(dir, Permissions::from_mode(mode)).expect("an own directory");
        }
    }

    fn ballast_path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{BALLAST}-{number}"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            unmount(&self.dir, UnmountFlags::DETACH).ok();
        } else {
            self.permit(0o755);
        }
    }
}
