// SPDX-License-Identifier: Apache-2.0
//! Covers the parameters of the NVIDIA driver with a copy that has `ModifyDeviceFiles: 0`.
//!
//! With `ModifyDeviceFiles: 1` NVIDIA's libraries create missing device nodes: a container would get nodes of GPUs that it
//! was not given. The device cgroup refuses to open them, but programs list them. Runtimes refuse mounts below `/proc` of a
//! CDI spec, so only a hook can cover the file.
//!
//! ```text
//! tmpfs, never at a path of the image -> file with the copy -> read-only -> mounted for a moment on the procfs directory of the
//! parameters, because only a mount of this namespace can be cloned -> clone of the file -> unmounted -> clone on the parameters
//! ```
//!
//! The file must lie on the procfs that is mounted at `/proc` of the container, without a mount over it. If that is the procfs of
//! the host, nothing is mounted, because a volume may share its mounts with the host. Everything is mounted from one open
//! descriptor to another, so no path is resolved twice.
//!
//! Sources: fsopen(2), open_tree(2), move_mount(2), which exist since Linux 5.2 and need CAP_SYS_ADMIN in the user namespace of
//! the mount namespace; the meaning of the parameter is in README.txt of NVIDIA's Linux driver, "How can I prevent the driver
//! from creating device files".

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, PROC_SUPER_MAGIC, fchmod, fstatfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};
use rustix::process::fchdir;

use crate::resolve::{self, ContainerRoot, Identity};

/// The driver 580 has about 1 KiB.
const MAX_PARAMS_BYTES: u64 = 64 * 1024;

/// The parameter, at the start of a line.
const NAME: &str = "ModifyDeviceFiles:";

const COPY: &str = "params";

/// The parameters are not covered.
#[derive(Debug, thiserror::Error)]
pub enum ParamsError {
    #[error("/proc of the container is not a procfs")]
    NoProcfs,
    /// A mount on it could appear on the host.
    #[error("/proc of the container is that of the host")]
    HostProcfs,
    #[error("failed to open /proc/{}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to read /proc/{}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to create a copy of the driver's parameters on a tmpfs")]
    Copy {
        #[source]
        source: io::Error,
    },
    #[error("failed to mount a copy on /proc/{}", path.display())]
    Mount {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Covers the file at a path below `/proc`. Nothing to do if the file is missing, covered, or has another value than 1.
pub fn mask(root: &ContainerRoot, path: &Path) -> Result<(), ParamsError> {
    let open = |source| ParamsError::Open { path: path.to_owned(), source };
    let proc = resolve::mount_point(root.dir(), Path::new("proc")).map_err(|_absent| ParamsError::NoProcfs)?;
    if !fstatfs(&proc).is_ok_and(|filesystem| filesystem.f_type == PROC_SUPER_MAGIC) {
        return Err(ParamsError::NoProcfs);
    }
    let host = resolve::host_dir(Path::new("/proc")).and_then(Identity::of);
    let own = Identity::of(&proc).map_err(|source| ParamsError::Open { path: PathBuf::new(), source })?;
    if host.is_ok_and(|host| host.is_same_file(&own)) {
        return Err(ParamsError::HostProcfs);
    }
    let target = match resolve::entry(&proc, path) {
        Ok(target) => target,
        // Without the driver's module there is no file; another hook of the container has covered it.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::XDEV)) => return Ok(()),
        Err(source) => return Err(open(source)),
    };
    let read = || resolve::reopen(&proc, path, &target).and_then(|file| resolve::read(file, MAX_PARAMS_BYTES));
    let params = read().map_err(|source| ParamsError::Read { path: path.to_owned(), source })?;
    let Some(masked) = without_modification(&params) else { return Ok(()) };
    let dir = resolve::entry(&proc, path.parent().unwrap_or(path)).map_err(open)?;
    let tmpfs = copy(&masked).map_err(|source| ParamsError::Copy { source })?;
    cover(&tmpfs, &dir, &target).map_err(|source| ParamsError::Mount { path: path.to_owned(), source })
}

/// The parameters with the value 0, if the value is 1.
fn without_modification(params: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(params).ok()?;
    let is_switch = |line: &str| line.strip_prefix(NAME).is_some_and(|value| value.trim() == "1");
    let masked = |line: &str| if is_switch(line) { format!("{NAME} 0\n") } else { line.to_owned() };
    text.lines().any(is_switch).then(|| text.split_inclusive('\n').map(masked).collect::<String>().into_bytes())
}

/// A mount of a new tmpfs that contains nothing but the copy and is read-only.
fn copy(content: &[u8]) -> io::Result<OwnedFd> {
    let tmpfs_context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (option, value) in [("source", "gpu-cdi-hook"), ("size", "128k"), ("nr_inodes", "4"), ("mode", "0755")] {
        fsconfig_set_string(&tmpfs_context, option, value)?;
    }
    fsconfig_create(&tmpfs_context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_RELATIME;
    let tmpfs = fsmount(&tmpfs_context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let mut file = resolve::create(&tmpfs, COPY.as_ref())?;
    file.write_all(content)?;
    fchmod(&file, Mode::RUSR | Mode::RGRP | Mode::ROTH)?;
    drop(file);
    fsconfig_set_flag(&tmpfs_context, "ro")?;
    fsconfig_reconfigure(&tmpfs_context)?;
    Ok(tmpfs)
}

/// Mounts the copy of a tmpfs on `target`, by way of a directory of procfs.
fn cover(tmpfs: &OwnedFd, dir: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    attach(tmpfs, dir)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(tmpfs, COPY, flags | OpenTreeFlags::AT_SYMLINK_NOFOLLOW);
    // There is no call to unmount a descriptor: the working directory is the only path that cannot lead elsewhere.
    let detached = fchdir(tmpfs).and_then(|()| unmount(".", UnmountFlags::DETACH | UnmountFlags::NOFOLLOW));
    let clone = clone?;
    detached?;
    attach(&clone, target)
}

fn attach(mount: impl AsFd, at: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", at, "", flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_switch_changes() {
        let masked = |text: &str| without_modification(text.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap());
        let text = "ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 1\nDeviceFileMode: 438\nRegistryDwords: \"\"\n";
        let expected =
            "ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 0\nDeviceFileMode: 438\nRegistryDwords: \"\"\n";
        assert_eq!(masked(text).as_deref(), Some(expected));
        assert_eq!(masked("ModifyDeviceFiles: 1").as_deref(), Some("ModifyDeviceFiles: 0\n"));
        for text in [expected, "", "DeviceFileMode: 438\n", "XModifyDeviceFiles: 1\n", "ModifyDeviceFiles: 10\n"] {
            assert_eq!(masked(text), None, "{text}");
        }
    }
}
