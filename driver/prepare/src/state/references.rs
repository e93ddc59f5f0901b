// SPDX-License-Identifier: Apache-2.0
//! The references that claims hold to the settings of a GPU or to an MPS daemon. Pure.
//!
//! Only records of this boot count, because settings and daemons do not survive a reboot. A quarantined record counts as a
//! reference to all of its GPUs, because containers of its claim may be running.

use dra_checkpoint::{ClaimRecord, ClaimState, Step};
use dra_model::{ClaimRef, DaemonId, GpuSettings, GpuUuid, MigIdentity};

use crate::state::quarantine::QuarantinedClaim;

/// On whose behalf references are counted.
#[derive(Debug, Clone, Copy)]
pub enum Caller<'a> {
    None,
    /// The record of this claim does not count, but a quarantined one does: containers of an earlier prepare may run.
    Preparing(&'a ClaimRef),
    /// Nothing of this claim counts.
    Unpreparing(&'a ClaimRef),
}

/// The claims of this node whose references count for a caller.
#[derive(Debug, Clone, Copy)]
pub struct References<'a> {
    pub caller: Caller<'a>,
    /// Of all claims.
    pub records: &'a [ClaimRecord],
    pub quarantined: &'a [QuarantinedClaim],
    /// `None` where the boot id cannot be read: then records of every boot count.
    pub boot_id: Option<&'a str>,
}

impl<'a> References<'a> {
    /// Whether a claim relies on the settings of a GPU, which may be half set or half restored.
    pub fn to_settings(&self, gpu: &GpuUuid) -> bool {
        let relies = |record: &ClaimRecord| record.effects().iter().any(|step| wanted(step, gpu).is_some());
        self.records().any(relies) || self.quarantined().any(|claim| claim.may_use(gpu))
    }

    /// The ready claims that rely on settings of a GPU, and those settings.
    pub fn with_settings(&self, gpu: &GpuUuid) -> impl Iterator<Item = (&'a ClaimRef, GpuSettings)> {
        let ready = |record: &'a ClaimRecord| match &record.state {
            ClaimState::Ready { done } => Some((&record.claim, done.iter().find_map(|step| wanted(step, gpu))?)),
            ClaimState::Preparing { .. } | ClaimState::Undoing { .. } => None,
        };
        self.records().filter_map(ready)
    }

    /// Whether a claim has a partition of a GPU, or may have one.
    pub fn to_partitions(&self, gpu: &GpuUuid) -> bool {
        let is_of_gpu = |step: &Step| matches!(step, Step::Partition { identity } if identity.parent == *gpu);
        self.records().any(|record| record.effects().iter().any(is_of_gpu))
            || self.quarantined().any(|claim| claim.may_use(gpu))
    }

    /// The partitions of a GPU that claims have, or may have.
    pub fn partitions_of(&self, gpu: &'a GpuUuid) -> impl Iterator<Item = MigIdentity> {
        self.records().flat_map(ClaimRecord::effects).filter_map(move |step| match step {
            Step::Partition { identity } if identity.parent == *gpu => Some(identity),
            Step::Partition { .. } | Step::ClaimSpec | Step::GpuSettings { .. } | Step::MpsDaemon { .. } => None,
        })
    }

    /// A claim that has a device of a GPU, or may have one.
    pub fn holder_of(&self, gpu: &GpuUuid) -> Option<String> {
        let has_one = |record: &&ClaimRecord| {
            record.devices.iter().any(|device| !device.admin_access && device.hardware.gpu() == gpu)
        };
        let record = self.records().find(has_one).map(|record| format!("claim {}", record.claim));
        let quarantined = self.quarantined().find(|claim| claim.may_use(gpu));
        record.or_else(|| Some(format!("the claim of {}", quarantined?.record.path.display())))
    }

    /// Whether a claim has a partition, or may have it.
    pub fn to_partition(&self, partition: &MigIdentity) -> bool {
        let is_it = |step: &Step| matches!(step, Step::Partition { identity } if identity == partition);
        self.records().any(|record| record.effects().iter().any(is_it))
    }

    /// Whether a claim relies on a daemon.
    pub fn to_daemon(&self, id: &DaemonId) -> bool {
        let may_use = |claim: &QuarantinedClaim| match id.gpu() {
            Some(gpu) => claim.may_use(&gpu),
            None => claim.record.uid.as_ref().is_some_and(|uid| id.is_of_claim(uid)),
        };
        self.records_of_daemon(id).next().is_some() || self.quarantined().any(may_use)
    }

    /// The records that name a daemon.
    pub fn records_of_daemon(&self, id: &DaemonId) -> impl Iterator<Item = &'a ClaimRecord> {
        let needs = move |step: &Step| matches!(step, Step::MpsDaemon { id: needed, .. } if needed == id);
        self.records().filter(move |record| record.effects().iter().any(needs))
    }

    fn records(&self) -> impl Iterator<Item = &'a ClaimRecord> {
        let Self { caller, boot_id, .. } = *self;
        let is_own = move |record: &ClaimRecord| match caller {
            Caller::None => false,
            Caller::Preparing(claim) | Caller::Unpreparing(claim) => record.claim.uid == claim.uid,
        };
        let counts =
            move |record: &&ClaimRecord| !is_own(record) && boot_id.is_none_or(|boot_id| record.boot_id == boot_id);
        self.records.iter().filter(counts)
    }

    fn quarantined(&self) -> impl Iterator<Item = &'a QuarantinedClaim> {
        let caller = self.caller;
        self.quarantined.iter().filter(move |claim| match caller {
            Caller::None | Caller::Preparing(_) => true,
            Caller::Unpreparing(own) => !claim.is_about(&own.uid),
        })
    }
}

fn wanted(step: &Step, of: &GpuUuid) -> Option<GpuSettings> {
    match step {
        Step::GpuSettings { gpu, wanted } if gpu == of => Some(*wanted),
        Step::GpuSettings { .. } | Step::MpsDaemon { .. } | Step::Partition { .. } | Step::ClaimSpec => None,
    }
}
