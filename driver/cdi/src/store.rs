// SPDX-License-Identifier: Apache-2.0
//! The directory of CDI specs, which container runtimes read.
//!
//! A spec appears by a rename inside the directory, because the watchers of the runtimes notice nothing else. Its content is
//! compared at each use, because other programs may change it; that of a base spec, which every claim uses, if its file changed.
//! Nothing is fsynced: the directory is in a tmpfs on ordinary
//! nodes, and after a power cut the new boot ID requires new specs anyway. Files of other drivers are never changed.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dra_files::{FileVersion, Files, NewFile, TEMP_SUFFIX};
use dra_model::device::without_share;
use dra_model::{Advice, ClaimUid, DeviceName};
use parking_lot::Mutex;

use crate::names::{Kind, Naming};
use crate::render::RenderedSpec;

/// Readable by rootless runtimes too.
const SPEC_FILE: NewFile = NewFile { mode: 0o644, durable: false };

/// This driver writes no longer file.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The specs of this driver in one directory.
#[derive(Debug, Clone)]
pub struct SpecStore {
    files: Arc<dyn Files>,
    dir: PathBuf,
    naming: Naming,
    compared: Arc<Mutex<Option<Compared>>>,
}

/// A base spec that had its content in this version of its file.
#[derive(Debug)]
struct Compared {
    spec: RenderedSpec,
    version: FileVersion,
}

/// The change that [`SpecStore::ensure`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    Unchanged,
    Created,
    /// Other content under the same name.
    Replaced,
}

/// The files of this driver in the directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecListing {
    /// Specs of this driver.
    pub specs: Vec<Kind>,
    /// Temporary files of this driver.
    pub unfinished: Vec<UnfinishedSpec>,
    /// Files with the vendor of this driver and other content, for example of NVIDIA's driver.
    pub foreign: Vec<PathBuf>,
}

/// A temporary file, which is left over from a cut write unless the lock of its writer is held.
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
    /// The directory is created with the first spec.
    pub fn new(files: Arc<dyn Files>, dir: PathBuf, naming: Naming) -> Self {
        Self { files, dir, naming, compared: Arc::default() }
    }

    pub fn naming(&self) -> &Naming {
        &self.naming
    }

    /// Creates the directory, so that runtimes watch it before the first claim.
    pub fn make_dir(&self) -> Result<(), SpecStoreError> {
        let path = self.dir.clone();
        self.files.make_dir(&self.dir).map_err(|source| SpecStoreError::MakeDir { path, source })
    }

    /// Writes the spec unless the file has exactly this content. The caller holds the lock of `writer`.
    pub fn ensure(&self, spec: &RenderedSpec, writer: &ClaimUid) -> Result<Ensured, SpecStoreError> {
        let path = self.path(&spec.kind);
        // Before the bytes: a change in between has another version.
        let version = self.version_of_base(spec, &path)?;
        if version.is_some() && self.compared_version(spec) == version {
            return Ok(Ensured::Unchanged);
        }
        let there = self.read(&path)?;
        let outcome = match &there {
            Content::Bytes(bytes) if *bytes == spec.bytes => {
                *self.compared.lock() = version.map(|version| Compared { spec: spec.clone(), version });
                return Ok(Ensured::Unchanged);
            }
            Content::Absent => Ensured::Created,
            Content::Bytes(_) | Content::Unusable => Ensured::Replaced,
        };
        self.refuse_foreign(&path, &spec.kind, &there)?;
        let write = || dra_files::replace(&*self.files, &path, &spec.bytes, writer.as_str(), SPEC_FILE);
        let written = match write() {
            // A reboot empties `/var/run`, and other programs may remove the directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_dir()?;
                write()
            }
            other => other,
        };
        written.map_err(|source| SpecStoreError::Write { path: path.clone(), source })?;
        Ok(outcome)
    }

    fn version_of_base(&self, spec: &RenderedSpec, path: &Path) -> Result<Option<FileVersion>, SpecStoreError> {
        match spec.kind {
            Kind::Base(_) => {
                self.files.version(path).map_err(|source| SpecStoreError::Read { path: path.to_owned(), source })
            }
            Kind::Claim(_) => Ok(None),
        }
    }

    fn compared_version(&self, spec: &RenderedSpec) -> Option<FileVersion> {
        self.compared.lock().as_ref().filter(|compared| compared.spec == *spec).map(|compared| compared.version)
    }

    /// Removes a spec of this driver. A missing spec is success.
    pub fn remove(&self, kind: &Kind) -> Result<(), SpecStoreError> {
        let path = self.path(kind);
        self.refuse_foreign(&path, kind, &self.read(&path)?)?;
        self.files.remove(&path).map_err(|source| SpecStoreError::Remove { path, source })
    }

    /// The devices in the spec of a claim, as far as it can be read.
    pub fn devices_of(&self, uid: &ClaimUid) -> Result<Vec<DeviceName>, SpecStoreError> {
        let Content::Bytes(bytes) = self.read(&self.path(&Kind::Claim(uid.clone())))? else { return Ok(Vec::new()) };
        let text = String::from_utf8_lossy(&bytes);
        let before = format!("\"{uid}-");
        let names = text.split(&before).skip(1).filter_map(|rest| rest.split_once('"'));
        Ok(names.filter_map(|(name, _)| without_share(name).parse().ok()).collect())
    }

    /// The programs that the hooks of a spec start. A spec that cannot be read names none.
    pub fn hook_programs(&self, kind: &Kind) -> Result<Vec<PathBuf>, SpecStoreError> {
        let Content::Bytes(bytes) = self.read(&self.path(kind))? else { return Ok(Vec::new()) };
        let spec: HooksOnly = serde_json::from_slice(&bytes).unwrap_or_default();
        let hooks = spec.devices.into_iter().flat_map(|device| device.container_edits.hooks);
        Ok(hooks.map(|hook| hook.path).collect())
    }

    /// Removes a temporary file. The caller holds the lock of its writer.
    pub fn remove_unfinished(&self, unfinished: &UnfinishedSpec) -> Result<(), SpecStoreError> {
        let path = self.dir.join(&unfinished.name);
        self.files.remove(&path).map_err(|source| SpecStoreError::Remove { path, source })
    }

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

    /// A readable spec of another kind belongs to another program. Any other content is a damaged spec of this driver.
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

#[derive(Default, serde::Deserialize)]
struct HooksOnly {
    devices: Vec<DeviceHooks>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceHooks {
    container_edits: HookEdits,
}

#[derive(serde::Deserialize)]
struct HookEdits {
    #[serde(default)]
    hooks: Vec<HookPath>,
}

#[derive(serde::Deserialize)]
struct HookPath {
    path: PathBuf,
}

enum Content {
    Absent,
    /// A link, a directory, or larger than [`MAX_BYTES`].
    Unusable,
    Bytes(Vec<u8>),
}
