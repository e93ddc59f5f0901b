// SPDX-License-Identifier: Apache-2.0
//! Prepares and unprepares claims. Every call blocks; calls for different claims on different GPUs run side by side.
//!
//! In come a claim's name and a way to fetch it; out go its devices, or one sentence why not. What is in memory could be
//! lost at any time: the truth is in the records, the spec directory and the hardware.

pub(crate) mod attempt;
pub(crate) mod call;
mod holders;
pub(crate) mod others;
mod shown;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Not;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dra_cdi::{Architecture, Kind, Naming, SpecStore};
use dra_checkpoint::store::Found;
use dra_checkpoint::{ClaimRecord, LedgerStore, RecordStore, Step, StoreError};
use dra_files::Files;
use dra_hardware::{Daemons, Deadline, Host};
use dra_model::{Claim, ClaimRef, ClaimUid, DaemonId, GpuUuid, NodeName};
use parking_lot::Mutex;
use tracing::{debug, warn};

use crate::answer::{self, PreparedDevice};
use crate::error::{NotLocked, OpenError, PrepareCause, PrepareError, UnprepareCause, UnprepareError};
use crate::fetch::FetchError;
use crate::holder::FOR_CLAIM;
use crate::locks::{Lock, Locks, Passing, Reach};
use crate::missing::Missing;
use crate::reconcile::ClaimLife;
use crate::tally::Tally;
use crate::undo;
use crate::users::Asking;
pub(crate) use attempt::{Base, claim_of, is_kept};
pub(crate) use call::Call;
use others::Others;
pub use others::OthersError;
pub use shown::Promise;
use turns::Turns;

/// What a node is told about itself.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This node, which is also the name of its pool.
    pub node: NodeName,
    /// `gpu.nvidia.com`.
    pub driver_name: String,
    /// Holds `claims/`, `gpus/` and `quarantine/`; survives reboots.
    pub state_dir: PathBuf,
    /// Holds `locks/`, which no reboot should survive: in a tmpfs on every ordinary node.
    pub run_dir: PathBuf,
    /// Where container runtimes look for CDI specs.
    pub cdi_dir: PathBuf,
    /// What the host calls the folder of the MPS daemons; containers mount `<id>/run` and `<id>/shm` from there.
    pub mps_root: PathBuf,
    /// How long a call waits for others to be done with its claim and GPUs; well below the 45 s the kubelet waits.
    pub lock_patience: Duration,
    /// How long a ready claim that the API server does not know any more is left to the kubelet; see [`crate::missing`].
    pub missing_grace: Duration,
    /// Of the containers.
    pub architecture: Architecture,
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    pub(crate) host: Arc<Host>,
    pub(crate) settings: Settings,
    pub(crate) daemons: Arc<dyn Daemons>,
    pub(crate) records: RecordStore,
    pub(crate) ledgers: LedgerStore,
    pub(crate) specs: SpecStore,
    pub(crate) locks: Locks,
    pub(crate) missing: Missing,
    /// MPS daemons that the last reconciliation found and no claim relies on.
    pub(crate) strange: Mutex<BTreeSet<DaemonId>>,
    pub(crate) tally: Tally,
    turns: Turns,
}

impl Engine {
    /// Makes the folders it needs and asks nothing yet.
    pub fn open(
        host: Arc<Host>,
        daemons: Arc<dyn Daemons>,
        files: Arc<dyn Files>,
        settings: Settings,
    ) -> Result<Self, OpenError> {
        let records = RecordStore::open(Arc::clone(&files), &settings.state_dir)
            .map_err(|source| OpenError::Records { source })?;
        let ledgers = LedgerStore::open(Arc::clone(&files), &settings.state_dir)
            .map_err(|source| OpenError::Ledgers { source })?;
        let locks = Locks::open(settings.run_dir.join("locks")).map_err(|source| OpenError::Locks { source })?;
        let specs = SpecStore::new(files, settings.cdi_dir.clone(), Naming::new(&settings.driver_name));
        if let Err(error) = specs.make_dir() {
            // Preparing tries again and tells whoever waits; unprepare and registration work without.
            warn!(error = crate::error::chain(&error), "the CDI directory is not there yet");
        }
        let (missing, strange) = (Missing::default(), Mutex::default());
        let (tally, turns) = (Tally::default(), Turns::default());
        Ok(Self { host, settings, daemons, records, ledgers, specs, locks, missing, strange, tally, turns })
    }

    /// Lets the devices of a claim be usable and says how. A repeat gives the same answer and repairs what is missing.
    ///
    /// `fetch` gets the claim from the API server; it is called once, and not at all if the claim is ready already. `life` asks
    /// it about another claim that is in the way.
    pub fn prepare(
        &self,
        claim: &ClaimRef,
        fetch: &dyn Fn() -> Result<Claim, FetchError>,
        life: &dyn Fn(&ClaimRef) -> ClaimLife,
    ) -> Result<Vec<PreparedDevice>, PrepareError> {
        self.prepare_until(claim, fetch, life, &Deadline::none())
    }

    /// The same for a caller that waits until a deadline; `fetch` has to keep to it as well.
    pub fn prepare_until(
        &self,
        claim: &ClaimRef,
        fetch: &dyn Fn() -> Result<Claim, FetchError>,
        life: &dyn Fn(&ClaimRef) -> ClaimLife,
        deadline: &Deadline,
    ) -> Result<Vec<PreparedDevice>, PrepareError> {
        let turn = self.turns.wait_for(&claim.uid);
        self.missing.forget(&claim.uid);
        let call = self.call_until(deadline);
        let prepared = self
            .lock_claim(claim, call.deadline)
            .map_err(|error| Box::new(PrepareCause::Lock(error)))
            .and_then(|_lock| {
                if turn.is_overtaken() {
                    return Err(Box::new(PrepareCause::Overtaken));
                }
                self.prepare_locked(claim, fetch, life, &call)
            });
        let record = prepared.map_err(|cause| PrepareError { claim: claim.clone(), cause })?;
        Ok(answer::of_record(&record))
    }

