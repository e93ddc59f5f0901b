// SPDX-License-Identifier: Apache-2.0
//! The folder of records.
//!
//! Callers hold the claim's lock when they change a record or set one aside. Reading and listing need no lock and move
//! nothing: a file is replaced whole, and the mark is appended to bytes that do not change. Nothing is kept in memory, so
//! two plugin processes of a rolling upgrade see the same.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dra_model::{Advice, ClaimUid};

use crate::file_names::{record_name, temp_name, uid_of_record, uid_of_temp};
use crate::frame;
use crate::quarantine::{self, Quarantined};
use crate::record::ClaimRecord;
use crate::versions::{self, DecodeError};
use dra_files::{Files, NewFile};

const DURABLE: NewFile = NewFile { mode: 0o600, durable: true };

/// The records of this node.
#[derive(Debug, Clone)]
pub struct RecordStore {
    files: Arc<dyn Files>,
    claims_dir: PathBuf,
    quarantine_dir: PathBuf,
}

/// What is in the folder.
#[derive(Debug, Default)]
pub struct Listing {
    /// Records, ordered by claim UID.
    pub records: Vec<ClaimRecord>,
    /// Records that cannot be understood, where they are: damaged, of a newer driver, or on a disk that fails.
    pub quarantined: Vec<Quarantined>,
    /// Claims with a temporary file; it is a leftover unless that claim's lock is held.
    pub unfinished: Vec<ClaimUid>,
    /// What nobody here wrote.
    pub foreign: Vec<PathBuf>,
}

/// What one lookup found.
#[derive(Debug)]
pub enum Found {
    /// No promise was made.
    Nothing,
    Record(Box<ClaimRecord>),
    /// One that cannot be understood and was set aside just now.
    Quarantined(Box<Quarantined>),
}

/// A claim record or a ledger cannot be read or changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("failed to create {}", path.display())]
    MakeDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to list {}", path.display())]
    List {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to encode {}", path.display())]
    Encode {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("failed to write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to remove {}", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The record stays quarantined and its devices stay reserved.
    #[error("failed to clear the quarantine of {}", path.display())]
    ClearQuarantine {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to quarantine {}, which is {reason}", path.display())]
    Quarantine {
        path: PathBuf,
        reason: String,
        #[source]
        source: io::Error,
    },
}

impl Advice for StoreError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::MakeDir { .. } => Some("make its parent directory writable".into()),
            Self::List { .. } => Some("make the directory readable".into()),
            Self::Read { .. } => Some("make the file readable".into()),
            Self::Encode { .. } => None,
            Self::Write { .. } => Some("free space there or make it writable".into()),
            Self::Remove { .. } | Self::ClearQuarantine { .. } | Self::Quarantine { .. } => {
                Some("make its directory writable".into())
            }
        }
    }
}

impl RecordStore {
    /// Opens, and makes if need be, `claims/` and `quarantine/` below `state_dir`.
    pub fn open(files: Arc<dyn Files>, state_dir: &Path) -> Result<Self, StoreError> {
        let (claims_dir, quarantine_dir) = (state_dir.join("claims"), state_dir.join("quarantine"));
        for path in [&claims_dir, &quarantine_dir] {
            files.make_dir(path).map_err(|source| StoreError::MakeDir { path: path.clone(), source })?;
        }
        Ok(Self { files, claims_dir, quarantine_dir })
    }

    /// Looks up a claim that is to be prepared or unprepared. The caller holds the claim's lock. A record that cannot be
    /// understood is set aside, whichever driver wrote it: what becomes of the claim is decided here now.
    pub fn load(&self, uid: &ClaimUid) -> Result<Found, StoreError> {
        match self.read(uid)? {
            Read::Nothing => Ok(Found::Nothing),
            Read::Record(record) => Ok(Found::Record(record)),
            Read::Bad(reason) | Read::Newer(reason) => Ok(Found::Quarantined(Box::new(self.set_aside(uid, reason)?))),
        }
    }

    fn read(&self, uid: &ClaimUid) -> Result<Read, StoreError> {
        let path = self.path(uid);
        match self.files.read(&path, frame::MAX_BYTES) {
            Ok(None) => Ok(Read::Nothing),
            Ok(Some(bytes)) => Ok(match versions::decode(&bytes) {
                Ok(record) if record.claim.uid == *uid => Read::Record(Box::new(record)),
                Ok(record) => Read::Bad(format!("about claim {} although it is named after {uid}", record.claim.uid)),
                Err(error @ DecodeError::Version(_)) => Read::Newer(error.to_string()),
                Err(error @ (DecodeError::Frame(_) | DecodeError::Content(_))) => Read::Bad(error.to_string()),
            }),
            Err(source) if source.kind() == io::ErrorKind::InvalidData => Ok(Read::Bad(source.to_string())),
            Err(source) => Err(StoreError::Read { path, source }),
        }
    }

    fn set_aside(&self, uid: &ClaimUid, reason: String) -> Result<Quarantined, StoreError> {
        let path = self.path(uid);
        quarantine::move_into(&*self.files, &path, &self.quarantine_dir, &reason)
            .map_err(|source| StoreError::Quarantine { path, reason, source })
    }

