// SPDX-License-Identifier: Apache-2.0
//! Removes from the shared memory of a daemon the entries that no process has open, mapped, or as its directory.
//!
//! Input are the entries that an ended claim may have left. An entry is removed when two scans in a row find it unused, because
//! a client may pass the name of a file to a server, which opens it a moment later; the end of a claim waits for these two. Some
//! more scans follow, because a server releases the files of an ended client a moment later. Where a scan fails, everything
//! counts as used. Sockets are never removed: /proc does not show whether a bound socket is used.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirEntryExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::remove_tree::remove_tree;
use crate::sharing_claims::Entry;

/// Pause between the first two scans.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Pause between the later scans.
const PAUSE: Duration = Duration::from_secs(1);

/// Scans of one sweep. Entries that are used at the last scan stay.
const MAX_SCANS: usize = 10;

/// Time for one scan: reading /proc of a process that hangs may hang too.
const SCAN_TIMEOUT: Duration = Duration::from_secs(5);

/// Inodes below a directory. One with more is not removed.
const MAX_BELOW: usize = 4096;

/// Levels below a directory. One with more is not removed.
const MAX_DEPTH: usize = 16;

/// The entries of a directory. A missing directory has none.
pub fn entries(dir: &Path) -> io::Result<Vec<Entry>> {
    let found = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    found.map(|entry| entry.map(|entry| Entry { name: entry.file_name(), inode: entry.ino() })).collect()
}

/// The path of an open directory. It names the same directory as long as that is open.
pub fn path_of(opened: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", opened.as_raw_fd()).into()
}

/// Removes the unused ones of these entries of a directory. Drops `waiting` after the second scan.
pub async fn sweep(opened: OwnedFd, mut left: Vec<Entry>, waiting: oneshot::Sender<()>) {
    let mut waiting = Some(waiting);
    // Shared with the scans: a scan that runs into its timeout continues.
    let opened = Arc::new(opened);
    let (mut unused, count) = (BTreeSet::new(), left.len());
    for scans in 0..MAX_SCANS {
        if left.is_empty() {
            break;
        }
        match scans {
            0 => {}
            1 => sleep(FIRST_PAUSE).await,
            _ => {
                waiting = None;
                sleep(PAUSE).await;
            }
        }
        let scan = spawn_blocking({
            let (opened, before) = (Arc::clone(&opened), std::mem::take(&mut unused));
            move || sweep_once(&path_of(&opened), left, &before)
        });
        (left, unused) = match timeout(SCAN_TIMEOUT, scan).await {
            Ok(Ok(Ok(scanned))) => scanned,
            Ok(Ok(Err(error))) => {
                return warn!(%error, "failed to sweep the shared memory of an ended claim, its files stay");
            }
            Ok(Err(_)) | Err(_) => {
                return warn!("timeout of the sweep of shared memory after the end of a claim, its files stay");
            }
        };
    }
    drop(waiting);
    if count > 0 {
        info!(removed = count - left.len(), used = left.len(), "swept the shared memory after the end of a claim");
    }
}

/// Removes the entries that the scan before found unused too. Returns the entries that are left, and the unused inodes of them.
fn sweep_once(dir: &Path, entries: Vec<Entry>, before: &BTreeSet<u64>) -> io::Result<(Vec<Entry>, BTreeSet<u64>)> {
    let names: BTreeSet<OsString> = entries.iter().map(|entry| entry.name.clone()).collect();
    let used = used_inodes(dir, &names)?;
    let (mut left, mut unused) = (Vec::new(), BTreeSet::new());
    for entry in entries {
        let path = dir.join(&entry.name);
        let is_unused = match inodes_at(&path, &entry)? {
            At::Nothing => continue,
            At::Unknown => false,
            At::Inodes(inodes) => inodes.is_disjoint(&used),
        };
        if is_unused && before.contains(&entry.inode) {
            remove_tree(&path)?;
            continue;
        }
        unused.extend(is_unused.then_some(entry.inode));
        left.push(entry);
    }
    Ok((left, unused))
}

/// The inodes of an entry.
enum At {
    /// The entry was removed, or another one has its name.
    Nothing,
    /// A socket, or more inodes than are compared.
    Unknown,
    Inodes(BTreeSet<u64>),
}

fn inodes_at(path: &Path, entry: &Entry) -> io::Result<At> {
    let found = match identity(path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(At::Nothing),
        found => found?,
    };
    if found.inode != entry.inode {
        return Ok(At::Nothing);
    }
    let mut inodes = BTreeSet::from([entry.inode]);
    let kind = fs::symlink_metadata(path)?.file_type();
    let is_known = !kind.is_socket() && (!kind.is_dir() || has_all(path, MAX_DEPTH, &mut inodes)?);
    Ok(if is_known { At::Inodes(inodes) } else { At::Unknown })
}

/// Adds the inodes below a directory. Returns whether these are all, and none is a socket.
fn has_all(dir: &Path, depth: usize, inodes: &mut BTreeSet<u64>) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        inodes.insert(entry.ino());
        let is_too_much = kind.is_socket() || inodes.len() > MAX_BELOW || depth == 0;
        if is_too_much || (kind.is_dir() && !has_all(&entry.path(), depth - 1, inodes)?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A file, by whatever path it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: (u32, u32),
    inode: u64,
}