    /// Takes back what was promised to a claim; for one that nothing was promised to, that is done already.
    pub fn unprepare(&self, claim: &ClaimRef) -> Result<(), UnprepareError> {
        self.unprepare_until(claim, &Deadline::none())
    }

    /// The same for a caller that waits until a deadline.
    pub fn unprepare_until(&self, claim: &ClaimRef, deadline: &Deadline) -> Result<(), UnprepareError> {
        let call = self.call_until(deadline);
        let unprepared = match self.lock_claim(claim, call.deadline) {
            Ok(_lock) => {
                self.turns.overtake(&claim.uid);
                self.unprepare_locked(claim, &call)
            }
            Err(error) => Err(Box::new(UnprepareCause::Lock(error))),
        };
        unprepared.map_err(|cause| UnprepareError { claim: claim.clone(), cause })
    }

    pub(crate) fn unprepare_locked(&self, claim: &ClaimRef, call: &Call<'_>) -> Result<(), Box<UnprepareCause>> {
        let Some(record) = self.load(&claim.uid).map_err(|source| UnprepareCause::Record { source })? else {
            return self.unprepare_unknown(claim, call);
        };
        let gpus = record.devices.iter().map(|device| (device.hardware.gpu().clone(), device.device.to_string()));
        let _locks =
            self.lock_gpus(claim, gpus.collect(), call.deadline, Reach::AtLeastHere).map_err(UnprepareCause::Lock)?;
        let has_more = record.effects().iter().any(|step| *step != Step::ClaimSpec);
        let others = if has_more { self.others() } else { Ok(Others::default()) };
        let others = others.map_err(|source| UnprepareCause::Others { source })?;
        let boot_id = if has_more { self.host.boot_id().ok() } else { None };
        let tools = self.tools(Asking::Leaving(&claim.uid), &others, boot_id.as_deref(), call);
        undo::undo(&record, &self.records, &tools).map_err(|failures| UnprepareCause::Undo { failures })?;
        self.records.clear_quarantine(&claim.uid).map_err(|source| UnprepareCause::Settle { source })?;
        debug!(claim = %claim, claim_uid = %claim.uid, "claim unprepared");
        Ok(())
    }

    /// A record that was set aside, or lost with its disk, may have left a spec, and what its GPUs are owed.
    fn unprepare_unknown(&self, claim: &ClaimRef, call: &Call<'_>) -> Result<(), Box<UnprepareCause>> {
        let removed = self.specs.remove(&Kind::Claim(claim.uid.clone()));
        removed.map_err(|source| UnprepareCause::Spec { source })?;
        let was_in_doubt = self.is_in_doubt(&claim.uid);
        self.records.clear_quarantine(&claim.uid).map_err(|source| UnprepareCause::Settle { source })?;
        if was_in_doubt {
            self.pay_all(call);
        }
        Ok(())
    }

    /// For work that nobody waits for.
    pub(crate) fn call(&self, deadline: Instant) -> Call<'_> {
        Call::until(deadline, Deadline::none(), &self.host, &*self.daemons)
    }

    fn call_until(&self, answer_by: &Deadline) -> Call<'_> {
        let lock_deadline = Instant::now() + answer_by.limit(self.settings.lock_patience);
        Call::until(lock_deadline, answer_by.clone(), &self.host, &*self.daemons)
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.settings.lock_patience
    }

    pub(crate) fn lock_claim(&self, claim: &ClaimRef, deadline: Instant) -> Result<Passing<'_>, NotLocked> {
        self.lock_uid(&claim.uid, deadline)
    }

    pub(crate) fn lock_uid(&self, uid: &ClaimUid, deadline: Instant) -> Result<Passing<'_>, NotLocked> {
        let lock = self.locks.take(&format!("claim-{uid}"), "by another call", deadline, Reach::AtLeastHere);
        lock.map(Lock::passing).map_err(|error| NotLocked::new(OWN_LOCK.to_owned(), error))
    }

    /// In the order of UUIDs, which is that of device names. The error names the device that is waited for.
    fn lock_gpus(
        &self,
        claim: &ClaimRef,
        gpus: BTreeMap<GpuUuid, String>,
        deadline: Instant,
        reach: Reach,
    ) -> Result<Vec<Lock<'_>>, NotLocked> {
        let holder = format!("{FOR_CLAIM}{claim}");
        let lock = |(uuid, device)| self.lock_gpu(&uuid, device, &holder, deadline, reach);
        gpus.into_iter().map(lock).collect::<Result<_, _>>().map_err(|error| error.for_users_of(claim))
    }

    /// Whether a record of this claim was set aside and is not settled; where that cannot be told, it is.
    pub(crate) fn is_in_doubt(&self, uid: &ClaimUid) -> bool {
        self.records.all_quarantined().is_ok_and(|all| all.iter().all(|one| !one.is_about(uid))).not()
    }

    /// The record of a claim, unless it had to be set aside.
    pub(crate) fn load(&self, uid: &ClaimUid) -> Result<Option<ClaimRecord>, StoreError> {
        match self.records.load(uid)? {
            Found::Nothing => Ok(None),
            Found::Record(record) => Ok(Some(*record)),
            Found::Quarantined(bad) => {
                warn!(path = %bad.path.display(), reason = bad.reason, devices = ?bad.salvaged.devices, "a claim record was set aside");
                Ok(None)
            }
        }
    }
}

/// How the lock of the claim itself is called behind `claim ns/name: `.
const OWN_LOCK: &str = "it";
