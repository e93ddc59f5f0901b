// SPDX-License-Identifier: Apache-2.0
//! Records that cannot be understood: set aside with their reason, and told to people for as long as they count.
//!
//! `quarantine/<file name>` holds the bytes as they were found and `quarantine/<file name>.reason` says why. When it is
//! known again what its claim holds, `.settled` is added to the name and the file is there for people only.

use std::io;
use std::path::{Path, PathBuf};

use dra_model::ClaimUid;

use crate::salvaged::{self, Salvaged};
use crate::{file_names, frame};
use dra_files::{Files, NewFile};

/// A record that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Where the bytes are now.
    pub path: PathBuf,
    /// Why it is not used.
    pub reason: String,
    /// The claim that the file is named after.
    pub uid: Option<ClaimUid>,
    /// What can still be read in it.
    pub salvaged: Salvaged,
}

impl Quarantined {
    /// Whether it is, by its name or its content, the record of this claim.
    pub fn is_about(&self, uid: &ClaimUid) -> bool {
        self.uid.as_ref() == Some(uid) || self.salvaged.claim.as_ref().is_some_and(|claim| claim.uid == *uid)
    }
}

/// The ending of the file that holds the reason.
const REASON_SUFFIX: &str = ".reason";

/// The ending of a file that no longer counts.
const CLEARED_SUFFIX: &str = ".settled";

const REASON_FILE: NewFile = NewFile { mode: 0o600, durable: false };

/// Moves a bad record out of the way. An older one of the same name is replaced.
pub fn move_into(files: &dyn Files, path: &Path, dir: &Path, reason: &str) -> io::Result<Quarantined> {
    let name = path.file_name().unwrap_or_default();
    let target = dir.join(name);
    files.make_dir(dir)?;
    files.rename(path, &target)?;
    // Without the reason the record is still set aside, which is what matters on a full disk.
    files.write(&with_suffix(&target, REASON_SUFFIX), format!("{reason}\n").as_bytes(), REASON_FILE).ok();
    Ok(inspect(files, target, reason.to_owned()))
}

/// Everything that was set aside, is not settled and was not cleared away by a person.
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

/// Lets one that was set aside count no longer; a missing one is success.
pub fn clear(files: &dyn Files, path: &Path, dir: &Path) -> io::Result<()> {
    match files.rename(path, &with_suffix(path, CLEARED_SUFFIX)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => files.sync_dir(dir),
    }
}

/// What a bad record still tells, wherever it is.
pub fn inspect(files: &dyn Files, path: PathBuf, reason: String) -> Quarantined {
    let uid = path.file_name().and_then(|name| file_names::uid_of_record(name.to_str()?));
    // What cannot be read tells nothing.
    let bytes = files.read(&path, frame::MAX_BYTES).ok().flatten().unwrap_or_default();
    Quarantined { salvaged: salvaged::of(&bytes, uid.as_ref()), path, reason, uid }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
