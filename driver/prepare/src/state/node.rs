// SPDX-License-Identifier: Apache-2.0
//! This node as the flows see it: the machine, the stores, the locks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dra_cdi::{Architecture, HookProgram, HookSettings, SpecStore};
use dra_checkpoint::store::Found;
use dra_checkpoint::{ClaimRecord, LedgerStore, RecordStore, StoreError};
use dra_hardware::{Daemons, Deadline, Host};
use dra_model::{ClaimRef, ClaimUid, DaemonId, Finding, GpuUuid, NodeName};
use parking_lot::{Mutex, RwLock};
use tracing::warn;

use crate::state::call::Call;
use crate::state::counters::Counters;
use crate::state::loaded_driver::LastReading;
use crate::state::lock_error::{CLAIM, NotLocked};
use crate::state::locks::{EphemeralLock, Guarantee, Lock, Locks};
use crate::state::mig_changes::MigChanges;
use crate::state::missing::Missing;
use crate::state::prepare_order::PrepareOrder;

/// The settings of the engine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This node, which is also the name of its pool.
    pub node: NodeName,
    /// `gpu.nvidia.com`.
    pub driver_name: String,
    /// Holds `claims/`, `gpus/` and `quarantine/`; survives reboots.
    pub state_dir: PathBuf,
    /// Holds `locks/`; cleared at reboot, since it is in a tmpfs on ordinary nodes.
    pub run_dir: PathBuf,
    /// Where container runtimes read CDI specs.
    pub cdi_dir: PathBuf,
    /// The host path of the directory of the MPS daemons; containers mount `<id>/run` and `<id>/shm` from there.
    pub mps_root: PathBuf,
    /// How long a call waits for the locks of its claim and GPUs; well below the 45 s that the kubelet waits.
    pub lock_timeout: Duration,
    /// How long a ready claim that the API server does not know any more is left to the kubelet; see `state::missing`.
    pub missing_grace_period: Duration,
    /// Of the containers.
    pub architecture: Architecture,
    /// `/dev` of the host as path of this process. Absent: no device file is created there.
    pub host_dev_dir: Option<PathBuf>,
    /// Absent: the base specs have no hook.
    pub hook: Option<HookSettings>,
}

/// The machine, the stores and the locks of this node, and what this process remembers.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) host: Arc<Host>,
    pub(crate) settings: Settings,
    pub(crate) daemons: Arc<dyn Daemons>,
    pub(crate) records: RecordStore,
    pub(crate) ledgers: LedgerStore,
    pub(crate) specs: SpecStore,
    pub(crate) hook: Option<HookProgram>,
    pub(crate) locks: Locks,
    pub(crate) driver: LastReading,
    pub(crate) order: PrepareOrder,
    pub(crate) missing: Missing,
    /// MPS daemons that the last reconciliation found without a claim.
    pub(crate) orphaned: Mutex<BTreeSet<DaemonId>>,
    pub(crate) counters: Counters,
    pub(crate) mig_changes: MigChanges,
    /// What is wrong with GPUs, as it is published.
    pub(crate) findings: RwLock<Arc<BTreeMap<GpuUuid, Vec<Finding>>>>,
}

impl Node {
    /// A call whose caller waits until `answer_by`.
    pub(crate) fn call_until(&self, answer_by: &Deadline) -> Call<'_> {
        let lock_deadline = Instant::now() + answer_by.limit(self.settings.lock_timeout);
        Call::new(lock_deadline, answer_by.clone(), &self.host, &*self.daemons)
    }

    /// Background work without a caller.
    pub(crate) fn background_call(&self, lock_deadline: Instant) -> Call<'_> {
        Call::new(lock_deadline, Deadline::none(), &self.host, &*self.daemons)
    }

    pub(crate) fn lock_deadline(&self) -> Instant {
        Instant::now() + self.settings.lock_timeout
    }

    pub(crate) fn lock_claim(&self, uid: &ClaimUid, deadline: Instant) -> Result<EphemeralLock<'_>, NotLocked> {
        let lock = self.locks.take(&format!("claim-{uid}"), "another kubelet call", deadline, Guarantee::ProcessOnly);
        lock.map(Lock::ephemeral).map_err(|error| NotLocked::new("the claim".to_owned(), error))
    }

    /// Locks GPUs in the order of their UUIDs, which is that of device names. `gpus` names the device that an error shows.
    pub(crate) fn lock_gpus(
        &self,
        claim: &ClaimRef,
        gpus: BTreeMap<GpuUuid, String>,
        deadline: Instant,
        guarantee: Guarantee,
    ) -> Result<Vec<Lock<'_>>, NotLocked> {
        let holder = format!("{CLAIM}{claim}");
        let lock = |(uuid, device)| self.lock_gpu(&uuid, device, &holder, deadline, guarantee);
        gpus.into_iter().map(lock).collect::<Result<_, _>>().map_err(|error| error.for_users_of(claim))
    }

    /// `what` is the name that an error shows.
    pub(crate) fn lock_gpu(
        &self,
        gpu: &GpuUuid,
        what: String,
        holder: &str,
        deadline: Instant,
        guarantee: Guarantee,
    ) -> Result<Lock<'_>, NotLocked> {
        let lock = self.locks.take(&format!("gpu-{}", gpu.hex()), holder, deadline, guarantee);
        lock.map_err(|error| NotLocked::new(what, error))
    }

    /// Locks the GPU or the claim that a daemon belongs to.
    pub(crate) fn lock_owner(&self, id: &DaemonId, holder: &str, deadline: Instant) -> Result<Lock<'_>, NotLocked> {
        let name = match (id.gpu(), id.claim()) {
            (Some(gpu), _) => format!("gpu-{}", gpu.hex()),
            (None, Some(claim)) => format!("claim-{claim}"),
            (None, None) => id.to_string(),
        };
        let lock = self.locks.take(&name, holder, deadline, Guarantee::ProcessOnly);
        lock.map_err(|error| NotLocked::new(id.to_string(), error))
    }

    /// Does something under the lock of a claim, unless another call holds it.
    pub(crate) fn if_idle<T>(&self, uid: &ClaimUid, work: impl FnOnce() -> T) -> Result<Option<T>, NotLocked> {
        match self.lock_claim(uid, Instant::now()) {
            Ok(_lock) => Ok(Some(work())),
            Err(NotLocked::Busy { .. }) => Ok(None),
            Err(error @ NotLocked::Failed { .. }) => Err(error),
        }
    }

    /// The record of a claim, whose lock the caller holds. A damaged record is quarantined.
    pub(crate) fn load(&self, uid: &ClaimUid) -> Result<Option<ClaimRecord>, StoreError> {
        match self.records.load(uid)? {
            Found::Nothing => Ok(None),
            Found::Record(record) => Ok(Some(*record)),
            Found::Quarantined(bad) => {
                warn!(path = %bad.path.display(), reason = bad.reason, devices = ?bad.salvaged.devices, "claim record quarantined");
                Ok(None)
            }
        }
    }

    /// Whether a record of this claim is quarantined; `true` where the quarantine cannot be read.
    pub(crate) fn is_quarantined(&self, uid: &ClaimUid) -> bool {
        !self.records.all_quarantined().is_ok_and(|all| all.iter().all(|one| !one.is_about(uid)))
    }
}
