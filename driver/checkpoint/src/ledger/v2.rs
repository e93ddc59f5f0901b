// SPDX-License-Identifier: Apache-2.0
//! Version 2 of a ledger, the current one: version 1, MIG mode and partitions. Frozen: a change is a new version. Fields it does
//! not know become [`GpuLedger::unknown`] and are written back.

use std::collections::BTreeSet;

use dra_model::{DaemonId, GpuUuid, MigUuid};
use serde::{Deserialize, Serialize};

use super::content::GpuLedger;
use crate::frame::{self, Kind};
use crate::record::Unknown;
use crate::versions::words::{Instance, Settings};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ledger {
    gpu: GpuUuid,
    boot_id: String,
    found: Settings,
    in_force: Settings,
    mig_mode_on: bool,
    partitions: Vec<Partition>,
    daemons: BTreeSet<DaemonId>,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Serialize, Deserialize)]
struct Partition {
    instance: Instance,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<MigUuid>,
}

pub(super) fn encode(ledger: &GpuLedger) -> Result<Vec<u8>, serde_json::Error> {
    let GpuLedger { gpu, boot_id, found, in_force, mig_mode_on, partitions, daemons, unknown } = ledger.clone();
    let (found, in_force) = (found.into(), in_force.into());
    let partitions =
        partitions.iter().map(|(identity, uuid)| Partition { instance: identity.into(), uuid: uuid.clone() });
    let partitions = partitions.collect();
    let ledger = Ledger { gpu, boot_id, found, in_force, mig_mode_on, partitions, daemons, unknown };
    Ok(frame::encode(Kind::Ledger, 2, &serde_json::to_vec(&ledger)?))
}

pub(super) fn decode(payload: &[u8]) -> Result<GpuLedger, serde_json::Error> {
    let Ledger { gpu, boot_id, found, in_force, mig_mode_on, partitions, daemons, unknown } =
        serde_json::from_slice(payload)?;
    let (found, in_force) = (found.into(), in_force.into());
    let partitions = partitions.into_iter().map(|Partition { instance, uuid }| (instance.into(), uuid)).collect();
    Ok(GpuLedger { gpu, boot_id, found, in_force, mig_mode_on, partitions, daemons, unknown })
}
