// SPDX-License-Identifier: Apache-2.0
//! What this driver created on the GPUs, from the records and ledgers on disk: another instance of the plugin may have created it.

use dra_checkpoint::{ClaimRecord, LedgerStore, Quarantined, RecordStore, RecordedHardware, Step};
use dra_hardware::{Creations, Ownership};
use dra_model::{MigIdentity, MigUuid};

#[derive(Debug)]
pub(crate) struct RecordedCreations {
    pub(crate) records: RecordStore,
    pub(crate) ledgers: LedgerStore,
}

impl Ownership for RecordedCreations {
    /// What cannot be read belongs to an administrator: then it is reported, and not touched.
    fn creations(&self, boot_id: Option<&str>) -> Creations {
        let is_of_boot = |recorded: &str| boot_id.is_none_or(|boot_id| boot_id == recorded);
        let mut creations = Creations::default();
        let records = self.records.list().map(|listing| listing.records).unwrap_or_default();
        for record in records.iter().filter(|record| is_of_boot(&record.boot_id)) {
            creations.mig_devices.extend(partitions(record));
        }
        let quarantined = self.records.all_quarantined().unwrap_or_default();
        creations.mig_devices.extend(quarantined.iter().flat_map(salvaged_partitions));
        let ledgers = self.ledgers.list().map(|listing| listing.ledgers).unwrap_or_default();
        for ledger in ledgers.into_iter().filter(|ledger| is_of_boot(&ledger.boot_id)) {
            creations.mig_devices.extend(ledger.partitions);
            creations.mig_modes.extend(ledger.mig_mode_on.then_some(ledger.gpu));
        }
        creations
    }
}

/// The partitions of a claim that exist, or that may exist in part.
fn partitions(record: &ClaimRecord) -> impl Iterator<Item = (MigIdentity, Option<MigUuid>)> {
    record.effects().into_iter().filter_map(|step| match step {
        Step::Partition { identity } => {
            let uuid = record.created(&identity).map(|ids| ids.uuid.clone());
            Some((identity, uuid))
        }
        Step::ClaimSpec | Step::GpuSettings { .. } | Step::MpsDaemon { .. } => None,
    })
}

/// The partitions in a damaged record. Those without a UUID do not count, because they may not have been created.
pub(crate) fn salvaged_partitions(
    quarantined: &Quarantined,
) -> impl Iterator<Item = (MigIdentity, Option<MigUuid>)> + use<'_> {
    quarantined.salvaged.hardware.iter().filter_map(|hardware| match hardware {
        RecordedHardware::Partition { identity, created: Some(ids), .. } => {
            Some((identity.clone(), Some(ids.uuid.clone())))
        }
        RecordedHardware::Partition { created: None, .. }
        | RecordedHardware::Gpu { .. }
        | RecordedHardware::Shared { .. }
        | RecordedHardware::Mig { .. } => None,
    })
}
