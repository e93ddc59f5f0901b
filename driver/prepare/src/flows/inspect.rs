// SPDX-License-Identifier: Apache-2.0
//! Answers questions about shares, daemons and pending restores from the records, without the lock of a claim or GPU.

use std::collections::{BTreeMap, BTreeSet};

use dra_checkpoint::{ClaimRecord, RecordedHardware, RecordedSharing, StoreError};
use dra_model::{Bytes, ClaimRef, DaemonId, DeviceName, GpuUuid, Placement, SharedForm};

use crate::decide::prepared_device::{PreparedDevice, of_record};
use crate::decide::shares;
use crate::decide::target::Target;
use crate::flows::restore::gpus_of;
use crate::state::node::Node;
use crate::state::other_claims::{OtherClaims, OtherClaimsError};
use crate::state::references::{Caller, References};

/// The shares of one device that claims of this node hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedShares {
    pub device: DeviceName,
    pub gpu: GpuUuid,
    pub form: SharedForm,
    pub count: u64,
    /// Of all these shares together.
    pub memory: Bytes,
}

/// A device of an MPS daemon.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DaemonDevice {
    pub gpu: GpuUuid,
    /// Where a MIG device is.
    pub placement: Option<Placement>,
}

/// Ordered by device; devices without a share are absent.
pub(crate) fn prepared_shares(node: &Node) -> Result<Vec<PreparedShares>, StoreError> {
    let mut all: BTreeMap<DeviceName, PreparedShares> = BTreeMap::new();
    for device in node.records.list()?.records.into_iter().flat_map(|record| record.devices) {
        let RecordedHardware::Shared { uuid, form } = device.hardware else { continue };
        if device.admin_access {
            continue;
        }
        let memory = shares::limits(&device.sharing).memory.map_or(0, |memory| memory.0);
        let empty = || PreparedShares { device: device.device.clone(), gpu: uuid, form, count: 0, memory: Bytes(0) };
        let shares = all.entry(device.device.clone()).or_insert_with(empty);
        shares.count += 1;
        shares.memory = Bytes(shares.memory.0.saturating_add(memory));
    }
    Ok(all.into_values().collect())
}

/// The daemons that claims of this node have.
pub(crate) fn daemons_in_use(node: &Node) -> Result<BTreeSet<DaemonId>, StoreError> {
    let devices = node.records.list()?.records.into_iter().flat_map(|record| record.devices);
    let daemon = |sharing| match sharing {
        RecordedSharing::Mps { daemon, .. } => Some(daemon),
        RecordedSharing::Plain | RecordedSharing::Exclusive | RecordedSharing::TimeSlicing { .. } => None,
    };
    Ok(devices.filter_map(|device| daemon(device.sharing)).collect())
}

/// The daemons that claims of this boot have, or get now, with their devices.
pub(crate) fn devices_of_daemons(node: &Node) -> Result<BTreeMap<DaemonId, BTreeSet<DaemonDevice>>, StoreError> {
    let boot_id = node.host.boot_id().ok();
    let is_of_boot = |record: &ClaimRecord| boot_id.as_ref().is_none_or(|boot_id| record.boot_id == *boot_id);
    let records = node.records.list()?.records.into_iter().filter(is_of_boot);
    let mut daemons: BTreeMap<DaemonId, BTreeSet<DaemonDevice>> = BTreeMap::new();
    for device in records.flat_map(|record| record.devices) {
        if let RecordedSharing::Mps { daemon, .. } = device.sharing {
            let target = Target::of_record(&device.hardware);
            let device = DaemonDevice { gpu: target.gpu().clone(), placement: target.placement() };
            daemons.entry(daemon).or_default().insert(device);
        }
    }
    Ok(daemons)
}

/// The GPUs whose original settings are on disk although no claim of this boot relies on their settings. A quarantined record
/// counts as a reference, as for the restore.
pub(crate) fn pending_restores(node: &Node) -> Result<BTreeSet<GpuUuid>, OtherClaimsError> {
    let others = OtherClaims::read(node)?;
    let boot_id = node.host.boot_id().ok();
    let OtherClaims { records, quarantined } = &others;
    let references = References { caller: Caller::None, records, quarantined, boot_id: boot_id.as_deref() };
    let gpus = gpus_of(&node.ledgers.list().map_err(|source| OtherClaimsError::Ledgers { source })?);
    Ok(gpus.into_iter().filter(|gpu| !references.to_settings(gpu)).collect())
}

/// The ready claims, with their devices.
pub(crate) fn claims(node: &Node) -> Result<Vec<(ClaimRef, Vec<PreparedDevice>)>, StoreError> {
    let boot_id = node.host.boot_id().ok();
    let is_of_boot = |record: &ClaimRecord| boot_id.as_ref().is_none_or(|boot_id| record.boot_id == *boot_id);
    let records = node.records.list()?.records.into_iter();
    let ready = records.filter(|record| record.is_ready() && is_of_boot(record));
    Ok(ready.map(|record| (record.claim.clone(), of_record(&record))).collect())
}

/// The ready claims that use a daemon, with their devices.
pub(crate) fn claims_of_daemon(
    node: &Node,
    daemon: &DaemonId,
) -> Result<Vec<(ClaimRef, Vec<PreparedDevice>)>, StoreError> {
    let records = node.records.list()?.records;
    let boot_id = node.host.boot_id().ok();
    let references =
        References { caller: Caller::None, records: &records, quarantined: &[], boot_id: boot_id.as_deref() };
    let ready = references.records_of_daemon(daemon).filter(|record| record.is_ready());
    Ok(ready.map(|record| (record.claim.clone(), of_record(record))).collect())
}
