// SPDX-License-Identifier: Apache-2.0
//! The engine of one node: prepares, unprepares and reconciles claims. Every call blocks; calls for different claims on
//! different GPUs run in parallel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use dra_cdi::{HookProgram, Naming, SpecStore};
use dra_checkpoint::{LedgerStore, RecordStore, StoreError};
use dra_files::Files;
use dra_hardware::{Daemons, Deadline, Host};
use dra_model::{Claim, ClaimRef, DaemonId, Finding, GpuUuid, explain};
use parking_lot::{Mutex, RwLock};
use tracing::warn;

use crate::decide::prepared_device::{PreparedDevice, of_record};
use crate::decide::static_mig::StaticMig;
use crate::error::{OpenError, PrepareError, UnprepareError};
use crate::flows::inspect::{self, DaemonDevice, PreparedShares};
use crate::flows::prepare::{self, Api};
use crate::flows::report::Reconciliation;
use crate::flows::restore::{self, Restoration};
use crate::flows::static_mig::{self, StaticMigError};
use crate::flows::{reconcile, retire, unprepare};
use crate::state::claim_api::{ClaimLookup, FetchError};
use crate::state::counters::{Counters, RestoreOutcome};
use crate::state::creations::RecordedCreations;
use crate::state::loaded_driver::LastReading;
use crate::state::locks::Locks;
use crate::state::mig_changes::{MigChange, MigChanges};
use crate::state::missing::Missing;
use crate::state::node::{Node, Settings};
use crate::state::other_claims::OtherClaimsError;
use crate::state::prepare_order::PrepareOrder;

/// All that must survive a crash is in the records, the ledgers, the spec directory and the hardware; what the engine keeps
/// in memory may be lost at any time.
#[derive(Debug)]
pub struct Engine {
    node: Node,
}

