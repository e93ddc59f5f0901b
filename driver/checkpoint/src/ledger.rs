// SPDX-License-Identifier: Apache-2.0
//! What belongs to a GPU and not to a claim: the settings found before the first claim that changed them, the settings in
//! force, and the daemons that were started. In comes a ledger, out goes the file `gpus/<uuid>.json`.
//!
//! ```text
//! (no file) -> ledger -> ledger -> (no file)          no file: the GPU is as the administrator left it
//! ```
//!
//! Every change is durable when the call returns, and happens before the setting that it is about changes. Callers hold
//! the GPU's lock when they change a ledger; reading needs none, since a file is replaced whole.
//!
//! A ledger that cannot be understood is renamed to `….json.damaged` and still counts, as one whose settings are not
//! known, until another one is put or it is removed. Then `.settled` is added and the bytes are there for people only. One
//! that a newer driver wrote is left for it.

mod content;
mod v1;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dra_model::GpuUuid;

use crate::frame::{self, Kind};
use crate::store::StoreError;
use crate::versions::DecodeError;
pub use content::GpuLedger;
use dra_files::{Files, NewFile, TEMP_SUFFIX};

/// What one lookup found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerFound {
    /// Nothing is owed.
    Nothing,
    Ledger(Box<GpuLedger>),
    /// Something that is not known.
    Damaged(DamagedLedger),
    /// Something that only a newer driver knows.
    Newer(DamagedLedger),
}

/// A ledger that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedLedger {
    /// Which GPU it is named after.
    pub gpu: GpuUuid,
    pub path: PathBuf,
    /// What is wrong with them.
    pub reason: String,
}

/// What is in the folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LedgerListing {
    /// Ledgers, ordered by GPU.
    pub ledgers: Vec<GpuLedger>,
    /// Those that cannot be understood, ordered by GPU.
    pub damaged: Vec<DamagedLedger>,
    /// Those of a newer driver, ordered by GPU.
    pub newer: Vec<DamagedLedger>,
    /// GPUs with a temporary file; it is a leftover unless that GPU's lock is held.
    pub unfinished: Vec<GpuUuid>,
    /// What nobody here wrote.
    pub foreign: Vec<PathBuf>,
}

const SUFFIX: &str = ".json";

const DAMAGED_SUFFIX: &str = ".json.damaged";

const CLEARED_SUFFIX: &str = ".json.damaged.settled";

const DURABLE: NewFile = NewFile { mode: 0o600, durable: true };

/// The ledgers of this node.
#[derive(Debug, Clone)]
pub struct LedgerStore {
    files: Arc<dyn Files>,
    dir: PathBuf,
}

impl LedgerStore {
    /// Opens, and makes if need be, `gpus/` below `state_dir`.
    pub fn open(files: Arc<dyn Files>, state_dir: &Path) -> Result<Self, StoreError> {
        let dir = state_dir.join("gpus");
        files.make_dir(&dir).map_err(|source| StoreError::MakeDir { path: dir.clone(), source })?;
        Ok(Self { files, dir })
    }

    /// Looks a GPU up.
    pub fn load(&self, gpu: &GpuUuid) -> Result<LedgerFound, StoreError> {
        let (path, damaged) = (self.path(gpu), self.damaged_path(gpu));
        match self.read(gpu, &path)? {
            Some(Ok(ledger)) => Ok(LedgerFound::Ledger(Box::new(ledger))),
            Some(Err(Unread::Newer(reason))) => {
                Ok(LedgerFound::Newer(DamagedLedger { gpu: gpu.clone(), path, reason }))
            }
            Some(Err(Unread::Damaged(reason))) => match self.files.rename(&path, &damaged) {
                Ok(()) => Ok(LedgerFound::Damaged(DamagedLedger { gpu: gpu.clone(), path: damaged, reason })),
                Err(source) => Err(StoreError::Quarantine { path, reason, source }),
            },
            None => match self.read(gpu, &damaged)? {
                None => Ok(LedgerFound::Nothing),
                // Somebody put it right.
                Some(Ok(ledger)) => Ok(LedgerFound::Ledger(Box::new(ledger))),
                Some(Err(Unread::Newer(reason) | Unread::Damaged(reason))) => {
                    Ok(LedgerFound::Damaged(DamagedLedger { gpu: gpu.clone(), path: damaged, reason }))
                }
            },
        }
    }

    /// Writes a ledger; it survives a power cut when this returns. A damaged one of this GPU counts no longer.
    pub fn put(&self, ledger: &GpuLedger) -> Result<(), StoreError> {
        let path = self.path(&ledger.gpu);
        let bytes = v1::encode(ledger).map_err(|source| StoreError::Encode { path: path.clone(), source })?;
        dra_files::replace(&*self.files, &path, &bytes, ledger.gpu.as_str(), DURABLE)
            .map_err(|source| StoreError::Write { path, source })?;
        self.clear_damaged(&ledger.gpu)
    }

    /// Forgets what is owed to a GPU, a damaged ledger included; an unknown one is forgotten already.
    pub fn remove(&self, gpu: &GpuUuid) -> Result<(), StoreError> {
        // The damaged one first: cut in the middle, the good one still counts.
        self.clear_damaged(gpu)?;
        let path = self.path(gpu);
        let removed = self.files.remove(&path).and_then(|()| self.files.sync_dir(&self.dir));
        removed.map_err(|source| StoreError::Remove { path, source })
    }

