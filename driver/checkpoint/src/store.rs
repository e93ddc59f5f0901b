// SPDX-License-Identifier: Apache-2.0
//! The directory of claim records.
//!
//! A caller that changes or quarantines a record holds the lock of the claim. Reading and listing need no lock and move
//! nothing: a file is replaced as a whole, and the mark is appended to bytes that do not change. Every file is looked at
//! each time, so that the two plugin processes of a rolling upgrade read the same state. A version of a file that was decoded
//! before is not read again, and bytes that were encoded or decoded before are not decoded again: each of a hundred shares of a
//! GPU that are prepared at once needs the records of the others, which have just changed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dra_model::{Advice, ClaimUid};
use parking_lot::Mutex;

use crate::file_names::{record_name, temp_name, uid_of_record, uid_of_temp};
use crate::frame;
use crate::quarantine::{self, Quarantined};
use crate::record::{ClaimRecord, ClaimState};
use crate::versions::{self, DecodeError};
use dra_files::{DirSync, FileVersion, Files, NewFile};

const DURABLE: NewFile = NewFile { mode: 0o600, durable: true };

/// The records of this node.
#[derive(Debug, Clone)]
pub struct RecordStore {
    files: Arc<dyn Files>,
    claims_dir: PathBuf,
    quarantine_dir: PathBuf,
    claims_sync: Arc<DirSync>,
    decoded: Arc<Mutex<BTreeMap<ClaimUid, Decoded>>>,
}

/// A record and the content that it is.
#[derive(Debug)]
struct Decoded {
    content: Content,
    record: ClaimRecord,
}

/// What identifies the content of a file.
#[derive(Debug)]
enum Content {
    Version(FileVersion),
    /// Of a file that changed too recently to have a version.
    Bytes(Vec<u8>),
}

/// The content of the directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// Records, ordered by claim UID.
    pub records: Vec<ClaimRecord>,
    /// Records that cannot be decoded, at their current path: damaged, of a newer driver, or on a failing disk.
    pub quarantined: Vec<Quarantined>,
    /// Claims with a temporary file, which is left over from a cut write unless the lock of the claim is held.
    pub unfinished: Vec<ClaimUid>,
    /// Files with a name that this driver does not use.
    pub foreign: Vec<PathBuf>,
}

/// What one lookup found.
#[derive(Debug)]
pub enum Found {
    Nothing,
    Record(Box<ClaimRecord>),
    /// The record could not be decoded and was quarantined just now.
    Quarantined(Box<Quarantined>),
}

/// What a reader found that moves nothing.
#[derive(Debug)]
pub enum Inspected {
    Nothing,
    Record(Box<ClaimRecord>),
    /// Damaged, or of a newer driver.
    Unusable(String),
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
    /// Opens `claims/` and `quarantine/` below `state_dir` and creates them if they are missing.
    pub fn open(files: Arc<dyn Files>, state_dir: &Path) -> Result<Self, StoreError> {
        let store = Self::for_reading(files, state_dir);
        for path in [&store.claims_dir, &store.quarantine_dir] {
            store.files.make_dir(path).map_err(|source| StoreError::MakeDir { path: path.clone(), source })?;
        }
        Ok(store)
    }

    /// For readers that create and move nothing.
    pub fn for_reading(files: Arc<dyn Files>, state_dir: &Path) -> Self {
        let (claims_dir, quarantine_dir) = (state_dir.join("claims"), state_dir.join("quarantine"));
        let claims_sync = Arc::new(DirSync::new(&claims_dir));
        Self { files, claims_dir, quarantine_dir, claims_sync, decoded: Arc::default() }
    }

    /// Reads the record of a claim and moves nothing.
    pub fn inspect(&self, uid: &ClaimUid) -> Result<Inspected, StoreError> {
        Ok(match self.read(uid)? {
            Read::Nothing => Inspected::Nothing,
            Read::Record(record) => Inspected::Record(record),
            Read::Bad(reason) | Read::Newer(reason) => Inspected::Unusable(reason),
        })
    }

