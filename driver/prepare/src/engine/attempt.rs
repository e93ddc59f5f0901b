// SPDX-License-Identifier: Apache-2.0
//! One attempt to prepare a claim whose lock is held: look, decide, check, and only then act.

use std::collections::{BTreeMap, BTreeSet};

use dra_cdi::{ClaimDevice, MpsClient, RenderedSpec, render};
use dra_checkpoint::{ClaimRecord, RecordedDevice, RecordedSharing};
use dra_hardware::GpuError;
use dra_model::{AllocatedDevice, Claim, ClaimRef, DriverFiles, Gpu, GpuUuid, ShareLimits};
use tracing::{debug, warn};

use super::others::Others;
use super::{Call, Engine};
use crate::doubts::target_of;
use crate::error::{PrepareCause, chain};
use crate::fetch::FetchError;
use crate::locks::Reach;
use crate::plan::{self, Situation};
use crate::reconcile::ClaimLife;
use crate::resolve::{Target, Unresolved, find, resolve};
use crate::run::{self, RunError};
use crate::shares;
use crate::step::{self, Occasion, Tools, Work};
use crate::undo;
use crate::users::Asking;

/// Which base spec the claim's containers are told to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base<'a> {
    /// That of the driver that is loaded, since the kubelet hears the answer.
    OfLoadedDriver,
    /// That which the kubelet was told before and remembers.
    AsTold(&'a str),
}

impl Base<'_> {
    fn occasion(self) -> Occasion {
        match self {
            Self::OfLoadedDriver => Occasion::Repeat,
            Self::AsTold(_) => Occasion::Reconcile,
        }
    }
}

/// What is asked for, and what it is now.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    claim: &'a Claim,
    targets: &'a [Target],
    gpus: &'a BTreeMap<GpuUuid, Gpu>,
    /// The promise that is kept already.
    kept: Option<&'a ClaimRecord>,
}

/// Boxed, because it is much larger than any answer.
type Attempted<T> = Result<T, Box<PrepareCause>>;

impl Engine {
    pub(super) fn prepare_locked(
        &self,
        reference: &ClaimRef,
        fetch: &dyn Fn() -> Result<Claim, FetchError>,
        life: &dyn Fn(&ClaimRef) -> ClaimLife,
        call: &Call<'_>,
    ) -> Attempted<ClaimRecord> {
        let boot_id = self.host.boot_id().map_err(|source| PrepareCause::Boot { source })?;
        let existing = self.load(&reference.uid).map_err(|source| PrepareCause::Record { source })?;
        let claim = match &existing {
            Some(record) if is_kept(record, &boot_id) => claim_of(record),
            Some(_) | None => fetched(reference, fetch).map_err(|source| PrepareCause::Fetch { source })?,
        };
        let mut asked = BTreeSet::from([reference.uid.clone()]);
        loop {
            match self.settle(&claim, existing.as_ref(), &boot_id, Base::OfLoadedDriver, call) {
                Ok((record, _)) => return Ok(record),
                // The locks of the GPUs are free again, and a refusal has changed nothing.
                Err(cause) => self.clear_the_way(cause, &mut asked, life, call)?,
            }
        }
    }

    /// Lets a claim be prepared, whatever there is of it; says whether anything had to be done.
    pub(crate) fn settle(
        &self,
        claim: &Claim,
        existing: Option<&ClaimRecord>,
        boot_id: &str,
        base: Base<'_>,
        call: &Call<'_>,
    ) -> Attempted<(ClaimRecord, bool)> {
        plan::admit(claim, &self.settings.node).map_err(PrepareCause::Refused)?;
        let targets = self.targets(claim, existing, call)?;
        let kept = existing.filter(|record| is_kept(record, boot_id));
        let reach = if kept.is_some() { Reach::AtLeastHere } else { Reach::Everyone };
        let to_lock = gpus_to_lock(claim, &targets, existing);
        let _locks =
            self.lock_gpus(&claim.reference, to_lock.clone(), call.deadline, reach).map_err(PrepareCause::Lock)?;
        let gpus = self.read_gpus(claim, &targets, call)?;
        let others = self.others().map_err(|source| PrepareCause::Others { source })?;
        let mut work = self.work(&Asked { claim, targets: &targets, gpus: &gpus, kept }, &others, boot_id, base)?;
        let tools = self.tools(Asking::Coming(&claim.reference.uid), &others, Some(boot_id), call);
        let acted = if let Some(kept) = kept {
            run::repair(&mut work, kept, base.occasion(), &self.records, &tools).map_err(failed)?
        } else {
            ask_for_daemons(&work.record, call)?;
            undo_leftover(existing, &tools)?;
            pay(&to_lock, &tools)?;
            self.run(&mut work, existing, &tools)?;
            true
        };
        // Before the GPUs are let go: from here on the record says what the claim holds.
        if let Err(error) = self.records.clear_quarantine(&claim.reference.uid) {
            warn!(claim = %claim.reference, error = chain(&error), "a record that was set aside still counts");
        }
        if acted {
            debug!(claim = %claim.reference, claim_uid = %claim.reference.uid, "claim prepared");
        }
        Ok((work.record, acted))
    }