    /// Everything in the folder. A ledger that cannot be read or moved stops no other and is told with its old path.
    pub fn list(&self) -> Result<LedgerListing, StoreError> {
        let dir = &self.dir;
        let names = self.files.list(dir).map_err(|source| StoreError::List { path: dir.clone(), source })?;
        let mut listing = LedgerListing::default();
        let mut gpus = BTreeSet::new();
        for name in names {
            match Entry::of(&name) {
                Entry::Ledger(gpu) => {
                    gpus.insert(gpu);
                }
                Entry::Temp(gpu) => listing.unfinished.push(gpu),
                Entry::Cleared => {}
                Entry::Foreign => listing.foreign.push(dir.join(name)),
            }
        }
        for gpu in gpus {
            self.list_one(gpu, &mut listing)?;
        }
        Ok(listing)
    }

    /// Removes what a cut write left behind. The caller holds the GPU's lock.
    pub fn remove_unfinished(&self, gpu: &GpuUuid) -> Result<(), StoreError> {
        let path = self.dir.join(temp_name(gpu));
        self.files.remove(&path).map_err(|source| StoreError::Remove { path, source })
    }

    /// Where the ledger of a GPU is.
    pub fn path(&self, gpu: &GpuUuid) -> PathBuf {
        self.dir.join(format!("{gpu}{SUFFIX}"))
    }

    fn damaged_path(&self, gpu: &GpuUuid) -> PathBuf {
        self.dir.join(format!("{gpu}{DAMAGED_SUFFIX}"))
    }

    /// The ledger in a file, or what is wrong with it.
    fn read(&self, gpu: &GpuUuid, path: &Path) -> Result<Option<Result<GpuLedger, Unread>>, StoreError> {
        match self.files.read(path, frame::MAX_BYTES) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => Ok(Some(decode(gpu, &bytes))),
            Err(source) if source.kind() == io::ErrorKind::InvalidData => {
                Ok(Some(Err(Unread::Damaged(source.to_string()))))
            }
            Err(source) => Err(StoreError::Read { path: path.to_owned(), source }),
        }
    }

    fn list_one(&self, gpu: GpuUuid, listing: &mut LedgerListing) -> Result<(), StoreError> {
        match self.load(&gpu) {
            Ok(LedgerFound::Nothing) => {}
            Ok(LedgerFound::Ledger(ledger)) => listing.ledgers.push(*ledger),
            Ok(LedgerFound::Damaged(damaged)) => listing.damaged.push(damaged),
            Ok(LedgerFound::Newer(newer)) => listing.newer.push(newer),
            Err(StoreError::Quarantine { path, reason, .. }) => {
                listing.damaged.push(DamagedLedger { gpu, path, reason })
            }
            Err(StoreError::Read { path, source }) => {
                listing.damaged.push(DamagedLedger { gpu, path, reason: format!("failed to read it: {source}") });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Lets a damaged ledger count no longer; a missing one is success.
    fn clear_damaged(&self, gpu: &GpuUuid) -> Result<(), StoreError> {
        let path = self.damaged_path(gpu);
        let settled = match self.files.rename(&path, &self.dir.join(format!("{gpu}{CLEARED_SUFFIX}"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.files.sync_dir(&self.dir),
        };
        settled.map_err(|source| StoreError::ClearQuarantine { path, source })
    }
}

/// Why bytes are no ledger that this driver knows.
enum Unread {
    Damaged(String),
    Newer(String),
}

/// A name in the folder.
enum Entry {
    Ledger(GpuUuid),
    Temp(GpuUuid),
    Cleared,
    Foreign,
}

impl Entry {
    fn of(name: &str) -> Self {
        let uuid = |suffix| name.strip_suffix(suffix).and_then(|uuid| uuid.parse::<GpuUuid>().ok());
        let temp =
            || name.strip_suffix(TEMP_SUFFIX)?.rsplit_once('.')?.1.parse().ok().filter(|gpu| temp_name(gpu) == name);
        match (uuid(SUFFIX).or_else(|| uuid(DAMAGED_SUFFIX)), uuid(CLEARED_SUFFIX), temp()) {
            (Some(gpu), _, _) => Self::Ledger(gpu),
            (None, Some(_), _) => Self::Cleared,
            (None, None, Some(gpu)) => Self::Temp(gpu),
            (None, None, None) => Self::Foreign,
        }
    }
}

fn temp_name(gpu: &GpuUuid) -> String {
    format!(".{gpu}{SUFFIX}.{gpu}{TEMP_SUFFIX}")
}

fn decode(gpu: &GpuUuid, bytes: &[u8]) -> Result<GpuLedger, Unread> {
    let frame = frame::decode(Kind::Ledger, bytes);
    let frame = frame.map_err(|error| Unread::Damaged(DecodeError::Frame(error).to_string()))?;
    let ledger = match frame.version {
        1 => v1::decode(frame.payload).map_err(|error| Unread::Damaged(format!("not a GPU ledger: {error}")))?,
        other => return Err(Unread::Newer(DecodeError::Version(other).to_string())),
    };
    if ledger.gpu == *gpu {
        Ok(ledger)
    } else {
        Err(Unread::Damaged(format!("about {} although it is named after {gpu}", ledger.gpu)))
    }
}