/// Reads the identity without a request to the server of a network file system, which may hang.
fn identity(path: &Path, flags: AtFlags) -> io::Result<Identity> {
    let found = statx(CWD, path, flags | AtFlags::STATX_DONT_SYNC, StatxFlags::INO)?;
    Ok(Identity { device: (found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino })
}

/// The inodes on the file system of a directory that processes use. Of the open files only those with one of these names in
/// their path are compared.
fn used_inodes(dir: &Path, names: &BTreeSet<OsString>) -> io::Result<BTreeSet<u64>> {
    let Identity { device, .. } = identity(dir, AtFlags::empty())?;
    let mut used = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let is_process = entry.file_name().as_bytes().iter().all(u8::is_ascii_digit);
        // With SYS_PTRACE root may read all processes of its user namespace and of those below, where containers are.
        if is_process
            && let Err(error) = note_used(&entry.path(), device, names, &mut used)
            && !has_ended(&error)
            && error.kind() != io::ErrorKind::PermissionDenied
        {
            return Err(error);
        }
    }
    Ok(used)
}

fn note_used(
    process_dir: &Path,
    device: (u32, u32),
    names: &BTreeSet<OsString>,
    used: &mut BTreeSet<u64>,
) -> io::Result<()> {
    let open = fs::read_dir(process_dir.join("fd"))?.map(|entry| entry.map(|entry| entry.path()));
    for link in open.chain([Ok(process_dir.join("cwd")), Ok(process_dir.join("root"))]) {
        let link = link?;
        let is_candidate = match fs::read_link(&link) {
            Err(error) if has_ended(&error) => continue,
            // A path too long for a link may contain any name.
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => true,
            target => target?.iter().any(|name| names.contains(name)),
        };
        match is_candidate.then(|| identity(&link, AtFlags::empty())).transpose() {
            Err(error) if has_ended(&error) => {}
            found => used.extend(found?.filter(|found| found.device == device).map(|found| found.inode)),
        }
    }
    let maps = fs::read(process_dir.join("maps"))?;
    used.extend(maps.split(|byte| *byte == b'\n').filter_map(|line| mapped(line, device)));
    Ok(())
}

/// Whether the process has exited, or closed the file, since it was listed.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// The inode of a line of `maps`, if it is on this device (`proc_pid_maps(5)`: address, permissions, offset, device,
/// inode).
fn mapped(line: &[u8], (major, minor): (u32, u32)) -> Option<u64> {
    let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty()).skip(3);
    let device = fields.next()?;
    let inode = OsStr::from_bytes(fields.next()?).to_str()?.parse().ok()?;
    (device == format!("{major:02x}:{minor:02x}").as_bytes()).then_some(inode)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};

    use super::*;

    /// The entries that are left after three scans.
    fn swept(dir: &Path) -> Vec<OsString> {
        let (mut left, mut unused) = (entries(dir).unwrap(), BTreeSet::new());
        for _ in 0..3 {
            (left, unused) = sweep_once(dir, left, &unused).unwrap();
        }
        let mut names: Vec<OsString> = entries(dir).unwrap().into_iter().map(|entry| entry.name).collect();
        names.sort();
        names
    }

    #[test]
    fn open_entries_and_directories_of_open_entries_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a/b", "deep/er", "cwd"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        for name in ["left", "open", "a/b/open", "deep/er/left", "fd"] {
            fs::write(path(name), "x").unwrap();
        }
        let _socket = UnixListener::bind(path("socket")).unwrap();
        let held = [fs::File::open(path("open")).unwrap(), fs::File::open(path("a/b/open")).unwrap()];
        let mut command = Command::new("cat");
        command.current_dir(path("cwd")).stdin(Stdio::piped()).stdout(fs::File::create(path("other")).unwrap());
        let mut child = command.spawn().unwrap();
        assert_eq!(swept(dir.path()), ["a", "cwd", "open", "other", "socket"]);
        drop((held, child.stdin.take(), command));
        child.wait().unwrap();
        assert_eq!(swept(dir.path()), ["socket"]);
    }

    #[test]
    fn a_file_is_removed_after_two_scans_and_only_if_it_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "").unwrap();
        let first = entries(dir.path()).unwrap();
        let (left, unused) = sweep_once(dir.path(), first.clone(), &BTreeSet::new()).unwrap();
        assert_eq!((left, unused.len(), path.exists()), (first.clone(), 1, true));
        fs::write(dir.path().join("new"), "").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(sweep_once(dir.path(), first, &unused).unwrap(), (Vec::new(), BTreeSet::new()));
        assert!(path.exists());
    }

    #[test]
    fn a_mapped_file_is_used() {
        // This program is mapped and not open.
        let program = fs::read_link("/proc/self/exe").unwrap();
        let names = BTreeSet::new();
        let used = used_inodes(program.parent().unwrap(), &names).unwrap();
        assert!(used.contains(&identity(&program, AtFlags::empty()).unwrap().inode));
        let line = b"7f12a000-7f12b000 rw-s 00000000 00:1f 4711                       /dev/shm/a b";
        assert_eq!((mapped(line, (0, 0x1f)), mapped(line, (0, 0x20)), mapped(b"", (0, 0))), (Some(4711), None, None));
    }
}
