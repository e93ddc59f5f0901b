// SPDX-License-Identifier: Apache-2.0
//! Version 1 of a ledger. Frozen, and read only: no program writes it any more. Fields it does not know become [`GpuLedger::unknown`] and are
//! written back.

use std::collections::{BTreeMap, BTreeSet};

use dra_model::{DaemonId, GpuUuid};
use serde::Deserialize;

use super::content::GpuLedger;
use crate::record::Unknown;
use crate::versions::words::Settings;

#[derive(Deserialize)]
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

pub(super) fn decode(payload: &[u8]) -> Result<GpuLedger, serde_json::Error> {
    let Ledger { gpu, boot_id, found, in_force, daemons, unknown } = serde_json::from_slice(payload)?;
    let (found, in_force) = (found.into(), in_force.into());
    Ok(GpuLedger { gpu, boot_id, found, in_force, mig_mode_on: false, partitions: BTreeMap::new(), daemons, unknown })
}
