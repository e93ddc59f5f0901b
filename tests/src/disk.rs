// SPDX-License-Identifier: Apache-2.0
//! A directory whose disk can be full or read-only.
//!
//! Root writes whatever the permissions say, so for root it is a small tmpfs of its own; for others permissions do.

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
    /// Nothing can be written, made or removed.
    ReadOnly,
}

/// Enough for a few records and specs.
const SIZE: &std::ffi::CStr = c"size=1m";

impl Disk {
    /// Puts a disk of its own at an empty directory.
    pub fn at(dir: &Path) -> Self {
        let mounted = geteuid().is_root();
        if mounted {
            mount("tmpfs", dir, "tmpfs", MountFlags::empty(), SIZE).expect("root may mount");
        }
        Self { dir: dir.to_owned(), mounted }
    }

    /// Lets the disk fail.
    pub fn hinder(&self, how: Hindrance) {
        match how {
            Hindrance::Full => self.fill(),
            Hindrance::ReadOnly => self.freeze(),
        }
    }

    fn fill(&self) {
        if !self.mounted {
            return self.freeze();
        }
        let mut file = File::create(self.ballast_path()).expect("the disk is writable");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn freeze(&self) {
        if self.mounted {
            mount_remount(&self.dir, MountFlags::RDONLY, "").expect("root may mount");
        } else {
            self.permit(0o555);
        }
    }

    /// Takes back [`Self::hinder`].
    pub fn release(&self) {
        if self.mounted {
            mount_remount(&self.dir, MountFlags::empty(), "").expect("root may mount");
            // There is none after a freeze.
            fs::remove_file(self.ballast_path()).ok();
        } else {
            self.permit(0o755);
        }
    }

    fn permit(&self, mode: u32) {
        fs::set_permissions(&self.dir, Permissions::from_mode(mode)).expect("an own directory");
    }

    fn ballast_path(&self) -> PathBuf {
        self.dir.join(".ballast")
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
