// SPDX-License-Identifier: Apache-2.0
//! The state of a machine in a file that several processes share.
//!
//! In: a driver root. Out: snapshots for readers, atomic changes for writers. A change takes the lock exclusively, writes a
//! new file beside the old one and renames it. What a kernel would show ([`crate::tree::instances`]) is drawn before for
//! new instances and erased after for gone ones, so that a writer that is killed leaves at most a file too many, which
//! the next change erases. A reader parses the file only if it was replaced, under the shared lock, and works
//! on a read-only mount. Nothing is fsynced, because the machine need not survive a power cut.

mod changes;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};

pub use self::changes::Changes;
use crate::State;
use crate::tree;

/// Why the shared state could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another user holds the lock file, or the directory is not there.
    #[error("failed to lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        source: io::Error,
    },
    /// The state is not there.
    #[error("failed to read {}; create a simulated machine with gpu-sim init", path.display())]
    Read {
        /// `state.json`.
        path: PathBuf,
        source: io::Error,
    },
    /// The state is of another build.
    #[error("failed to parse {}; create the machine again with gpu-sim init", path.display())]
    Parse {
        /// `state.json`.
        path: PathBuf,
        source: serde_json::Error,
    },
    /// The new state cannot be stored; the old one holds.
    #[error("failed to write {}", path.display())]
    Write {
        /// `state.json` or the file that was to become it.
        path: PathBuf,
        source: io::Error,
    },
    /// The change is stored or not, and the tree shows something else until the next change.
    #[error("failed to redraw the kernel's files after a change")]
    Redraw { source: tree::TreeError },
}

impl StoreError {
    /// Whether the reason is that this process may not write there.
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Lock { source, .. } | Self::Read { source, .. } | Self::Write { source, .. } => {
                matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
            }
            Self::Parse { .. } | Self::Redraw { .. } => false,
        }
    }
}

/// The shared state below one driver root.
#[derive(Debug)]
pub struct Store {
    root_dir: PathBuf,
    cached: Mutex<Option<Cached>>,
}

#[derive(Debug)]
struct Cached {
    stamp: Stamp,
    /// Held open so that the inode number of the file cannot be reused.
    _file: File,
    state: Arc<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl Store {
    /// The store of the machine whose driver root is `root_dir`. It reads and writes nothing.
    pub fn new(root_dir: impl Into<PathBuf>) -> Self {
        Self { root_dir: root_dir.into(), cached: Mutex::new(None) }
    }

    /// The driver root it is below.
    pub fn root_dir(&self) -> &Path {
        &self.root_dir
    }

    /// Writes the first state. The directory is made; an existing machine is replaced.
    pub fn create(&self, state: &State) -> Result<(), StoreError> {
        let dir = self.state_dir();
        std::fs::create_dir_all(&dir).map_err(|source| StoreError::Write { path: dir, source })?;
        let lock = self.lock(FlockOperation::LockExclusive)?;
        self.write(state)?;
        drop(lock);
        Ok(())
    }

    /// What changes after this call.
    pub fn changes(&self) -> Changes {
        Changes::of(&self.state_dir())
    }

    /// The state as it is now.
    pub fn read(&self) -> Result<Arc<State>, StoreError> {
        if let Some(state) = self.fresh_copy() {
            return Ok(state);
        }
        let lock = self.lock(FlockOperation::LockShared)?;
        let state = self.load()?;
        drop(lock);
        Ok(state)
    }

    /// Runs `change` on the newest state and stores the result, also if it returns an error (for example a counted fault).
    pub fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, StoreError> {
        let lock = self.lock(FlockOperation::LockExclusive)?;
        let before = self.fresh_copy().map_or_else(|| self.load(), Ok)?;
        let mut state = State::clone(&before);
        let answer = change(&mut state);
        if state != *before {
            state.generation += 1;
            self.replace(&state)?;
        }
        drop(lock);
        Ok(answer)
    }

    fn replace(&self, state: &State) -> Result<(), StoreError> {
        let Some(tree_dir) = tree::drawn_dir(&self.root_dir, state) else { return self.write(state) };
        let failed = |source| StoreError::Redraw { source };
        tree::instances::draw_new(&tree_dir, state).map_err(failed)?;
        self.write(state)?;
        tree::instances::erase_gone(&tree_dir, state).map_err(failed)
    }

    fn state_dir(&self) -> PathBuf {
        self.root_dir.join("var/lib/gpu-sim")
    }

    fn state_path(&self) -> PathBuf {
        self.state_dir().join("state.json")
    }

    fn lock(&self, operation: FlockOperation) -> Result<File, StoreError> {
        let path = self.state_dir().join("lock");
        let exclusive = operation == FlockOperation::LockExclusive;
        let opened = OpenOptions::new().read(true).write(exclusive).create(exclusive).truncate(false).open(&path);
        let file = opened.map_err(|source| StoreError::Lock { path: path.clone(), source })?;
        flock(&file, operation).map_err(|errno| StoreError::Lock { path, source: errno.into() })?;
        Ok(file)
    }

    fn fresh_copy(&self) -> Option<Arc<State>> {
        let stamp = Stamp::of(&std::fs::metadata(self.state_path()).ok()?);
        let cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.as_ref().filter(|cached| cached.stamp == stamp).map(|cached| Arc::clone(&cached.state))
    }

    fn load(&self) -> Result<Arc<State>, StoreError> {
        let path = self.state_path();
        let failed = |source| StoreError::Read { path: path.clone(), source };
        let mut file = File::open(&path).map_err(failed)?;
        let stamp = Stamp::of(&file.metadata().map_err(failed)?);
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes).map_err(failed)?;
        let state: State =
            serde_json::from_slice(&bytes).map_err(|source| StoreError::Parse { path: path.clone(), source })?;
        let state = Arc::new(state);
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        *cached = Some(Cached { stamp, _file: file, state: Arc::clone(&state) });
        Ok(state)
    }

    fn write(&self, state: &State) -> Result<(), StoreError> {
        let path = self.state_path();
        // Only the holder of the lock writes it, and the next holder overwrites the file of a killed one.
        let new_path = self.state_dir().join("state.json.new");
        let bytes =
            serde_json::to_vec_pretty(state).map_err(|source| StoreError::Parse { path: path.clone(), source })?;
        std::fs::write(&new_path, bytes).map_err(|source| StoreError::Write { path: new_path.clone(), source })?;
        std::fs::rename(&new_path, &path).map_err(|source| StoreError::Write { path, source })
    }
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self { inode: metadata.ino(), modified: (metadata.mtime(), metadata.mtime_nsec()), size: metadata.size() }
    }
}
