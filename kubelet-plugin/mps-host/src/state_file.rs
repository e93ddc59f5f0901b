// SPDX-License-Identifier: Apache-2.0
//! The state file of a daemon, written before the daemon changes, so that the next process finds the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use dra_files::{Files as _, HostFiles, NewFile, replace};
use dra_hardware::{DaemonSpec, MultiUser};
use dra_model::{Bytes, DaemonId, ThreadPercentage};
use serde::{Deserialize, Serialize};

use crate::processes::ProcessId;

/// Version of the format. A file of another version is invalid.
const VERSION: u32 = 1;

/// A longer file was not written by this program.
const MAX_BYTES: u64 = 1 << 20;

/// The last request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Start, not answered yet.
    Starting,
    /// Start, answered: the daemon must run.
    Running,
    /// Stop.
    Stopping,
}

/// The content of the state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedState {
    version: u32,
    /// The boot of the last start.
    pub boot_id: String,
    pub phase: Phase,
    #[serde(with = "SpecFormat")]
    pub spec: DaemonSpec,
    /// Whether the daemon runs with `-M`.
    pub multi_user: bool,
    /// Starts after the first one.
    pub restarts: u32,
    /// The control daemon. Absent while it starts and after its exit.
    pub process: Option<ProcessId>,
    /// The clients at the last check.
    pub clients: BTreeSet<ProcessId>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "DaemonSpec", rename_all = "camelCase")]
struct SpecFormat {
    id: DaemonId,
    devices: Vec<String>,
    #[serde(with = "MultiUserFormat")]
    multi_user: MultiUser,
    threads: Option<ThreadPercentage>,
    memory: BTreeMap<u32, Bytes>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "MultiUser", rename_all = "camelCase")]
enum MultiUserFormat {
    Off,
    On,
    IfKnown,
}

impl SavedState {
    /// The state before the first start.
    pub fn new(spec: DaemonSpec, boot_id: &str) -> Self {
        let boot_id = boot_id.to_owned();
        let (phase, clients) = (Phase::Starting, BTreeSet::new());
        Self { version: VERSION, boot_id, phase, spec, multi_user: false, restarts: 0, process: None, clients }
    }

    /// Reads the file. `None` if it does not exist.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let Some(bytes) = HostFiles.read(path, MAX_BYTES)? else { return Ok(None) };
        let saved: Self = serde_json::from_slice(&bytes)?;
        if saved.version == VERSION { Ok(Some(saved)) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Replaces the file atomically. It need not survive a power cut, because the daemon does not either.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        replace(&HostFiles, path, &bytes, "host", NewFile { mode: 0o600, durable: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_state_reads_back_and_other_content_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert_eq!(SavedState::read(&path).unwrap(), None);
        let spec = DaemonSpec {
            id: "gpu-0".parse().unwrap(),
            devices: vec!["GPU-1".to_owned(), "MIG-2".to_owned()],
            multi_user: MultiUser::IfKnown,
            threads: ThreadPercentage::try_from(50).ok(),
            memory: BTreeMap::from([(1, Bytes(1 << 30))]),
        };
        let mut saved = SavedState::new(spec, "boot");
        saved.clients.insert(ProcessId { pid: 7, started: 8 });
        saved.process = Some(ProcessId { pid: 9, started: 10 });
        saved.write(&path).unwrap();
        assert_eq!(SavedState::read(&path).unwrap(), Some(saved.clone()));
        for bad in ["", "{}", "null", &serde_json::to_string(&saved).unwrap().replace("\"version\":1", "\"version\":2")]
        {
            std::fs::write(&path, bad).unwrap();
            assert!(SavedState::read(&path).is_err(), "{bad}");
        }
    }
}