    /// Reads the record of a claim that is about to be prepared or unprepared. The caller holds the lock of the claim. A record
    /// that cannot be decoded is quarantined, even one of a newer driver: the call decides about the claim now.
    pub fn load(&self, uid: &ClaimUid) -> Result<Found, StoreError> {
        match self.read(uid)? {
            Read::Nothing => Ok(Found::Nothing),
            Read::Record(record) => Ok(Found::Record(record)),
            Read::Bad(reason) | Read::Newer(reason) => Ok(Found::Quarantined(Box::new(self.quarantine(uid, reason)?))),
        }
    }

    fn read(&self, uid: &ClaimUid) -> Result<Read, StoreError> {
        let path = self.path(uid);
        // Before the bytes: a change in between has another version.
        let version = self.files.version(&path).map_err(|source| StoreError::Read { path: path.clone(), source })?;
        if let Some(record) = self.decoded_version(uid, version) {
            return Ok(Read::Record(Box::new(record)));
        }
        match self.files.read(&path, frame::MAX_BYTES) {
            Ok(None) => Ok(Read::Nothing),
            Ok(Some(bytes)) => Ok(self.decode(uid, version, bytes)),
            Err(source) if source.kind() == io::ErrorKind::InvalidData => Ok(Read::Bad(source.to_string())),
            Err(source) => Err(StoreError::Read { path, source }),
        }
    }

    fn decode(&self, uid: &ClaimUid, version: Option<FileVersion>, bytes: Vec<u8>) -> Read {
        let decoded = self.decoded_bytes(uid, &bytes).map_or_else(|| versions::decode(&bytes), Ok);
        match decoded {
            Ok(record) if record.claim.uid == *uid => {
                let content = version.map_or(Content::Bytes(bytes), Content::Version);
                self.decoded.lock().insert(uid.clone(), Decoded { content, record: record.clone() });
                Read::Record(Box::new(record))
            }
            Ok(record) => Read::Bad(format!("about claim {} although it is named after {uid}", record.claim.uid)),
            Err(error @ DecodeError::Version(_)) => Read::Newer(error.to_string()),
            Err(error @ (DecodeError::Frame(_) | DecodeError::Content(_))) => Read::Bad(error.to_string()),
        }
    }

    fn decoded_version(&self, uid: &ClaimUid, version: Option<FileVersion>) -> Option<ClaimRecord> {
        let is_same = |content: &Content| matches!(content, Content::Version(known) if Some(*known) == version);
        let decoded = self.decoded.lock();
        decoded.get(uid).filter(|known| is_same(&known.content)).map(|known| known.record.clone())
    }

    fn decoded_bytes(&self, uid: &ClaimUid, bytes: &[u8]) -> Option<ClaimRecord> {
        let is_same = |content: &Content| matches!(content, Content::Bytes(known) if known == bytes);
        let decoded = self.decoded.lock();
        decoded.get(uid).filter(|known| is_same(&known.content)).map(|known| known.record.clone())
    }

    fn quarantine(&self, uid: &ClaimUid, reason: String) -> Result<Quarantined, StoreError> {
        let path = self.path(uid);
        quarantine::move_into(&*self.files, &path, &self.quarantine_dir, &reason)
            .map_err(|source| StoreError::Quarantine { path, reason, source })
    }

    /// Quarantines the record of a claim if it is damaged. The caller holds the lock of the claim and reads the record again,
    /// because it may have been rewritten since it was listed. A record of a newer driver stays in place: both drivers run
    /// during an upgrade, and an upgrade may be reverted.
    pub fn quarantine_if_damaged(&self, uid: &ClaimUid) -> Result<Option<Quarantined>, StoreError> {
        match self.read(uid)? {
            Read::Nothing | Read::Record(_) | Read::Newer(_) => Ok(None),
            Read::Bad(reason) => self.quarantine(uid, reason).map(Some),
        }
    }

    /// The content of the directory. It moves nothing.
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
        let listed: BTreeSet<&ClaimUid> = listing.records.iter().map(|record| &record.claim.uid).collect();
        self.decoded.lock().retain(|uid, _| listed.contains(uid));
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

