// SPDX-License-Identifier: Apache-2.0
//! Ensures that a claim, whose lock is held, is prepared: resolve, lock, read, decide, check, and only then act.

use std::collections::BTreeMap;

use dra_checkpoint::{ClaimRecord, RecordedDevice, Step};
use dra_hardware::GpuError;
use dra_model::{
    AllocatedDevice, Claim, ClaimRef, Effect, Finding, Gpu, GpuUuid, Placement, ShareLimits, Verdict, explain,
};
use tracing::{debug, warn};

use crate::decide::plan::{self, Situation};
use crate::decide::refusal::Refusal;
use crate::decide::resolve::{Unresolved, resolve};
use crate::decide::target::Target;
use crate::effects::error::EffectError;
use crate::effects::prerequisites::{Prerequisites, base_spec};
use crate::effects::tools::{Tools, Trigger};
use crate::effects::{restore, step};
use crate::error::PrepareCause;
use crate::flows::journal::{self, RunError};
use crate::flows::{repair, undo};
use crate::state::call::Call;
use crate::state::loaded_driver::LoadedDriver;
use crate::state::locks::Guarantee;
use crate::state::node::Node;
use crate::state::other_claims::OtherClaims;
use crate::state::references::Caller;

/// Which base spec the containers of the claim use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base<'a> {
    /// That of the loaded driver, since the kubelet gets the answer.
    OfLoadedDriver,
    /// That of an earlier answer, which the kubelet remembers.
    OfVersion(&'a str),
}

impl Base<'_> {
    fn trigger(self) -> Trigger {
        match self {
            Self::OfLoadedDriver => Trigger::Kubelet,
            Self::OfVersion(_) => Trigger::Reconciliation,
        }
    }
}

/// A claim, and what this node knows of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) claim: &'a Claim,
    /// The record, in whatever state and of whatever boot.
    pub(super) existing: Option<&'a ClaimRecord>,
    pub(super) boot_id: &'a str,
    pub(super) base: Base<'a>,
    /// If it was read already.
    pub(super) driver: Option<&'a LoadedDriver>,
}

impl<'a> Wanted<'a> {
    /// The record of a claim that is prepared in this boot.
    fn prepared(&self) -> Option<&'a ClaimRecord> {
        self.existing.filter(|record| is_prepared_this_boot(record, self.boot_id))
    }
}

/// Boxed, because the cause is much larger than any answer.
type Attempt<T> = Result<T, Box<PrepareCause>>;

/// Returns the record, and whether anything had to be done.
pub(super) fn ensure_prepared(node: &Node, wanted: Wanted<'_>, call: &Call<'_>) -> Attempt<(ClaimRecord, bool)> {
    let Wanted { claim, existing, boot_id, .. } = wanted;
    let reference = &claim.reference;
    plan::admit(claim, &node.settings.node).map_err(PrepareCause::Refused)?;
    let targets = resolve_targets(node, claim, existing, call)?;
    let guarantee = if wanted.prepared().is_some() { Guarantee::ProcessOnly } else { Guarantee::AllInstances };
    let to_lock = gpus_to_lock(claim, &targets, existing);
    let locks = node.lock_gpus(reference, to_lock.clone(), call.lock_deadline, guarantee);
    let _locks = locks.map_err(PrepareCause::Lock)?;
    let others = OtherClaims::read(node).map_err(|source| PrepareCause::OtherClaims { source })?;
    let tools = Tools::new(node, Caller::Preparing(reference), &others, Some(boot_id), call);
    if wanted.prepared().is_none() {
        refuse_unhealthy(node, claim, &targets)?;
        make_whole(claim, &targets, &tools)?;
    }
    let gpus = read_gpus(node, claim, &targets, call)?;
    let (mut record, prerequisites) = planned(node, wanted, &targets, &gpus, &others)?;
    step::check(&record, &prerequisites, &tools).map_err(PrepareCause::Effect)?;
    let changed = if let Some(prepared) = wanted.prepared() {
        let trigger = wanted.base.trigger();
        repair::repair(&mut record, prepared, trigger, &prerequisites, &node.records, &tools).map_err(cause)?
    } else {
        require_mps_host(&record, &tools, call)?;
        undo_leftover(existing, &tools)?;
        restore_pending(&to_lock, &tools)?;
        apply(node, &mut record, existing, &prerequisites, &tools)?;
        true
    };
    end_quarantine(node, reference, &others);
    if changed {
        debug!(claim = %reference, claim_uid = %reference.uid, "claim prepared");
    }
    Ok((record, changed))
}

/// The quarantine of a claim ends before its GPUs are unlocked, because its new record now reserves its devices.
fn end_quarantine(node: &Node, claim: &ClaimRef, others: &OtherClaims) {
    // The lock of the claim is held since before the quarantine was read, so no record of it came there since.
    if !others.quarantined.iter().any(|quarantined| quarantined.record.is_about(&claim.uid)) {
        return;
    }
    if let Err(error) = node.records.clear_quarantine(&claim.uid) {
        warn!(%claim, error = explain(&error), "quarantined record still reserves the devices of the claim");
    }
}

