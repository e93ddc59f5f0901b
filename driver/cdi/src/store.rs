// SPDX-License-Identifier: Apache-2.0
//! The spec directory that container runtimes read.
//!
//! A spec appears by a rename inside the directory, which is the only way that the runtimes' watchers notice, and it is
//! never trusted to be still what was written. Nothing is fsynced: the directory lies in a tmpfs on every ordinary
//! node, and after a power cut the boot id asks for new specs anyway. Files of other drivers are never touched.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dra_files::{Files, NewFile, TEMP_SUFFIX};
use dra_model::device::without_share;
use dra_model::{Advice, ClaimUid, DeviceName};

use crate::names::{Kind, Naming};
use crate::render::RenderedSpec;

/// Readable by every runtime, rootless ones included.
const SPEC_FILE: NewFile = NewFile { mode: 0o644, durable: false };

/// A longer file was not written by this driver.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The specs of this driver in one directory.
#[derive(Debug, Clone)]
pub struct SpecStore {
    files: Arc<dyn Files>,
    dir: PathBuf,
    naming: Naming,
}

/// What had to be done for a spec to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// Nothing.
    AsItWas,
    /// There was none.
    Created,
    /// There was something else under its name.
    Replaced,
}

/// What is in the directory, as far as it concerns this driver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecListing {
    /// Ours, by name and kind.
    pub specs: Vec<Kind>,
    /// Temporary files of ours.
    pub unfinished: Vec<UnfinishedSpec>,
    /// Under our vendor's name and yet not ours, such as files that NVIDIA's driver left.
    pub foreign: Vec<PathBuf>,
}

/// A temporary file; a leftover unless the lock of its writer is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedSpec {
    /// The claim for which it was being written.
    pub writer: ClaimUid,
    name: String,
}

/// A CDI spec cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum SpecStoreError {
    #[error("failed to create the CDI directory {}", path.display())]
    MakeDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to list the CDI directory {}", path.display())]
    List {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to read the CDI spec {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to write the CDI spec {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to remove the CDI spec {}", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A spec of another program has the name of one of this driver's.
    #[error("{} is a CDI spec of kind `{found}`, which this driver did not write", path.display())]
    Foreign { path: PathBuf, found: String },
}

impl Advice for SpecStoreError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::MakeDir { .. } => Some("make its parent directory writable".into()),
            Self::List { .. } => Some("make the directory readable".into()),
            Self::Read { .. } => Some("make the file readable".into()),
            Self::Write { .. } => Some("free space there or make it writable".into()),
            Self::Remove { .. } => Some("make its directory writable".into()),
            Self::Foreign { .. } => Some("remove or rename it".into()),
        }
    }
}

impl SpecStore {
    /// For a directory, which is made when the first spec is written.
    pub fn new(files: Arc<dyn Files>, dir: PathBuf, naming: Naming) -> Self {
        Self { files, dir, naming }
    }

    /// The names in use.
    pub fn naming(&self) -> &Naming {
        &self.naming
    }

    /// Makes the directory, early, so that runtimes watch it before the first claim.
    pub fn make_dir(&self) -> Result<(), SpecStoreError> {
        let path = self.dir.clone();
        self.files.make_dir(&self.dir).map_err(|source| SpecStoreError::MakeDir { path, source })
    }

