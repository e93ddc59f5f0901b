// SPDX-License-Identifier: Apache-2.0
//! Who else relies on the settings of a GPU or on a daemon. Pure.
//!
//! Only what was done in this boot counts: what a record of an earlier boot says is gone. A record that was set aside may
//! be of a claim whose containers run, so it relies on all of its GPUs.

use dra_checkpoint::{ClaimRecord, ClaimState, Step};
use dra_model::{ClaimRef, ClaimUid, DaemonId, GpuSettings, GpuUuid};

use crate::doubts::Doubt;

/// Whose call it is.
#[derive(Debug, Clone, Copy)]
pub enum Asking<'a> {
    /// No claim's.
    Nobody,
    /// That of a claim that is prepared. Its record does not count, and one that was set aside does: containers of an
    /// earlier promise may run.
    Coming(&'a ClaimUid),
    /// That of a claim that is unprepared, of which nothing counts.
    Leaving(&'a ClaimUid),
}

/// The other claims of this node, as far as one of them is concerned, or all of them.
#[derive(Debug, Clone, Copy)]
pub struct Users<'a> {
    /// Who asks.
    pub asking: Asking<'a>,
    /// All records.
    pub records: &'a [ClaimRecord],
    /// Those that were set aside.
    pub doubts: &'a [Doubt],
    /// This boot; where it cannot be told from others, records of all of them count.
    pub boot_id: Option<&'a str>,
}

impl<'a> Users<'a> {
    /// Whether somebody relies on the settings of a GPU, which may be half set or half restored.
    pub fn rely_on_settings(&self, gpu: &GpuUuid) -> bool {
        let relies = |record: &ClaimRecord| record.effects().iter().any(|step| wanted(step, gpu).is_some());
        self.records().any(relies) || self.doubts().any(|doubt| doubt.may_use(gpu))
    }

    /// The claims that were reported as usable with settings of a GPU, and those settings.
    pub fn with_settings(&self, gpu: &GpuUuid) -> impl Iterator<Item = (&'a ClaimRef, GpuSettings)> {
        let ready = |record: &'a ClaimRecord| match &record.state {
            ClaimState::Ready { done } => Some((&record.claim, done.iter().find_map(|step| wanted(step, gpu))?)),
            ClaimState::Preparing { .. } | ClaimState::Undoing { .. } => None,
        };
        self.records().filter_map(ready)
    }

    /// Whether somebody relies on a daemon.
    pub fn rely_on_daemon(&self, id: &DaemonId) -> bool {
        let may_use = |doubt: &Doubt| match id.gpu() {
            Some(gpu) => doubt.may_use(&gpu),
            None => doubt.record.uid.as_ref().is_some_and(|uid| id.is_of_claim(uid)),
        };
        self.of_daemon(id).next().is_some() || self.doubts().any(may_use)
    }

    /// The records that say that they rely on a daemon.
    pub fn of_daemon(&self, id: &DaemonId) -> impl Iterator<Item = &'a ClaimRecord> {
        let needs = move |step: &Step| matches!(step, Step::MpsDaemon { id: needed, .. } if needed == id);
        self.records().filter(move |record| record.effects().iter().any(needs))
    }

    fn records(&self) -> impl Iterator<Item = &'a ClaimRecord> {
        let Self { asking, boot_id, .. } = *self;
        let is_own = move |record: &ClaimRecord| match asking {
            Asking::Nobody => false,
            Asking::Coming(uid) | Asking::Leaving(uid) => record.claim.uid == *uid,
        };
        let counts =
            move |record: &&ClaimRecord| !is_own(record) && boot_id.is_none_or(|boot_id| record.boot_id == boot_id);
        self.records.iter().filter(counts)
    }

    fn doubts(&self) -> impl Iterator<Item = &'a Doubt> {
        let asking = self.asking;
        self.doubts.iter().filter(move |doubt| match asking {
            Asking::Nobody | Asking::Coming(_) => true,
            Asking::Leaving(uid) => !doubt.is_about(uid),
        })
    }
}

fn wanted(step: &Step, of: &GpuUuid) -> Option<GpuSettings> {
    match step {
        Step::GpuSettings { gpu, wanted } if gpu == of => Some(*wanted),
        Step::GpuSettings { .. } | Step::MpsDaemon { .. } | Step::ClaimSpec => None,
    }
}