/// Refuses devices that new claims do not get. Monitoring may look at them.
fn refuse_unhealthy(node: &Node, claim: &Claim, targets: &[Target]) -> Attempt<()> {
    for (allocated, target) in claim.devices.iter().zip(targets).filter(|(allocated, _)| !allocated.admin_access) {
        if let Some(fault) = fault(node, target.gpu(), target.placement()) {
            let device = allocated.device.clone();
            return Err(Box::new(PrepareCause::Refused(Refusal::Unhealthy { device, fault })));
        }
    }
    Ok(())
}

/// The fault that keeps new claims off a GPU, or off the part of it at a placement.
fn fault(node: &Node, gpu: &GpuUuid, placement: Option<Placement>) -> Option<String> {
    let findings = node.findings.read();
    let is_fault = |finding: &&Finding| {
        finding.verdict == Verdict::Unhealthy && finding.effect > Effect::None && finding.concerns(placement)
    };
    findings.get(gpu)?.iter().find(is_fault).map(|finding| finding.message.clone())
}

/// Whether the claim was reported as ready in this boot.
pub(super) fn is_prepared_this_boot(record: &ClaimRecord, boot_id: &str) -> bool {
    record.is_ready() && record.boot_id == boot_id
}

/// The claim as it was allocated, without the configurations, which were checked then.
pub(super) fn claim_of(record: &ClaimRecord) -> Claim {
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

/// The hardware of each device: as recorded, or as in the inventory, which is read again for an unknown name.
fn resolve_targets(
    node: &Node,
    claim: &Claim,
    existing: Option<&ClaimRecord>,
    call: &Call<'_>,
) -> Attempt<Vec<Target>> {
    let mut inventory = node.host.latest();
    let mut refreshed = false;
    let mut targets = Vec::new();
    for device in &claim.devices {
        let recorded = existing.and_then(|record| record.devices.iter().find(|it| it.device == device.device));
        let mut found = match recorded {
            Some(recorded) => Ok(Target::of_record(&recorded.hardware)),
            None => resolve(&inventory, &device.device),
        };
        if found.is_err() && !refreshed {
            inventory = call.host().refresh().map_err(|source| PrepareCause::OutOfTime { source })?;
            refreshed = true;
            found = resolve(&inventory, &device.device);
        }
        targets.push(found.map_err(|why| refused(node, device, why))?);
    }
    Ok(targets)
}

fn read_gpus(node: &Node, claim: &Claim, targets: &[Target], call: &Call<'_>) -> Attempt<BTreeMap<GpuUuid, Gpu>> {
    let mut gpus = BTreeMap::new();
    for (device, target) in claim.devices.iter().zip(targets) {
        if !gpus.contains_key(target.gpu()) {
            let gpu = call.host().gpu(target.gpu());
            let gpu = gpu.map_err(|error| unread(node, device, error))?;
            gpus.insert(target.gpu().clone(), gpu);
        }
    }
    Ok(gpus)
}

/// Decides, and reads what the effects need.
fn planned<'a>(
    node: &'a Node,
    wanted: Wanted<'_>,
    targets: &[Target],
    gpus: &'a BTreeMap<GpuUuid, Gpu>,
    others: &OtherClaims,
) -> Attempt<(ClaimRecord, Prerequisites<'a>)> {
    let files = match wanted.driver {
        Some(driver) => driver.files.clone(),
        None => node.host.driver_files().map_err(|source| PrepareCause::Effect(EffectError::DriverFiles { source }))?,
    };
    let driver_version = match wanted.base {
        Base::OfLoadedDriver => files.version.as_str(),
        Base::OfVersion(version) => version,
    };
    let situation = Situation {
        claim: wanted.claim,
        targets,
        gpus,
        prepared: wanted.prepared(),
        records: &others.records,
        quarantined: &others.quarantined,
        node: &node.settings.node,
        boot_id: wanted.boot_id,
        driver_version,
        naming: node.specs.naming(),
    };
    let record = plan::plan(&situation).map_err(PrepareCause::Refused)?;
    let spec = || wanted.driver.map_or_else(|| base_spec(&files, node), |driver| Ok(driver.spec.clone()));
    let base = (driver_version == files.version).then(spec).transpose();
    let base = base.map_err(PrepareCause::Effect)?;
    Ok((record, Prerequisites { gpus, base, settings: &node.settings }))
}

