// SPDX-License-Identifier: Apache-2.0
//! Files with injected faults, for crash tests. No program of the product uses them.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::host::HostFiles;
use crate::port::{FileVersion, Files, NewFile};

/// The fault at the chosen effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this error, and later ones work again.
    Once(Errno),
    /// It and every later effect fail, as on a read-only disk; reading still works.
    FromNowOn(Errno),
    /// It and every later effect that takes space fail, as on a full disk; removing and renaming still work.
    Full,
    /// The process is killed: a write is left half done, and every later access fails.
    Crash,
}

/// [`HostFiles`] with a count of reads and effects, and a fault at one of the effects. An fsync does nothing.
#[derive(Debug, Default)]
pub struct FaultyFiles {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reads: u64,
    effects: u64,
    fault: Option<(u64, Fault)>,
    crashed: bool,
    unreadable: Option<PathBuf>,
}

/// Whether an effect needs space on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Space {
    Takes,
    TakesNone,
}

enum Verdict {
    Work,
    Fail(io::Error),
    HalfThenFail(io::Error),
}

impl FaultyFiles {
    /// How often the content of a file was read.
    pub fn reads(&self) -> u64 {
        self.state.lock().reads
    }

    pub fn effects(&self) -> u64 {
        self.state.lock().effects
    }

    /// Makes the effect after `after` further ones fail.
    pub fn fail_after(&self, after: u64, fault: Fault) {
        let mut state = self.state.lock();
        state.fault = Some((state.effects + after, fault));
    }

    /// Makes one file unreadable, as on a bad sector.
    pub fn lose(&self, path: &Path) {
        self.state.lock().unreadable = Some(path.to_owned());
    }

    /// Whether the process was killed by [`Fault::Crash`].
    pub fn is_crashed(&self) -> bool {
        self.state.lock().crashed
    }

    /// Removes all faults, as for a new process on a repaired machine.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        *state = State { reads: state.reads, effects: state.effects, ..State::default() };
    }

    fn effect(&self, space: Space) -> Verdict {
        let mut state = self.state.lock();
        let now = state.effects;
        state.effects += 1;
        if state.crashed {
            return Verdict::Fail(crashed());
        }
        match state.fault {
            Some((at, Fault::Once(errno))) if now == at => Verdict::Fail(errno.into()),
            Some((at, Fault::FromNowOn(errno))) if now >= at => Verdict::Fail(errno.into()),
            Some((at, Fault::Full)) if now >= at && space == Space::Takes => Verdict::Fail(Errno::NOSPC.into()),
            Some((at, Fault::Crash)) if now >= at => {
                state.crashed = true;
                Verdict::HalfThenFail(crashed())
            }
            Some(_) | None => Verdict::Work,
        }
    }

    fn simple(&self, space: Space, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.effect(space) {
            Verdict::Work => work(),
            Verdict::Fail(error) | Verdict::HalfThenFail(error) => Err(error),
        }
    }

    fn alive(&self) -> io::Result<()> {
        if self.state.lock().crashed { Err(crashed()) } else { Ok(()) }
    }
}

fn crashed() -> io::Error {
    io::Error::other("the process was killed here")
}

fn half(bytes: &[u8]) -> &[u8] {
    bytes.get(..bytes.len() / 2).unwrap_or_default()
}

impl Files for FaultyFiles {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        self.alive()?;
        self.state.lock().reads += 1;
        if self.state.lock().unreadable.as_deref() == Some(path) {
            return Err(Errno::IO.into());
        }
        HostFiles.read(path, limit)
    }

    fn version(&self, path: &Path) -> io::Result<Option<FileVersion>> {
        self.alive()?;
        // The next read fails.
        let is_unreadable = self.state.lock().unreadable.as_deref() == Some(path);
        if is_unreadable { Ok(None) } else { HostFiles.version(path) }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.alive()?;
        HostFiles.list(dir)
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.simple(Space::Takes, || HostFiles.make_dir(dir))
    }

    fn write(&self, path: &Path, bytes: &[u8], how: NewFile) -> io::Result<()> {
        let how = NewFile { durable: false, ..how };
        match self.effect(Space::Takes) {
            Verdict::Work => HostFiles.write(path, bytes, how),
            Verdict::Fail(error) => Err(error),
            Verdict::HalfThenFail(error) => HostFiles.write(path, half(bytes), how).and(Err(error)),
        }
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        match self.effect(Space::Takes) {
            Verdict::Work => HostFiles.append(path, bytes),
            Verdict::Fail(error) => Err(error),
            Verdict::HalfThenFail(error) => HostFiles.append(path, half(bytes)).and(Err(error)),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.simple(Space::TakesNone, || HostFiles.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.simple(Space::TakesNone, || HostFiles.remove(path))
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.simple(Space::TakesNone, || Ok(()))
    }
}
