// SPDX-License-Identifier: Apache-2.0
//! Removes a directory with all that is in it, however deep: containers may have written there.
//!
//! Deeper directories are moved up and removed there, so that two open directories suffice. No symlink is followed.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, openat, renameat_with, statat, unlinkat};
use rustix::io::Errno;

/// Removes the tree. A missing one is a success.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match open_dir(CWD, path) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        // A file or a symlink.
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(unlinkat(CWD, path, AtFlags::empty())?),
        Err(errno) => return Err(errno.into()),
    };
    let mut moved = 0;
    loop {
        let names = remove_files(&top)?;
        if names.is_empty() {
            return Ok(unlinkat(CWD, path, AtFlags::REMOVEDIR)?);
        }
        for name in names {
            let dir = open_dir(&top, &name)?;
            for below in remove_files(&dir)? {
                move_up(&dir, &below, &top, &mut moved)?;
            }
            unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
        }
    }
}

/// Opens a directory. Anything else is an error.
pub fn open_dir(beside: impl std::os::fd::AsFd, path: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    openat(beside, path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Removes all files of a directory. Returns the directories in it.
fn remove_files(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut dirs = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = FileType::from_raw_mode(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
        if kind.is_dir() {
            dirs.push(name.to_owned());
        } else {
            unlinkat(dir, name, AtFlags::empty())?;
        }
    }
    Ok(dirs)
}

fn move_up(from: &OwnedFd, name: &CString, to: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        let free = format!(".moved-{moved}");
        *moved += 1;
        match renameat_with(from, name, to, free, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            reply => return Ok(reply?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn a_tree_of_any_depth_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let top_path = dir.path().join("top");
        fs::create_dir(&top_path).unwrap();
        fs::create_dir(top_path.join(".moved-1")).unwrap();
        let mut below = open_dir(CWD, &top_path).unwrap();
        for _ in 0..3000 {
            mkdirat(&below, "d", Mode::RWXU).unwrap();
            mkdirat(&below, "e", Mode::RWXU).unwrap();
            below = open_dir(&below, "d").unwrap();
        }
        remove_tree(&top_path).unwrap();
        assert!(!top_path.exists());
        remove_tree(&top_path).unwrap();
    }

    #[test]
    fn no_symlink_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (top_path, other_path) = (dir.path().join("top"), dir.path().join("other"));
        fs::create_dir_all(top_path.join("in")).unwrap();
        fs::create_dir(&other_path).unwrap();
        fs::write(other_path.join("file"), "").unwrap();
        for link in ["link", "in/link"] {
            symlink(&other_path, top_path.join(link)).unwrap();
        }
        remove_tree(&top_path).unwrap();
        symlink(&other_path, &top_path).unwrap();
        remove_tree(&top_path).unwrap();
        assert!(!top_path.is_symlink() && other_path.join("file").exists());
    }
}