    /// Sets the record of a claim aside if it is damaged, and says so. The caller holds the claim's lock: a record that was
    /// listed as damaged may have been written anew since. One of a newer driver is left for it: both run in an upgrade, and
    /// one may be gone back from.
    pub fn quarantine_if_damaged(&self, uid: &ClaimUid) -> Result<Option<Quarantined>, StoreError> {
        match self.read(uid)? {
            Read::Nothing | Read::Record(_) | Read::Newer(_) => Ok(None),
            Read::Bad(reason) => self.set_aside(uid, reason).map(Some),
        }
    }

    /// Everything in the folder, moved or not: a bad record is told with the path that it has.
    pub fn list(&self) -> Result<Listing, StoreError> {
        let dir = &self.claims_dir;
        let names = self.files.list(dir).map_err(|source| StoreError::List { path: dir.clone(), source })?;
        let mut listing = Listing::default();
        for name in names {
            match (uid_of_record(&name), uid_of_temp(&name)) {
                (Some(uid), _) => self.list_one(&uid, &mut listing)?,
                (None, Some(uid)) => listing.unfinished.push(uid),
                (None, None) => listing.foreign.push(dir.join(name)),
            }
        }
        Ok(listing)
    }

    fn list_one(&self, uid: &ClaimUid, listing: &mut Listing) -> Result<(), StoreError> {
        let mut stays = |reason| listing.quarantined.push(quarantine::inspect(&*self.files, self.path(uid), reason));
        match self.read(uid) {
            Ok(Read::Nothing) => {}
            Ok(Read::Record(record)) => listing.records.push(*record),
            Ok(Read::Newer(reason) | Read::Bad(reason)) => stays(reason),
            Err(StoreError::Read { source, .. }) => stays(format!("failed to read it: {source}")),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Every record that cannot be understood and is not settled, wherever it is.
    pub fn all_quarantined(&self) -> Result<Vec<Quarantined>, StoreError> {
        // Looked at before and after: a record may be set aside in between.
        let before = self.quarantined()?;
        let listed = self.list()?.quarantined;
        Ok(dedup_by_path([before, listed, self.quarantined()?].concat()))
    }

    /// Everything that was set aside and is not settled.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>, StoreError> {
        quarantine::list(&*self.files, &self.quarantine_dir)
            .map_err(|source| StoreError::List { path: self.quarantine_dir.clone(), source })
    }

    /// Lets what was set aside of a claim count no longer: what the claim holds is known again. The bytes stay for
    /// people. The caller holds the claim's lock and, if the claim has devices, those of their GPUs.
    pub fn clear_quarantine(&self, uid: &ClaimUid) -> Result<(), StoreError> {
        let quarantined = self.quarantined()?;
        for Quarantined { path, .. } in quarantined.into_iter().filter(|one| one.is_about(uid)) {
            quarantine::clear(&*self.files, &path, &self.quarantine_dir)
                .map_err(|source| StoreError::ClearQuarantine { path, source })?;
        }
        Ok(())
    }

    /// Writes a record; it survives a power cut when this returns.
    pub fn put(&self, record: &ClaimRecord) -> Result<(), StoreError> {
        let path = self.path(&record.claim.uid);
        let bytes = versions::encode(record).map_err(|source| StoreError::Encode { path: path.clone(), source })?;
        dra_files::replace(&*self.files, &path, &bytes, record.claim.uid.as_str(), DURABLE)
            .map_err(|source| StoreError::Write { path, source })
    }

    /// Turns the `Preparing` record of a claim into a `Ready` one, without fsync.
    pub fn mark_ready(&self, uid: &ClaimUid) -> Result<(), StoreError> {
        let path = self.path(uid);
        self.files.append(&path, frame::READY_MARK).map_err(|source| StoreError::Write { path, source })
    }

    /// Forgets a claim for good; an unknown one is forgotten already.
    pub fn remove(&self, uid: &ClaimUid) -> Result<(), StoreError> {
        let path = self.path(uid);
        let removed = self.files.remove(&path).and_then(|()| self.files.sync_dir(&self.claims_dir));
        removed.map_err(|source| StoreError::Remove { path, source })
    }

    /// Removes what a cut write left behind. The caller holds the claim's lock.
    pub fn remove_unfinished(&self, uid: &ClaimUid) -> Result<(), StoreError> {
        let path = self.claims_dir.join(temp_name(uid));
        self.files.remove(&path).map_err(|source| StoreError::Remove { path, source })
    }

    /// Where the record of a claim is.
    pub fn path(&self, uid: &ClaimUid) -> PathBuf {
        self.claims_dir.join(record_name(uid))
    }
}

/// Each file once, as it was seen last.
pub fn dedup_by_path(quarantined: Vec<Quarantined>) -> Vec<Quarantined> {
    let by_path: BTreeMap<PathBuf, Quarantined> = quarantined.into_iter().map(|one| (one.path.clone(), one)).collect();
    by_path.into_values().collect()
}

/// What a file says.
enum Read {
    Nothing,
    Record(Box<ClaimRecord>),
    Bad(String),
    /// Of a version that this driver does not know yet.
    Newer(String),
}
