// SPDX-License-Identifier: Apache-2.0
//! What is written down of a daemon before something is done with it, so that the next process finds it again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use dra_files::{Files as _, HostFiles, NewFile, replace};
use dra_hardware::{DaemonSpec, MultiUser};
use dra_model::{Bytes, DaemonId, ThreadPercentage};
use serde::{Deserialize, Serialize};

use crate::processes::ProcessId;

/// The form of this file; one of another form is not understood.
const VERSION: u32 = 1;

/// A longer file is none of ours.
const MAX_BYTES: u64 = 1 << 20;

/// What was meant last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Nobody was told yet that it is there.
    Starting,
    /// It is meant to be there.
    Running,
    /// It is meant to go.
    Stopping,
}

/// One daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedState {
    version: u32,
    /// Of the boot it was started in.
    pub boot_id: String,
    /// What was meant last.
    pub phase: Phase,
    /// What it should be.
    #[serde(with = "SpecForm")]
    pub spec: DaemonSpec,
    /// Whether it was started with `-M`.
    pub multi_user: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// The daemon; absent while it is being started.
    pub process: Option<ProcessId>,
    /// Its clients when they were checked at last.
    pub clients: BTreeSet<ProcessId>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "DaemonSpec", rename_all = "camelCase")]
struct SpecForm {
    id: DaemonId,
    devices: Vec<String>,
    #[serde(with = "MultiUserForm")]
    multi_user: MultiUser,
    threads: Option<ThreadPercentage>,
    memory: BTreeMap<u32, Bytes>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "MultiUser", rename_all = "camelCase")]
enum MultiUserForm {
    Off,
    On,
    IfKnown,
}

impl SavedState {
    /// A daemon that is about to be started.
    pub fn new(spec: DaemonSpec, boot_id: &str) -> Self {
        let boot_id = boot_id.to_owned();
        let (phase, clients) = (Phase::Starting, BTreeSet::new());
        Self { version: VERSION, boot_id, phase, spec, multi_user: false, restarts: 0, process: None, clients }
    }

    /// Reads what is there, if it is understood.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let Some(bytes) = HostFiles.read(path, MAX_BYTES)? else { return Ok(None) };
        let saved: Self = serde_json::from_slice(&bytes)?;
        if saved.version == VERSION { Ok(Some(saved)) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Writes it in one step. It need not survive a power cut, which ends the daemon too.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        replace(&HostFiles, path, &bytes, "host", NewFile { mode: 0o600, durable: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_other_things_are_not_taken_for_it() {
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