    /// Lets the directory hold exactly this spec under its name. The caller holds the lock of `writer`.
    pub fn ensure(&self, spec: &RenderedSpec, writer: &ClaimUid) -> Result<Ensured, SpecStoreError> {
        let path = self.path(&spec.kind);
        let there = self.read(&path)?;
        let outcome = match &there {
            Content::Bytes(bytes) if *bytes == spec.bytes => return Ok(Ensured::AsItWas),
            Content::Absent => Ensured::Created,
            Content::Bytes(_) | Content::Unusable => Ensured::Replaced,
        };
        self.refuse_foreign(&path, &spec.kind, &there)?;
        let write = || dra_files::replace(&*self.files, &path, &spec.bytes, writer.as_str(), SPEC_FILE);
        let written = match write() {
            // A reboot empties `/var/run`, and others may remove the directory too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_dir()?;
                write()
            }
            other => other,
        };
        written.map_err(|source| SpecStoreError::Write { path: path.clone(), source })?;
        Ok(outcome)
    }

    /// Removes one of our specs; one that is not there is success.
    pub fn remove(&self, kind: &Kind) -> Result<(), SpecStoreError> {
        let path = self.path(kind);
        self.refuse_foreign(&path, kind, &self.read(&path)?)?;
        self.files.remove(&path).map_err(|source| SpecStoreError::Remove { path, source })
    }

    /// The devices that the spec of a claim names, as far as it can be read.
    pub fn devices_of(&self, uid: &ClaimUid) -> Result<Vec<DeviceName>, SpecStoreError> {
        let Content::Bytes(bytes) = self.read(&self.path(&Kind::Claim(uid.clone())))? else { return Ok(Vec::new()) };
        let text = String::from_utf8_lossy(&bytes);
        let before = format!("\"{uid}-");
        let names = text.split(&before).skip(1).filter_map(|rest| rest.split_once('"'));
        Ok(names.filter_map(|(name, _)| without_share(name).parse().ok()).collect())
    }

    /// Removes a leftover. The caller holds the lock of its writer.
    pub fn remove_unfinished(&self, unfinished: &UnfinishedSpec) -> Result<(), SpecStoreError> {
        let path = self.dir.join(&unfinished.name);
        self.files.remove(&path).map_err(|source| SpecStoreError::Remove { path, source })
    }

    /// Everything in the directory that concerns this driver.
    pub fn list(&self) -> Result<SpecListing, SpecStoreError> {
        let path = self.dir.clone();
        let names = self.files.list(&self.dir).map_err(|source| SpecStoreError::List { path, source })?;
        let mut listing = SpecListing::default();
        for name in names {
            if let Some(unfinished) = self.parse_unfinished(&name) {
                listing.unfinished.push(unfinished);
            } else if let Some(kind) = self.naming.parse_file_name(&name) {
                let path = self.path(&kind);
                match self.read(&path).and_then(|there| self.refuse_foreign(&path, &kind, &there)) {
                    Ok(()) => listing.specs.push(kind),
                    Err(_) => listing.foreign.push(path),
                }
            } else if self.naming.own_part(&name).is_some() {
                listing.foreign.push(self.dir.join(name));
            }
        }
        Ok(listing)
    }

    /// Where a spec is.
    pub fn path(&self, kind: &Kind) -> PathBuf {
        self.dir.join(self.naming.file_name(kind))
    }

    fn read(&self, path: &Path) -> Result<Content, SpecStoreError> {
        match self.files.read(path, MAX_BYTES) {
            Ok(Some(bytes)) => Ok(Content::Bytes(bytes)),
            Ok(None) => Ok(Content::Absent),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Content::Unusable),
            Err(source) => Err(SpecStoreError::Read { path: path.to_owned(), source }),
        }
    }

    /// A readable spec of another kind belongs to somebody; anything else under our name is our own, damaged.
    fn refuse_foreign(&self, path: &Path, kind: &Kind, there: &Content) -> Result<(), SpecStoreError> {
        #[derive(serde::Deserialize)]
        struct KindOnly {
            kind: String,
        }
        let Content::Bytes(bytes) = there else { return Ok(()) };
        match serde_json::from_slice::<KindOnly>(bytes) {
            Ok(KindOnly { kind: found }) if found != self.naming.kind(kind) => {
                Err(SpecStoreError::Foreign { path: path.to_owned(), found: found.chars().take(80).collect() })
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// `.<file name>.<writer>.tmp`, as [`dra_files::replace`] names it.
    fn parse_unfinished(&self, name: &str) -> Option<UnfinishedSpec> {
        let (file_name, writer) = name.strip_prefix('.')?.strip_suffix(TEMP_SUFFIX)?.rsplit_once('.')?;
        self.naming.parse_file_name(file_name)?;
        Some(UnfinishedSpec { writer: writer.parse().ok()?, name: name.to_owned() })
    }
}

enum Content {
    Absent,
    /// A link, a folder, or far too large.
    Unusable,
    Bytes(Vec<u8>),
}
