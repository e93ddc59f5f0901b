// SPDX-License-Identifier: Apache-2.0
//! The ledger of a GPU: its original settings, found before the first claim changed them, the settings in force, and the
//! daemons that were started. They belong to the GPU and not to a claim. The file is `gpus/<uuid>.json`.
//!
//! ```text
//! (no file) -> ledger -> ledger -> (no file)          no file: the GPU has its original settings
//! ```
//!
//! Every change is durable when the call returns, and is made before the setting itself changes. A caller that changes a
//! ledger holds the lock of the GPU. Reading needs no lock, since a file is replaced as a whole.
//!
//! A ledger that cannot be decoded is renamed to `….json.damaged`. The original settings then count as unknown until a new
//! ledger is written or the ledger is removed. Then `.settled` is appended to the name, and the file is only a copy for the
//! administrator. A ledger of a newer driver stays in place.

mod content;
mod v1;
mod v2;

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
    /// The GPU has its original settings.
    Nothing,
    Ledger(Box<GpuLedger>),
    Damaged(DamagedLedger),
    /// Written by a newer driver.
    Newer(DamagedLedger),
}

/// A ledger that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedLedger {
    /// The GPU in the file name.
    pub gpu: GpuUuid,
    pub path: PathBuf,
    /// What is wrong with them.
    pub reason: String,
}

/// The content of the directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LedgerListing {
    /// Ledgers, ordered by GPU.
    pub ledgers: Vec<GpuLedger>,
    /// Ledgers that cannot be decoded, ordered by GPU.
    pub damaged: Vec<DamagedLedger>,
    /// Ledgers of a newer driver, ordered by GPU.
    pub newer: Vec<DamagedLedger>,
    /// GPUs with a temporary file, which is left over from a cut write unless the lock of the GPU is held.
    pub unfinished: Vec<GpuUuid>,
    /// Files with a name that this driver does not use.
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
    /// Opens `gpus/` below `state_dir` and creates it if it is missing.
    pub fn open(files: Arc<dyn Files>, state_dir: &Path) -> Result<Self, StoreError> {
        let dir = state_dir.join("gpus");
        files.make_dir(&dir).map_err(|source| StoreError::MakeDir { path: dir.clone(), source })?;
        Ok(Self { files, dir })
    }

    /// Reads the ledger of a GPU. A damaged one is renamed.
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
                // An administrator repaired the file.
                Some(Ok(ledger)) => Ok(LedgerFound::Ledger(Box::new(ledger))),
                Some(Err(Unread::Newer(reason) | Unread::Damaged(reason))) => {
                    Ok(LedgerFound::Damaged(DamagedLedger { gpu: gpu.clone(), path: damaged, reason }))
                }
            },
        }
    }

    /// Writes a ledger durably. A damaged ledger of this GPU no longer counts.
    pub fn put(&self, ledger: &GpuLedger) -> Result<(), StoreError> {
        let path = self.path(&ledger.gpu);
        let bytes = v2::encode(ledger).map_err(|source| StoreError::Encode { path: path.clone(), source })?;
        dra_files::replace(&*self.files, &path, &bytes, ledger.gpu.as_str(), DURABLE)
            .map_err(|source| StoreError::Write { path, source })?;
        self.clear_damaged(&ledger.gpu)
    }

    /// Removes the ledger of a GPU, a damaged one included. A missing ledger is success.
    pub fn remove(&self, gpu: &GpuUuid) -> Result<(), StoreError> {
        // The damaged ledger first: if the process is killed in between, the good one still counts.
        self.clear_damaged(gpu)?;
        let path = self.path(gpu);
        let removed = self.files.remove(&path).and_then(|()| self.files.sync_dir(&self.dir));
        removed.map_err(|source| StoreError::Remove { path, source })
    }

    /// The content of the directory. A ledger that cannot be read or renamed is listed with its old path.
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

    /// Removes the temporary file of a cut write. The caller holds the lock of the GPU.
    pub fn remove_unfinished(&self, gpu: &GpuUuid) -> Result<(), StoreError> {
        let path = self.dir.join(temp_name(gpu));
        self.files.remove(&path).map_err(|source| StoreError::Remove { path, source })
    }

    pub fn path(&self, gpu: &GpuUuid) -> PathBuf {
        self.dir.join(format!("{gpu}{SUFFIX}"))
    }

    fn damaged_path(&self, gpu: &GpuUuid) -> PathBuf {
        self.dir.join(format!("{gpu}{DAMAGED_SUFFIX}"))
    }

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
                listing.damaged.push(DamagedLedger { gpu, path, reason });
            }
            Err(StoreError::Read { path, source }) => {
                listing.damaged.push(DamagedLedger { gpu, path, reason: format!("failed to read it: {source}") });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Renames a damaged ledger so that it no longer counts. A missing one is success.
    fn clear_damaged(&self, gpu: &GpuUuid) -> Result<(), StoreError> {
        let path = self.damaged_path(gpu);
        let cleared = match self.files.rename(&path, &self.dir.join(format!("{gpu}{CLEARED_SUFFIX}"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.files.sync_dir(&self.dir),
        };
        cleared.map_err(|source| StoreError::ClearQuarantine { path, source })
    }
}

/// Why a ledger cannot be decoded.
enum Unread {
    Damaged(String),
    Newer(String),
}

/// The meaning of a file name.
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
        1 => v1::decode(frame.payload),
        2 => v2::decode(frame.payload),
        other => return Err(Unread::Newer(DecodeError::Version(other).to_string())),
    };
    let ledger = ledger.map_err(|error| Unread::Damaged(format!("not a GPU ledger: {error}")))?;
    if ledger.gpu == *gpu {
        Ok(ledger)
    } else {
        Err(Unread::Damaged(format!("about {} although it is named after {gpu}", ledger.gpu)))
    }
}
