// SPDX-License-Identifier: Apache-2.0
//! Records that cannot be understood: set aside with their reason, and told to people for as long as they are there.
//!
//! `quarantine/<file name>` holds the bytes as they were found and `quarantine/<file name>.reason` says why.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use dra_model::DeviceName;

use crate::files::{Files, NewFile};
use crate::frame;

/// A record that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Where the bytes are now.
    pub path: PathBuf,
    /// Why it is not used.
    pub reason: String,
    /// The devices it names, as far as that can be read.
    pub devices: Vec<DeviceName>,
}

/// The ending of the file that holds the reason.
const REASON_SUFFIX: &str = ".reason";

const REASON_FILE: NewFile = NewFile { mode: 0o600, durable: false };

/// Moves a bad record out of the way. An older one of the same name is replaced.
pub fn set_aside(files: &dyn Files, path: &Path, dir: &Path, reason: &str) -> io::Result<Quarantined> {
    let devices = devices_in(files, path);
    let name = path.file_name().unwrap_or_default();
    let target = dir.join(name);
    files.make_dir(dir)?;
    files.rename(path, &target)?;
    let reason_path = reason_path(&target);
    // Without the reason the record is still set aside, which is what matters on a full disk.
    files.write(&reason_path, format!("{reason}\n").as_bytes(), REASON_FILE).ok();
    Ok(Quarantined { path: target, reason: reason.to_owned(), devices })
}

/// Everything that was ever set aside and not cleared away by a person.
pub fn list(files: &dyn Files, dir: &Path) -> io::Result<Vec<Quarantined>> {
    let names = files.list(dir)?;
    Ok(names
        .iter()
        .filter(|name| !name.ends_with(REASON_SUFFIX))
        .map(|name| {
            let path = dir.join(name);
            let reason = files.read(&reason_path(&path), 4096).ok().flatten().unwrap_or_default();
            let reason = String::from_utf8_lossy(&reason).trim().to_owned();
            Quarantined { devices: devices_in(files, &path), reason, path }
        })
        .collect())
}

fn reason_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(REASON_SUFFIX);
    PathBuf::from(name)
}

/// Device names in bytes of which little may be left: every text after a `"device":`.
fn devices_in(files: &dyn Files, path: &Path) -> Vec<DeviceName> {
    let bytes = files.read(path, frame::MAX_BYTES).ok().flatten().unwrap_or_default();
    let text = String::from_utf8_lossy(frame::remains(&bytes)).into_owned();
    let found: BTreeSet<DeviceName> = text
        .split("\"device\":\"")
        .skip(1)
        .filter_map(|rest| rest.split_once('"'))
        .filter_map(|(name, _)| name.parse().ok())
        .collect();
    found.into_iter().collect()
}