    /// Identities behind the names: as recorded, or as the inventory has them, which is read anew if it does not help.
    fn targets(&self, claim: &Claim, existing: Option<&ClaimRecord>, call: &Call<'_>) -> Attempted<Vec<Target>> {
        let mut inventory = self.host.latest();
        let mut refreshed = false;
        let mut targets = Vec::new();
        for device in &claim.devices {
            let recorded = existing.and_then(|record| record.devices.iter().find(|it| it.device == device.device));
            let mut found = match recorded {
                Some(recorded) => Ok(target_of(&recorded.hardware)),
                None => resolve(&inventory, &device.device),
            };
            if found.is_err() && !refreshed {
                inventory = call.host().refresh().map_err(|source| PrepareCause::OutOfTime { source })?;
                refreshed = true;
                found = resolve(&inventory, &device.device);
            }
            targets.push(found.map_err(|why| self.refused(device, why))?);
        }
        Ok(targets)
    }

    fn read_gpus(&self, claim: &Claim, targets: &[Target], call: &Call<'_>) -> Attempted<BTreeMap<GpuUuid, Gpu>> {
        let mut gpus = BTreeMap::new();
        for (device, target) in claim.devices.iter().zip(targets) {
            if !gpus.contains_key(target.gpu()) {
                let gpu = call.host().gpu(target.gpu());
                let gpu = gpu.map_err(|error| self.silent(device, error))?;
                gpus.insert(target.gpu().clone(), gpu);
            }
        }
        Ok(gpus)
    }

    /// Decides, and checks every node and file before anything is changed.
    fn work(&self, asked: &Asked<'_>, others: &Others, boot_id: &str, base: Base<'_>) -> Attempted<Work> {
        let Asked { claim, targets, gpus, kept } = *asked;
        let files = self.host.driver_files().map_err(|source| PrepareCause::DriverFiles { source })?;
        let driver_version = match base {
            Base::OfLoadedDriver => files.version.as_str(),
            Base::AsTold(version) => version,
        };
        let record = plan::plan(&Situation {
            claim,
            targets,
            gpus,
            kept,
            records: &others.records,
            doubts: &others.doubts,
            node: &self.settings.node,
            boot_id,
            driver_version,
            naming: self.specs.naming(),
        })
        .map_err(PrepareCause::Refused)?;
        let claim_spec = self.claim_spec(asked, &record)?;
        let base = (driver_version == files.version).then(|| self.base_spec(&files)).transpose()?;
        Ok(Work { record, base, claim_spec })
    }

    fn claim_spec(&self, asked: &Asked<'_>, record: &ClaimRecord) -> Attempted<RenderedSpec> {
        let Asked { claim, targets, gpus, .. } = *asked;
        let mut devices = Vec::new();
        for ((device, target), recorded) in claim.devices.iter().zip(targets).zip(&record.devices) {
            let found = gpus.get(target.gpu()).ok_or(Unresolved::Unknown).and_then(|gpu| find(target, gpu));
            let found = found.map_err(|why| self.refused(device, why))?;
            let AllocatedDevice { device, share_id: share, .. } = device.clone();
            let nodes = self.host.device_nodes(found);
            let nodes = nodes.map_err(|source| PrepareCause::Nodes { device: device.clone(), source })?;
            devices.push(ClaimDevice { device, share, nodes, mps: self.mps_client(&recorded.sharing) });
        }
        let rendered = render::claim(self.specs.naming(), &claim.reference.uid, &devices);
        Ok(rendered.map_err(|source| PrepareCause::Render { source })?)
    }

    fn mps_client(&self, sharing: &RecordedSharing) -> Option<MpsClient> {
        let RecordedSharing::Mps { daemon, .. } = sharing else { return None };
        let dir = self.settings.mps_root.join(daemon.as_str());
        Some(MpsClient { run_dir: dir.join("run"), shm_dir: dir.join("shm"), limits: shares::limits(sharing) })
    }

    fn base_spec(&self, files: &DriverFiles) -> Attempted<RenderedSpec> {
        let nodes = self.host.control_nodes().map_err(|source| PrepareCause::ControlNodes { source })?;
        let rendered = render::base(self.specs.naming(), files, &nodes, self.settings.architecture);
        Ok(rendered.map_err(|source| PrepareCause::Render { source })?)
    }

