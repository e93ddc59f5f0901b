// SPDX-License-Identifier: Apache-2.0
//! The last inventory on disk: a GPU that is lost while no plugin runs stays published, because its next start knows it.
//!
//! A memory and no record: a file that cannot be used or written is reported in the log, and affects nothing else.

use std::io;
use std::path::{Path, PathBuf};

use dra_files::replace::replace;
use dra_files::{Files as _, HostFiles, NewFile};
use dra_model::{DriverState, Inventory};
use tracing::warn;

const NAME: &str = "inventory.json";
/// Far more than a node of any size writes.
const MAX_BYTES: u64 = 8 << 20;

/// The file of one node.
#[derive(Debug, Clone)]
pub struct InventoryFile {
    path: PathBuf,
    /// Distinguishes the temporary files of two instances.
    writer: String,
}

impl InventoryFile {
    pub fn new(state_dir: &Path, writer: &str) -> Self {
        Self { path: state_dir.join(NAME), writer: writer.to_owned() }
    }

    /// The inventory that was saved last.
    pub fn load(&self) -> Option<Inventory> {
        let read = HostFiles.read(&self.path, MAX_BYTES);
        let parse = |bytes: Vec<u8>| serde_json::from_slice(&bytes).map_err(io::Error::other);
        let loaded = read.and_then(|bytes| bytes.map(parse).transpose());
        loaded.unwrap_or_else(|error| {
            warn!(path = %self.path.display(), %error, "the last inventory is not known; a GPU that does not answer now is not published");
            None
        })
    }

    /// Saves an inventory. Without a driver nothing is known about GPUs, so the one before stays.
    pub fn save(&self, inventory: &Inventory) {
        if !matches!(inventory.driver, DriverState::Loaded { .. }) {
            return;
        }
        let write = |bytes: Vec<u8>| {
            replace(&HostFiles, &self.path, &bytes, &self.writer, NewFile { mode: 0o600, durable: false })
        };
        if let Err(error) = serde_json::to_vec(inventory).map_err(io::Error::other).and_then(write) {
            warn!(path = %self.path.display(), %error, "failed to save the inventory");
        }
    }

    pub fn remove(&self) {
        if let Err(error) = HostFiles.remove(&self.path) {
            warn!(path = %self.path.display(), %error, "failed to remove the file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = InventoryFile::new(dir.path(), "1");
        assert_eq!(file.load(), None);
        let driver = DriverState::Loaded { version: "580.95.5".parse().unwrap(), cuda: None };
        let known = Inventory { driver, ..Inventory::without_driver(String::new()) };
        file.save(&known);
        file.save(&Inventory::without_driver("unloaded".to_owned()));
        assert_eq!(file.load(), Some(known));
        for bad in ["", "{", r#"{"of": "another version"}"#] {
            std::fs::write(dir.path().join(NAME), bad).unwrap();
            assert_eq!(file.load(), None, "{bad}");
        }
        file.remove();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
