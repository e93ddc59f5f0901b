// SPDX-License-Identifier: Apache-2.0
//! Claim records that cannot be decoded: moved away with their reason, and reported for as long as they reserve devices.
//!
//! `quarantine/<file name>` has the bytes as they were found and `quarantine/<file name>.reason` has the reason. When the
//! devices of the claim are known again, `.settled` is appended to the name and the file is only a copy for the
//! administrator.

use std::io;
use std::path::{Path, PathBuf};

use dra_model::ClaimUid;

use crate::salvaged::{self, Salvaged};
use crate::{file_names, frame};
use dra_files::{Files, NewFile};

/// A record that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    pub path: PathBuf,
    pub reason: String,
    /// The claim in the file name.
    pub uid: Option<ClaimUid>,
    pub salvaged: Salvaged,
}

impl Quarantined {
    /// Whether this is the record of a claim, by its file name or its content.
    pub fn is_about(&self, uid: &ClaimUid) -> bool {
        self.uid.as_ref() == Some(uid) || self.salvaged.claim.as_ref().is_some_and(|claim| claim.uid == *uid)
    }
}

const REASON_SUFFIX: &str = ".reason";

/// Ends the name of a file that no longer reserves devices.
const CLEARED_SUFFIX: &str = ".settled";

const REASON_FILE: NewFile = NewFile { mode: 0o600, durable: false };

/// Moves a damaged record to the quarantine. An older one of the same name is replaced.
pub fn move_into(files: &dyn Files, path: &Path, dir: &Path, reason: &str) -> io::Result<Quarantined> {
    let name = path.file_name().unwrap_or_default();
    let target = dir.join(name);
    files.make_dir(dir)?;
    files.rename(path, &target)?;
    // On a full disk the record is quarantined without its reason.
    files.write(&with_suffix(&target, REASON_SUFFIX), format!("{reason}\n").as_bytes(), REASON_FILE).ok();
    Ok(inspect(files, target, reason.to_owned()))
}

/// The quarantined records that still reserve devices.
pub fn list(files: &dyn Files, dir: &Path) -> io::Result<Vec<Quarantined>> {
    let names = files.list(dir)?;
    let counting = names.iter().filter(|name| !name.ends_with(REASON_SUFFIX) && !name.ends_with(CLEARED_SUFFIX));
    Ok(counting
        .map(|name| {
            let path = dir.join(name);
            let reason = files.read(&with_suffix(&path, REASON_SUFFIX), 4096).ok().flatten().unwrap_or_default();
            let reason = String::from_utf8_lossy(&reason).trim().to_owned();
            inspect(files, path, reason)
        })
        .collect())
}

/// Renames a quarantined record so that it no longer reserves devices. A missing one is success.
pub fn clear(files: &dyn Files, path: &Path, dir: &Path) -> io::Result<()> {
    match files.rename(path, &with_suffix(path, CLEARED_SUFFIX)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => files.sync_dir(dir),
    }
}

/// Reads what can be salvaged from a damaged record at any path.
pub fn inspect(files: &dyn Files, path: PathBuf, reason: String) -> Quarantined {
    let uid = path.file_name().and_then(|name| file_names::uid_of_record(name.to_str()?));
    // Nothing can be salvaged from a file that cannot be read.
    let bytes = files.read(&path, frame::MAX_BYTES).ok().flatten().unwrap_or_default();
    Quarantined { salvaged: salvaged::of(&bytes, uid.as_ref()), path, reason, uid }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