    /// Every record that cannot be decoded and still reserves devices: quarantined ones and those in place.
    pub fn all_quarantined(&self) -> Result<Vec<Quarantined>, StoreError> {
        // The quarantine is listed before and after: a record may be moved there in between.
        let before = self.quarantined()?;
        let listed = self.list()?.quarantined;
        Ok(dedup_by_path([before, listed, self.quarantined()?].concat()))
    }

    /// The records in the quarantine that still reserve devices.
    pub fn quarantined(&self) -> Result<Vec<Quarantined>, StoreError> {
        quarantine::list(&*self.files, &self.quarantine_dir)
            .map_err(|source| StoreError::List { path: self.quarantine_dir.clone(), source })
    }

    /// Releases the devices that the quarantined records of a claim reserve, since the devices of the claim are known again.
    /// The files stay for the administrator. The caller holds the lock of the claim and those of the GPUs of its devices.
    pub fn clear_quarantine(&self, uid: &ClaimUid) -> Result<(), StoreError> {
        let quarantined = self.quarantined()?;
        for Quarantined { path, .. } in quarantined.into_iter().filter(|one| one.is_about(uid)) {
            quarantine::clear(&*self.files, &path, &self.quarantine_dir)
                .map_err(|source| StoreError::ClearQuarantine { path, source })?;
        }
        Ok(())
    }

    /// Writes a record durably.
    pub fn put(&self, record: &ClaimRecord) -> Result<(), StoreError> {
        let path = self.path(&record.claim.uid);
        let bytes = versions::encode(record).map_err(|source| StoreError::Encode { path: path.clone(), source })?;
        let uid = &record.claim.uid;
        dra_files::replace_unsynced(&*self.files, &path, &bytes, uid.as_str(), DURABLE)
            .and_then(|()| self.sync_claims())
            .map_err(|source| StoreError::Write { path, source })?;
        let written = Decoded { content: Content::Bytes(bytes), record: record.clone() };
        self.decoded.lock().insert(uid.clone(), written);
        Ok(())
    }

    /// Appends the mark that makes a `Preparing` record `Ready`, without fsync.
    pub fn mark_ready(&self, uid: &ClaimUid) -> Result<(), StoreError> {
        let path = self.path(uid);
        self.files.append(&path, frame::READY_MARK).map_err(|source| StoreError::Write { path, source })?;
        if let Some(Decoded { content: Content::Bytes(bytes), record }) = self.decoded.lock().get_mut(uid)
            && matches!(record.state, ClaimState::Preparing { .. })
        {
            bytes.extend_from_slice(frame::READY_MARK);
            versions::mark_ready(&mut record.state);
        }
        Ok(())
    }

    /// Removes the record of a claim durably. A missing record is success.
    pub fn remove(&self, uid: &ClaimUid) -> Result<(), StoreError> {
        let path = self.path(uid);
        let removed = self.files.remove(&path).and_then(|()| self.sync_claims());
        removed.map_err(|source| StoreError::Remove { path, source })
    }

    /// Removes the temporary file of a cut write. The caller holds the lock of the claim.
    pub fn remove_unfinished(&self, uid: &ClaimUid) -> Result<(), StoreError> {
        let path = self.claims_dir.join(temp_name(uid));
        self.files.remove(&path).map_err(|source| StoreError::Remove { path, source })
    }

    fn sync_claims(&self) -> io::Result<()> {
        self.claims_sync.sync(|dir| self.files.sync_dir(dir))
    }

    pub fn path(&self, uid: &ClaimUid) -> PathBuf {
        self.claims_dir.join(record_name(uid))
    }
}

/// Keeps the last of several entries with the same path.
pub fn dedup_by_path(quarantined: Vec<Quarantined>) -> Vec<Quarantined> {
    let by_path: BTreeMap<PathBuf, Quarantined> = quarantined.into_iter().map(|one| (one.path.clone(), one)).collect();
    by_path.into_values().collect()
}

/// The content of a record file.
enum Read {
    Nothing,
    Record(Box<ClaimRecord>),
    Bad(String),
    /// Written by a newer driver.
    Newer(String),
}