/// Applies the effects of a new record. After a failure a claim without an earlier record has none again. A claim with a
/// record, of an earlier boot perhaps, keeps its devices until the kubelet unprepares it.
fn apply(
    node: &Node,
    record: &mut ClaimRecord,
    leftover: Option<&ClaimRecord>,
    prerequisites: &Prerequisites<'_>,
    tools: &Tools<'_>,
) -> Attempt<()> {
    let one = |step: &_, record: &mut _| step::apply(step, record, prerequisites, tools);
    let Err(error) = journal::run(record, &node.records, one) else { return Ok(()) };
    if node.is_quarantined(&record.claim.uid) {
        // Containers of an earlier prepare may still run and need what that prepare left, so nothing is undone.
        return Err(Box::new(cause(error)));
    }
    let undone = match leftover {
        None => undo::undo(record, &node.records, tools),
        Some(_) => undo::undo_effects(record, tools),
    };
    if let Err(failures) = undone {
        // The user sees the first error. What is not undone is on record.
        warn!(claim = %record.claim, error = %failures, "undo of a failed prepare is pending");
    }
    Err(Box::new(cause(error)))
}

/// Without the MPS host a claim that needs a new daemon changes no GPU.
fn require_mps_host(record: &ClaimRecord, tools: &Tools<'_>, call: &Call<'_>) -> Attempt<()> {
    let needs_daemon = |step: &Step| matches!(step, Step::MpsDaemon { id, .. } if !tools.references.to_daemon(id));
    if record.effects().iter().any(needs_daemon) {
        call.list().map_err(|source| PrepareCause::MpsHost { source })?;
    }
    Ok(())
}

/// Undoes an attempt that was cut, an undo that failed, or a claim of an earlier boot.
fn undo_leftover(leftover: Option<&ClaimRecord>, tools: &Tools<'_>) -> Attempt<()> {
    let Some(record) = leftover else { return Ok(()) };
    let undone = undo::undo_effects(record, tools);
    Ok(undone.map_err(|failures| PrepareCause::Leftover { failures })?)
}

/// Turns off a MIG mode that an earlier claim left on, so that the GPU can be used as a whole.
fn make_whole(claim: &Claim, targets: &[Target], tools: &Tools<'_>) -> Attempt<()> {
    for (device, target) in claim.devices.iter().zip(targets) {
        let (Target::Gpu(gpu) | Target::Shared(gpu, _)) = target else { continue };
        let failed = |source| PrepareCause::PendingRestore { device: device.device.to_string(), source };
        if restore::is_mig_mode_pending(gpu, tools).map_err(failed)? {
            restore::restore(gpu, tools).map_err(failed)?;
        }
    }
    Ok(())
}

/// Finishes the restores of earlier claims before the GPUs are reserved again.
fn restore_pending(gpus: &BTreeMap<GpuUuid, String>, tools: &Tools<'_>) -> Attempt<()> {
    for (gpu, device) in gpus {
        let failed = |source| PrepareCause::PendingRestore { device: device.clone(), source };
        restore::restore(gpu, tools).map_err(failed)?;
    }
    Ok(())
}

/// The GPUs of the claim and those of its existing record, each with the device name that users know.
fn gpus_to_lock(claim: &Claim, targets: &[Target], existing: Option<&ClaimRecord>) -> BTreeMap<GpuUuid, String> {
    let before = existing.into_iter().flat_map(|record| &record.devices);
    let before = before.map(|device| (device.hardware.gpu().clone(), device.device.to_string()));
    let now = claim.devices.iter().zip(targets);
    before.chain(now.map(|(device, target)| (target.gpu().clone(), device.device.to_string()))).collect()
}

fn unread(node: &Node, device: &AllocatedDevice, error: GpuError) -> PrepareCause {
    let name = device.device.clone();
    match error {
        GpuError::NotFound { .. } => refused(node, device, Unresolved::Unknown),
        source @ GpuError::OutOfTime { .. } => PrepareCause::OutOfTime { source },
        source @ GpuError::Machine { .. } => PrepareCause::DriverStopped { device: name, source },
        source @ (GpuError::Failed { .. }
        | GpuError::UnexpectedValue { .. }
        | GpuError::Unsupported { .. }
        | GpuError::NotApplied { .. }
        | GpuError::MigModePending { .. }
        | GpuError::Program { .. }) => PrepareCause::Gpu { device: name, source },
    }
}

fn refused(node: &Node, device: &AllocatedDevice, why: Unresolved) -> PrepareCause {
    if let Unresolved::Unusable { .. } = why
        && let Some(known) = node.host.latest().devices_by_name().get(&device.device)
        && let Some(fault) = fault(node, &known.gpu().uuid, known.placement())
    {
        return PrepareCause::Refused(Refusal::Unhealthy { device: device.device.clone(), fault });
    }
    PrepareCause::Refused(plan::refuse(device, &node.settings.node, why))
}

fn cause(error: RunError) -> PrepareCause {
    match error {
        RunError::Record(source) => PrepareCause::Record { source },
        RunError::Effect(source) => PrepareCause::Effect(source),
    }
}
