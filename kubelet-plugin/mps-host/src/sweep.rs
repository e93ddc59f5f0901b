// SPDX-License-Identifier: Apache-2.0
//! Removes from the shared memory of a daemon what no process uses: open, mapped, or as its directory.
//!
//! Comes in: what a claim that left may have left there. CheckResult at twice, since a client may hand the name of a file to a
//! server, which opens it a moment later: whoever waits for a claim to leave waits for that. CheckResult at some more times, since a
//! server lets go of a client that ended a moment later.
//! Where looking fails, all counts as used. Sockets are never removed: nothing tells whether one that is bound is used.

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

/// Between the first two looks.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Between the later ones.
const PAUSE: Duration = Duration::from_secs(1);

/// How often it is checked; what is used at the last look stays.
const MAX_LOOKS: usize = 10;

/// How long one look may take; one at a process that hangs may hang too.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// A directory with more below it than this is left alone.
const MAX_BELOW: usize = 4096;

/// A directory that is deeper than this is left alone.
const MAX_DEPTH: usize = 16;

/// What is at the top of a directory. One that is not there is empty.
pub fn entries(dir: &Path) -> io::Result<Vec<Entry>> {
    let found = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    found.map(|entry| entry.map(|entry| Entry { name: entry.file_name(), inode: entry.ino() })).collect()
}

/// The path of a directory that is open, which is of no other one as long as it is.
pub fn path_of(opened: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", opened.as_raw_fd()).into()
}

/// Removes those of these entries of a directory that no process uses; lets go of `waiting` after the second look.
pub async fn sweep(opened: OwnedFd, mut left: Vec<Entry>, waiting: oneshot::Sender<()>) {
    let mut waiting = Some(waiting);
    // Shared with looks, one of which may go on when it is not waited for any more.
    let opened = Arc::new(opened);
    let (mut unused, begun) = (BTreeSet::new(), left.len());
    for looks in 0..MAX_LOOKS {
        if left.is_empty() {
            break;
        }
        match looks {
            0 => {}
            1 => sleep(FIRST_PAUSE).await,
            _ => {
                waiting = None;
                sleep(PAUSE).await;
            }
        }
        let look = spawn_blocking({
            let (opened, before) = (Arc::clone(&opened), std::mem::take(&mut unused));
            move || sweep_once(&path_of(&opened), left, &before)
        });
        (left, unused) = match timeout(LOOK_TIMEOUT, look).await {
            Ok(Ok(Ok(checked))) => checked,
            Ok(Ok(Err(error))) => return warn!(%error, "what an ended sharer left in shared memory is saved"),
            Ok(Err(_)) | Err(_) => return warn!("what an ended sharer left in shared memory is saved: processes hang"),
        };
    }
    drop(waiting);
    if begun > 0 {
        info!(removed = begun - left.len(), used = left.len(), "swept what an ended sharer left in shared memory");
    }
}

/// Removes what is as unused as before; tells what is left, and which of that is unused now.
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

/// What belongs to an entry.
enum At {
    /// It is exited, or another one has its name.
    Nothing,
    /// That cannot be told, or whether it is used cannot.
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

/// Whether these are all inodes below a directory, and none is a socket.
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

/// A file, wherever it is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: (u32, u32),
    inode: u64,
}

/// Without asking the server of a network file system, which may not reply.
fn identity(path: &Path, flags: AtFlags) -> io::Result<Identity> {
    let found = statx(CWD, path, flags | AtFlags::STATX_DONT_SYNC, StatxFlags::INO)?;
    Ok(Identity { device: (found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino })
}

/// The inodes of the file system of a directory that processes use. Of what is open only what has a path with one of these
/// names in it is checked at.
fn used_inodes(dir: &Path, names: &BTreeSet<OsString>) -> io::Result<BTreeSet<u64>> {
    let Identity { device, .. } = identity(dir, AtFlags::empty())?;
    let mut used = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let is_process = entry.file_name().as_bytes().iter().all(u8::is_ascii_digit);
        // Root that may trace processes may look at all of its own user namespace and of those below, where containers are.
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
            // A path that is too long to be read may have any name in it.
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

/// Whether a process has ended, or closed a file, since it was listed.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// The inode that a line of `maps` is about, if it is on a device (`proc_pid_maps(5)`: address, permissions, offset, device,
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

    /// What is left of these after as many looks as it takes.
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
    fn what_is_open_or_holds_something_open_stays() {
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
    fn a_file_is_looked_at_twice_and_only_as_long_as_it_is_the_same() {
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
    fn what_is_mapped_is_used() {
        // This program is mapped and not open.
        let program = fs::read_link("/proc/self/exe").unwrap();
        let names = BTreeSet::new();
        let used = used_inodes(program.parent().unwrap(), &names).unwrap();
        assert!(used.contains(&identity(&program, AtFlags::empty()).unwrap().inode));
        let line = b"7f12a000-7f12b000 rw-s 00000000 00:1f 4711                       /dev/shm/a b";
        assert_eq!((mapped(line, (0, 0x1f)), mapped(line, (0, 0x20)), mapped(b"", (0, 0))), (Some(4711), None, None));
    }
}