impl Engine {
    /// Creates the directories that it needs.
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
        let hook = settings.hook.clone().map(|hook| HookProgram::new(Arc::clone(&files), hook));
        let specs = SpecStore::new(files, settings.cdi_dir.clone(), Naming::new(&settings.driver_name));
        if let Err(error) = specs.make_dir() {
            // A prepare tries again and reports the error; unprepare and registration work without the directory.
            warn!(error = explain(&error), "failed to create the CDI directory");
        }
        let (order, missing, orphaned) = (PrepareOrder::default(), Missing::default(), Mutex::default());
        let (counters, driver, mig_changes) = (Counters::default(), LastReading::default(), MigChanges::default());
        host.set_ownership(Arc::new(RecordedCreations { records: records.clone(), ledgers: ledgers.clone() }));
        let node = Node {
            host,
            settings,
            daemons,
            records,
            ledgers,
            specs,
            hook,
            locks,
            driver,
            order,
            missing,
            orphaned,
            counters,
            mig_changes,
            findings: RwLock::default(),
        };
        Ok(Self { node })
    }

    /// Makes the devices of a claim usable. A repeated call returns the same devices and repairs what is missing.
    ///
    /// `fetch` reads the claim from the API server; it is called once, and not at all if the claim is prepared already. `look_up`
    /// asks the API server about another claim that holds a device of this one.
    pub fn prepare(
        &self,
        claim: &ClaimRef,
        fetch: &dyn Fn() -> Result<Claim, FetchError>,
        look_up: &dyn Fn(&ClaimRef) -> ClaimLookup,
    ) -> Result<Vec<PreparedDevice>, PrepareError> {
        self.prepare_until(claim, fetch, look_up, &Deadline::none())
    }

    /// As `prepare`, for a caller that waits until a deadline; `fetch` must keep to it as well.
    pub fn prepare_until(
        &self,
        claim: &ClaimRef,
        fetch: &dyn Fn() -> Result<Claim, FetchError>,
        look_up: &dyn Fn(&ClaimRef) -> ClaimLookup,
        deadline: &Deadline,
    ) -> Result<Vec<PreparedDevice>, PrepareError> {
        let record = prepare::prepare(&self.node, claim, Api { fetch, look_up }, deadline)?;
        Ok(of_record(&record))
    }

    /// Undoes what was done for a claim. An unknown claim is unprepared already.
    pub fn unprepare(&self, claim: &ClaimRef) -> Result<(), UnprepareError> {
        self.unprepare_until(claim, &Deadline::none())
    }

    /// As `unprepare`, for a caller that waits until a deadline.
    pub fn unprepare_until(&self, claim: &ClaimRef, deadline: &Deadline) -> Result<(), UnprepareError> {
        unprepare::unprepare(&self.node, claim, deadline)
    }

    /// Repairs what is prepared, undoes what is over, and removes what belongs to no claim. `look_up` asks the API server about a
    /// claim.
    pub fn reconcile(&self, look_up: &dyn Fn(&ClaimRef) -> ClaimLookup) -> Reconciliation {
        reconcile::reconcile(&self.node, look_up)
    }

    /// Whether the hook program that CDI specs name is no longer on the host; a reconciliation installs it again.
    pub fn hook_is_gone(&self) -> bool {
        self.node.hook.as_ref().is_some_and(HookProgram::is_gone)
    }

    /// Finishes pending restores of GPUs that no claim relies on.
    pub fn restore_unused(&self) -> Restoration {
        restore::restore_unused(&self.node, &self.node.background_call(Instant::now()))
    }

    /// Gives a GPU the static MIG devices that an administrator wants on it, and returns the names of those that were created. They
    /// are an administrator's from then on.
    pub fn create_static_mig(&self, gpu: &GpuUuid, wanted: &[StaticMig]) -> Result<Vec<String>, StaticMigError> {
        static_mig::create(&self.node, gpu, wanted, &self.node.background_call(self.node.lock_deadline()))
    }

    /// Restores every GPU, whichever claims rely on it, at an uninstallation.
    pub fn restore_all(&self) -> Restoration {
        restore::restore_all(&self.node)
    }

    /// Removes what the last instance would leave behind, and returns whether nothing of this driver is left on the node. The
    /// caller is the only instance and serves no call any more.
    pub fn retire(&self) -> bool {
        retire::retire(&self.node)
    }

    /// The shares that claims of this node hold, ordered by device.
    pub fn prepared_shares(&self) -> Result<Vec<PreparedShares>, StoreError> {
        inspect::prepared_shares(&self.node)
    }

    /// The daemons that claims of this node have.
    pub fn daemons_in_use(&self) -> Result<BTreeSet<DaemonId>, StoreError> {
        inspect::daemons_in_use(&self.node)
    }

    /// The daemons that claims of this boot have, or get now, with their devices.
    pub fn devices_of_daemons(&self) -> Result<BTreeMap<DaemonId, BTreeSet<DaemonDevice>>, StoreError> {
        inspect::devices_of_daemons(&self.node)
    }

    /// The ready claims that use a daemon, with their devices.
    pub fn claims_of_daemon(&self, daemon: &DaemonId) -> Result<Vec<(ClaimRef, Vec<PreparedDevice>)>, StoreError> {
        inspect::claims_of_daemon(&self.node, daemon)
    }

    /// The prepared claims, with their devices.
    pub fn claims(&self) -> Result<Vec<(ClaimRef, Vec<PreparedDevice>)>, StoreError> {
        inspect::claims(&self.node)
    }

    /// The GPUs whose original settings are not restored although no claim relies on their settings.
    pub fn pending_restores(&self) -> Result<BTreeSet<GpuUuid>, OtherClaimsError> {
        inspect::pending_restores(&self.node)
    }

    /// Sets what is wrong with GPUs. Claims that are prepared stay so.
    pub fn set_findings(&self, findings: Arc<BTreeMap<GpuUuid, Vec<Finding>>>) {
        *self.node.findings.write() = findings;
    }

    /// The MIG devices that were created and destroyed since the last call.
    pub fn take_mig_changes(&self) -> Vec<MigChange> {
        self.node.mig_changes.take()
    }

    /// How often settings were restored and daemons stopped since this process started.
    pub fn restore_outcomes(&self) -> BTreeMap<RestoreOutcome, u64> {
        self.node.counters.counts()
    }
}
