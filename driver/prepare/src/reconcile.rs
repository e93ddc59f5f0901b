// SPDX-License-Identifier: Apache-2.0
//! Brings records, specs and locks into line, at start and from time to time.
//!
//! In comes a way to ask whether a claim still exists; out goes a report. It repairs what a ready claim misses, finishes
//! what was begun, collects what is ours and belongs to nobody, and tells what is not ours without touching it. One thing
//! that fails stops nothing else. A claim that is being worked on is left alone.
//!
//! Listings tell where to look. Whatever is changed is read again under the lock that it is changed with.

pub(crate) mod claims;

use std::path::PathBuf;
use std::time::Instant;

use dra_cdi::store::SpecListing;
use dra_cdi::{Kind, SpecStoreError};
use dra_checkpoint::{Listing, Quarantined, StoreError};
use dra_hardware::{BootIdError, DaemonError, DriverFilesError};
use dra_model::{ClaimRef, ClaimUid, GpuUuid};

use crate::engine::{Engine, OthersError};
use crate::error::{NotLocked, PrepareError, UnprepareError};
use crate::locks::LockError;
use crate::step::{Drift, StepError};
use claims::{Ending, Round};

/// What the API server says of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimLife {
    /// It exists, with this UID, and is allocated to this node.
    Alive,
    /// It exists, with this UID, and is not allocated, or not to this node. It may be again.
    Released,
    /// It does not exist, and never will again.
    Gone,
    /// The API server did not say.
    Unknown,
}

impl ClaimLife {
    /// Whether no pod of this node can use the claim any more.
    pub(crate) fn is_over(self) -> bool {
        match self {
            Self::Gone | Self::Released => true,
            Self::Alive | Self::Unknown => false,
        }
    }
}

/// What was found and done.
#[derive(Debug, Default)]
pub struct Reconciliation {
    /// Ready claims that the API server does not know any more, or not as allocated to this node: they are undone by a later
    /// round, unless the kubelet unprepares them first.
    pub missing: Vec<ClaimRef>,
    /// Ready claims that missed something and have it again.
    pub repaired: Vec<ClaimRef>,
    /// Claims that were undone.
    pub undone: Vec<ClaimRef>,
    /// Specs of ours that nobody used.
    pub removed: Vec<PathBuf>,
    /// Records that cannot be understood and are not settled, those of earlier times included.
    pub quarantined: Vec<Quarantined>,
    /// Files in our places that are not ours; they were left alone.
    pub foreign: Vec<PathBuf>,
    /// GPUs to which something was owed that they have back.
    pub restored: Vec<GpuUuid>,
    /// Settings that someone changed although claims rely on them; the next prepare on that GPU puts them right.
    pub drifted: Vec<Drift>,
    /// What failed.
    pub problems: Vec<Problem>,
}