    /// Keeps a new promise. When that fails a claim that had nothing before has nothing again; one that had a promise,
    /// of an earlier boot perhaps, keeps its devices until the kubelet takes them back.
    fn run(&self, work: &mut Work, leftover: Option<&ClaimRecord>, tools: &Tools<'_>) -> Attempted<()> {
        let Err(error) = run::run(work, &self.records, tools) else { return Ok(()) };
        if self.is_in_doubt(&work.record.claim.uid) {
            // Containers of an earlier promise may be running, and all that tells of it may be what is there now.
            return Err(Box::new(failed(error)));
        }
        let undone = match leftover {
            None => undo::undo(&work.record, &self.records, tools),
            Some(_) => undo::undo_effects(&work.record, tools),
        };
        if let Err(failures) = undone {
            // The error that the user should hear is the first one; what stays is on record and undone later.
            warn!(claim = %work.record.claim, error = %failures, "a failed attempt could not be undone yet");
        }
        Err(Box::new(failed(error)))
    }

    fn silent(&self, device: &AllocatedDevice, error: GpuError) -> PrepareCause {
        let name = device.device.clone();
        match error {
            GpuError::NotFound { .. } => self.refused(device, Unresolved::Unknown),
            source @ GpuError::OutOfTime { .. } => PrepareCause::OutOfTime { source },
            source @ GpuError::Machine { .. } => PrepareCause::DriverAway { device: name, source },
            source @ (GpuError::Failed { .. }
            | GpuError::UnexpectedValue { .. }
            | GpuError::Unsupported { .. }
            | GpuError::NotApplied { .. }
            | GpuError::Program { .. }) => PrepareCause::Gpu { device: name, source },
        }
    }

    fn refused(&self, device: &AllocatedDevice, why: Unresolved) -> PrepareCause {
        PrepareCause::Refused(plan::refuse(device, &self.settings.node, why))
    }
}

/// Whether the claim was reported as usable in this boot.
pub(crate) fn is_kept(record: &ClaimRecord, boot_id: &str) -> bool {
    record.is_ready() && record.boot_id == boot_id
}

/// The claim as it was allocated, without the configurations, which were checked then.
pub(crate) fn claim_of(record: &ClaimRecord) -> Claim {
    let allocated = |device: &RecordedDevice| AllocatedDevice {
        request: device.request.clone(),
        pool: device.pool.clone(),
        device: device.device.clone(),
        admin_access: device.admin_access,
        share_id: device.share_id.clone(),
        consumed: ShareLimits::default(),
    };
    Claim {
        reference: record.claim.clone(),
        devices: record.devices.iter().map(allocated).collect(),
        configs: Vec::new(),
    }
}

/// Without the MPS host a claim that needs it leaves its GPUs alone.
fn ask_for_daemons(promise: &ClaimRecord, call: &Call<'_>) -> Attempted<()> {
    let needs_one = |device: &RecordedDevice| matches!(device.sharing, RecordedSharing::Mps { .. });
    if promise.devices.iter().any(needs_one) {
        call.list().map_err(|source| PrepareCause::Daemons { source })?;
    }
    Ok(())
}

/// An attempt that was cut, an undoing that failed, or a claim of an earlier boot: gone before a new start.
fn undo_leftover(leftover: Option<&ClaimRecord>, tools: &Tools<'_>) -> Attempted<()> {
    let Some(record) = leftover else { return Ok(()) };
    let undone = undo::undo_effects(record, tools);
    Ok(undone.map_err(|failures| PrepareCause::Leftover { failures })?)
}

/// What earlier claims left on the GPUs must be gone before they are promised again.
fn pay(gpus: &BTreeMap<GpuUuid, String>, tools: &Tools<'_>) -> Attempted<()> {
    for (gpu, device) in gpus {
        step::pay(gpu, tools).map_err(|source| PrepareCause::Debt { device: device.clone(), source })?;
    }
    Ok(())
}

fn fetched(reference: &ClaimRef, fetch: &dyn Fn() -> Result<Claim, FetchError>) -> Result<Claim, FetchError> {
    let claim = fetch()?;
    if claim.reference.uid == reference.uid {
        Ok(claim)
    } else {
        Err(FetchError::Replaced { found: claim.reference.uid.to_string() })
    }
}

/// The GPUs of the claim and those of what was begun for it before, each with the device that users know it by.
fn gpus_to_lock(claim: &Claim, targets: &[Target], existing: Option<&ClaimRecord>) -> BTreeMap<GpuUuid, String> {
    let before = existing.into_iter().flat_map(|record| &record.devices);
    let before = before.map(|device| (device.hardware.gpu().clone(), device.device.to_string()));
    let now = claim.devices.iter().zip(targets);
    before.chain(now.map(|(device, target)| (target.gpu().clone(), device.device.to_string()))).collect()
}

fn failed(error: RunError) -> PrepareCause {
    match error {
        RunError::Record(source) => PrepareCause::Record { source },
        RunError::Step(source) => PrepareCause::Step { source },
    }
}
