// SPDX-License-Identifier: Apache-2.0
//! Version 1 of a ledger. Frozen: a change is a new version. Fields it does not know become [`GpuLedger::unknown`] and are
//! written back.

use std::collections::BTreeSet;

use dra_model::{DaemonId, GpuUuid};
use serde::{Deserialize, Serialize};

use super::content::GpuLedger;
use crate::frame::{self, Kind};
use crate::record::Unknown;
use crate::versions::words::Settings;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ledger {
    gpu: GpuUuid,
    boot_id: String,
    found: Settings,
    in_force: Settings,
    daemons: BTreeSet<DaemonId>,
    #[serde(flatten)]
    unknown: Unknown,
}

pub(super) fn encode(ledger: &GpuLedger) -> Result<Vec<u8>, serde_json::Error> {
    let GpuLedger { gpu, boot_id, found, in_force, daemons, unknown } = ledger.clone();
    let ledger = Ledger { gpu, boot_id, found: found.into(), in_force: in_force.into(), daemons, unknown };
    Ok(frame::encode(Kind::Ledger, 1, &serde_json::to_vec(&ledger)?))
}

pub(super) fn decode(payload: &[u8]) -> Result<GpuLedger, serde_json::Error> {
    let Ledger { gpu, boot_id, found, in_force, daemons, unknown } = serde_json::from_slice(payload)?;
    Ok(GpuLedger { gpu, boot_id, found: found.into(), in_force: in_force.into(), daemons, unknown })
}