/// Something that failed and is tried again the next time.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The spec directory.
    #[error("the CDI specs cannot be reconciled")]
    Specs {
        /// Why.
        #[source]
        source: SpecStoreError,
    },
    /// The folder of records.
    #[error("the claim records cannot be reconciled")]
    Records {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The folder of locks.
    #[error("old locks cannot be swept")]
    Locks {
        /// Why.
        #[source]
        source: LockError,
    },
    /// Claims or GPUs that cannot be locked, of which this is the first.
    #[error("what cannot be locked is not reconciled")]
    NotLocked {
        /// How locking the first of them failed.
        #[source]
        source: NotLocked,
    },
    /// Whether the node was rebooted is not known.
    #[error("this boot cannot be told from the one before, so no claim is repaired")]
    Boot {
        /// Why.
        #[source]
        source: BootIdError,
    },
    /// Which base spec is in use by new claims.
    #[error("the driver is not complete, so no base spec is collected")]
    DriverFiles {
        /// Why.
        #[source]
        source: DriverFilesError,
    },
    /// A ready claim that stays incomplete.
    #[error("a prepared claim cannot be repaired")]
    Repair {
        /// Why.
        #[source]
        source: PrepareError,
    },
    /// What other claims hold.
    #[error("what claims rely on cannot be told, so a GPU is not reconciled")]
    Others {
        /// Why.
        #[source]
        source: OthersError,
    },
    /// The folder of what is owed to GPUs.
    #[error("what is owed to GPUs cannot be reconciled")]
    Ledgers {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A GPU of which nobody knows what was found.
    #[error("{} is {reason}: its GPU gets the settings it has after a reboot when its claims have ended", path.display())]
    Damaged {
        /// The ledger that was set aside.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A GPU that somebody works on.
    #[error("a GPU cannot be given back")]
    Lock {
        /// Why.
        #[source]
        source: NotLocked,
    },
    /// A GPU that may still be owed something.
    #[error("the settings and daemons of {gpu} cannot be reconciled")]
    Debt {
        /// Which.
        gpu: GpuUuid,
        /// Why.
        #[source]
        source: StepError,
    },
    /// The MPS host.
    #[error("the MPS daemons cannot be reconciled")]
    Daemons {
        /// Why.
        #[source]
        source: DaemonError,
    },
    /// A daemon that no claim known here relies on and that stays.
    #[error("an MPS daemon that belongs to no claim of this driver stays")]
    Strange {
        /// Why.
        #[source]
        source: StepError,
    },
    /// A claim that nobody needs and that stays.
    #[error("a claim that is gone cannot be undone")]
    Undo {
        /// Why.
        #[source]
        source: UnprepareError,
    },
}

impl Engine {
    /// See the module. A ready claim of this boot is undone when it is missing for a while; see [`crate::missing`].
    pub fn reconcile(&self, life: &dyn Fn(&ClaimRef) -> ClaimLife) -> Reconciliation {
        let mut report = Reconciliation::default();
        // It waits for nobody.
        let call = self.call(Instant::now());
        if let Err(source) = self.locks.sweep() {
            report.problems.push(Problem::Locks { source });
        }
        // Specs before records: what has a record by then is in use. And before claims: a base spec that was collected while a
        // prepare of another instance came to need it is made again by the repair of that claim.
        match self.specs.list() {
            Ok(specs) => self.collect_specs(specs, &mut report),
            Err(source) => report.problems.push(Problem::Specs { source }),
        }
        match self.listed() {
            Ok(listing) => {
                let boot_id = self.host.boot_id().map_err(|source| report.problems.push(Problem::Boot { source })).ok();
                let boot_id = boot_id.as_deref();
                let round = Round { life, boot_id, call: &call };
                self.reconcile_claims(&listing.records, round, &mut report);
                self.reconcile_doubts(&listing.records, round, &mut report);
                self.missing.keep_only(|uid| report.missing.iter().any(|missing| missing.uid == *uid));
                listing.unfinished.iter().for_each(|uid| self.remove_unfinished_record(uid, &mut report));
                report.foreign.extend(listing.foreign);
            }
            Err(source) => report.problems.push(Problem::Records { source }),
        }
        self.reconcile_gpus(&call, &mut report);
        match self.records.all_quarantined() {
            Ok(in_doubt) => report.quarantined = in_doubt,
            Err(source) => report.problems.push(Problem::Records { source }),
        }
        report
    }

    /// Removes specs that no record needs, not even one that was set aside. The base spec of the loaded driver stays for the next claim.
    fn collect_specs(&self, listing: SpecListing, report: &mut Reconciliation) {
        report.foreign.extend(listing.foreign);
        for unfinished in listing.unfinished {
            let removed = self.if_idle(&unfinished.writer, || self.specs.remove_unfinished(&unfinished));
            report.done_if_idle(removed, |source| Problem::Specs { source });
        }
        let found = self.records.list().and_then(|listing| Ok((listing, self.records.quarantined()?)));
        let (records, doubts) = match found {
            Ok((Listing { records, quarantined, .. }, before)) => (records, [before, quarantined].concat()),
            Err(source) => return report.problems.push(Problem::Records { source }),
        };
        let loaded = self.host.driver_files().map(|files| files.version);
        for kind in listing.specs {
            let unused = match &kind {
                Kind::Claim(uid) => {
                    records.iter().all(|record| record.claim.uid != *uid) && doubts.iter().all(|one| !one.is_about(uid))
                }
                Kind::Base(version) => {
                    // Which one a record in doubt uses is not known.
                    let used = !doubts.is_empty() || records.iter().any(|record| record.base == *version);
                    !used && loaded.as_ref().is_ok_and(|loaded| loaded != version)
                }
            };
            if unused {
                self.remove_spec(&kind, report);
            }
        }
        if let Err(source) = loaded {
            report.problems.push(Problem::DriverFiles { source });
        }
    }

    fn remove_spec(&self, kind: &Kind, report: &mut Reconciliation) {
        let remove = || self.specs.remove(kind).map(|()| true);
        let removed = match kind {
            Kind::Base(_) => Ok(Some(remove())),
            Kind::Claim(uid) => self.if_idle(uid, || {
                // The claim may have been prepared since.
                let is_unused = matches!(self.load(uid), Ok(None)) && !self.is_in_doubt(uid);
                if is_unused { remove() } else { Ok(false) }
            }),
        };
        if report.done_if_idle(removed, |source| Problem::Specs { source }) == Some(true) {
            report.removed.push(self.specs.path(kind));
        }
    }

    fn remove_unfinished_record(&self, uid: &ClaimUid, report: &mut Reconciliation) {
        let removed = self.if_idle(uid, || self.records.remove_unfinished(uid));
        report.done_if_idle(removed, |source| Problem::Records { source });
    }
}

impl Reconciliation {
    /// Whether the node was looked after as a whole: records could be read, and what was looked at could be locked. Problems
    /// of single claims and GPUs keep no round from being complete.
    pub fn is_complete(&self) -> bool {
        let is_of_all = |problem: &Problem| match problem {
            Problem::Records { .. } | Problem::Locks { .. } | Problem::NotLocked { .. } => true,
            Problem::Specs { .. }
            | Problem::Boot { .. }
            | Problem::DriverFiles { .. }
            | Problem::Repair { .. }
            | Problem::Others { .. }
            | Problem::Ledgers { .. }
            | Problem::Damaged { .. }
            | Problem::Lock { .. }
            | Problem::Debt { .. }
            | Problem::Daemons { .. }
            | Problem::Strange { .. }
            | Problem::Undo { .. } => false,
        };
        !self.problems.iter().any(is_of_all)
    }

    /// What was done at a claim that no call works on, where it was done; errors are problems.
    fn done_if_idle<T, E>(
        &mut self,
        done: Result<Option<Result<T, E>>, NotLocked>,
        problem: impl FnOnce(E) -> Problem,
    ) -> Option<T> {
        let done = self.locked(done)??;
        done.map_err(|error| self.problems.push(problem(error))).ok()
    }

    /// How far a claim was ended.
    fn ended(&mut self, claim: &ClaimRef, ended: Result<Ending, Problem>) {
        match ended {
            Ok(Ending::Holds) => {}
            Ok(Ending::Left) => self.missing.push(claim.clone()),
            Ok(Ending::Undone) => self.undone.push(claim.clone()),
            Err(problem) => self.problems.push(problem),
        }
    }

    /// What was done; a failure is a problem.
    pub(crate) fn done<T>(&mut self, done: Result<Option<T>, Problem>) -> Option<T> {
        match done {
            Ok(done) => done,
            Err(Problem::NotLocked { source }) => self.locked(Err(source)),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    /// What was locked. What another call works on is looked at by the next round; a lock that fails is a problem, and told
    /// once, since the folder of locks fails for all.
    pub(crate) fn locked<T>(&mut self, locked: Result<T, NotLocked>) -> Option<T> {
        match locked {
            Ok(locked) => return Some(locked),
            Err(NotLocked::Busy { .. }) => {}
            Err(source @ NotLocked::Failed { .. }) => {
                if !self.problems.iter().any(|problem| matches!(problem, Problem::NotLocked { .. })) {
                    self.problems.push(Problem::NotLocked { source });
                }
            }
        }
        None
    }
}
