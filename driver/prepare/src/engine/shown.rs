// SPDX-License-Identifier: Apache-2.0
//! What is shown of shares: read from the records, without a lock, at the moment of asking.

use std::collections::{BTreeMap, BTreeSet};

use dra_checkpoint::{RecordedHardware, RecordedSharing, StoreError};
use dra_model::{Bytes, ClaimRef, DaemonId, DeviceName, GpuUuid, SharedForm};

use super::Engine;
use crate::answer::{self, PreparedDevice};
use crate::shares;
use crate::tally::Deed;
use crate::users::{Asking, Users};

/// What is promised of one form of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// The device, as it is published.
    pub device: DeviceName,
    /// Its GPU.
    pub gpu: GpuUuid,
    /// Its form.
    pub form: SharedForm,
    /// How many shares.
    pub shares: u64,
    /// Of how much memory together.
    pub memory: Bytes,
}

impl Engine {
    /// What is promised in shares, ordered by device; forms without a share are not there.
    pub fn promised(&self) -> Result<Vec<Promise>, StoreError> {
        let mut promised: BTreeMap<DeviceName, Promise> = BTreeMap::new();
        for device in self.records.list()?.records.into_iter().flat_map(|record| record.devices) {
            let RecordedHardware::Shared { uuid, form } = device.hardware else { continue };
            if device.admin_access {
                continue;
            }
            let memory = shares::limits(&device.sharing).memory.map_or(0, |memory| memory.0);
            let nothing = || Promise { device: device.device.clone(), gpu: uuid, form, shares: 0, memory: Bytes(0) };
            let promise = promised.entry(device.device.clone()).or_insert_with(nothing);
            promise.shares += 1;
            promise.memory = Bytes(promise.memory.0.saturating_add(memory));
        }
        Ok(promised.into_values().collect())
    }

    /// The daemons that claims of this node have.
    pub fn daemons_in_use(&self) -> Result<BTreeSet<DaemonId>, StoreError> {
        let devices = self.records.list()?.records.into_iter().flat_map(|record| record.devices);
        let daemon = |sharing| match sharing {
            RecordedSharing::Mps { daemon, .. } => Some(daemon),
            RecordedSharing::Plain | RecordedSharing::Exclusive | RecordedSharing::TimeSlicing { .. } => None,
        };
        Ok(devices.filter_map(|device| daemon(device.sharing)).collect())
    }

    /// The claims that were told that they can use a daemon, with their devices.
    pub fn users_of(&self, daemon: &DaemonId) -> Result<Vec<(ClaimRef, Vec<PreparedDevice>)>, StoreError> {
        let records = self.records.list()?.records;
        let boot_id = self.host.boot_id().ok();
        let users = Users { asking: Asking::Nobody, records: &records, doubts: &[], boot_id: boot_id.as_deref() };
        let users = users.of_daemon(daemon).filter(|record| record.is_ready());
        Ok(users.map(|record| (record.claim.clone(), answer::of_record(record))).collect())
    }

    /// How often settings and daemons were given back, or were not, since this process began.
    pub fn deeds(&self) -> BTreeMap<Deed, u64> {
        self.tally.counts()
    }
}
