// SPDX-License-Identifier: Apache-2.0
//! Keeps what is known about the health of GPUs on disk, so that a restart of the plugin forgets nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use dra_files::replace::replace;
use dra_files::{Files as _, HostFiles, NewFile};
use dra_health::GpuHealth;
use dra_model::GpuUuid;
use serde::{Deserialize, Serialize};
use tracing::warn;

const NAME: &str = "health.json";
/// The extension of a file that could not be used.
const DAMAGED: &str = "json.damaged";
const VERSION: u32 = 1;
/// Far more than a node of any size writes.
const MAX_BYTES: u64 = 1 << 20;

/// The file of one node.
#[derive(Debug)]
pub struct HealthStore {
    path: PathBuf,
    /// Distinguishes the temporary files of two instances.
    writer: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    version: u32,
    gpus: BTreeMap<GpuUuid, GpuHealth>,
}

/// The file is unusable.
#[derive(Debug, thiserror::Error)]
pub enum HealthStoreError {
    #[error("failed to read or write {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} cannot be parsed", path.display())]
    Content { path: PathBuf, source: serde_json::Error },
    #[error("{} has version {version}, expected {VERSION}", path.display())]
    Version { path: PathBuf, version: u32 },
}

impl HealthStore {
    pub fn new(state_dir: &Path, writer: &str) -> Self {
        Self { path: state_dir.join(NAME), writer: writer.to_owned() }
    }

    /// What was saved last; nothing without a file. A file that cannot be used is renamed to `health.json.damaged`.
    pub fn load(&self) -> Result<BTreeMap<GpuUuid, GpuHealth>, HealthStoreError> {
        let loaded = self.read();
        if let Err(HealthStoreError::Content { .. } | HealthStoreError::Version { .. }) = loaded {
            HostFiles.rename(&self.path, &self.path.with_extension(DAMAGED)).ok();
        }
        loaded
    }

    fn read(&self) -> Result<BTreeMap<GpuUuid, GpuHealth>, HealthStoreError> {
        let path = || self.path.clone();
        let bytes =
            HostFiles.read(&self.path, MAX_BYTES).map_err(|source| HealthStoreError::File { path: path(), source })?;
        let Some(bytes) = bytes else { return Ok(BTreeMap::new()) };
        let content: Content =
            serde_json::from_slice(&bytes).map_err(|source| HealthStoreError::Content { path: path(), source })?;
        if content.version != VERSION {
            return Err(HealthStoreError::Version { path: path(), version: content.version });
        }
        Ok(content.gpus)
    }

    /// Forgets all faults, for an uninstallation.
    pub fn remove(&self) {
        for path in [&self.path, &self.path.with_extension(DAMAGED)] {
            if let Err(error) = HostFiles.remove(path) {
                warn!(path = %path.display(), %error, "failed to remove a file of this driver");
            }
        }
    }

    /// Saves the GPUs that there is something to remember of.
    pub fn save(&self, gpus: &BTreeMap<GpuUuid, GpuHealth>) -> Result<(), HealthStoreError> {
        let failed = |source| HealthStoreError::File { path: self.path.clone(), source };
        let gpus = gpus.iter().filter(|(_, health)| !health.is_blank());
        let gpus: BTreeMap<GpuUuid, GpuHealth> = gpus.map(|(gpu, health)| (gpu.clone(), health.clone())).collect();
        if gpus.is_empty() {
            return match HostFiles.remove(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        let bytes =
            serde_json::to_vec(&Content { version: VERSION, gpus }).map_err(io::Error::other).map_err(failed)?;
        replace(&HostFiles, &self.path, &bytes, &self.writer, NewFile { mode: 0o600, durable: true }).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use dra_health::Signal;

    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_what_is_well_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = HealthStore::new(dir.path(), "pod-1");
        let uuid = |number: u32| format!("GPU-{number:08x}-0000-0000-0000-000000000000").parse::<GpuUuid>().unwrap();
        assert_eq!(store.load().unwrap(), BTreeMap::new());
        let mut lost = GpuHealth::default();
        lost.observe(Signal::Lost, 7, "boot");
        let gpus = BTreeMap::from([(uuid(1), lost.clone()), (uuid(2), GpuHealth::default())]);
        store.save(&gpus).unwrap();
        assert_eq!(HealthStore::new(dir.path(), "pod-2").load().unwrap(), BTreeMap::from([(uuid(1), lost)]));
        for _ in 0..2 {
            store.save(&BTreeMap::new()).unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        for (text, expect) in
            [("{", "health.json cannot be parsed"), (r#"{"version": 2, "gpus": {}}"#, "has version 2, expected 1")]
        {
            std::fs::write(dir.path().join(NAME), text).unwrap();
            let error = store.load().unwrap_err();
            assert!(dra_model::chain(&error).to_string().contains(expect), "{error}");
            assert_eq!(std::fs::read_to_string(dir.path().join("health.json.damaged")).unwrap(), text);
            assert_eq!(store.load().unwrap(), BTreeMap::new(), "it is judged anew");
        }
    }
}
