// SPDX-License-Identifier: Apache-2.0
//! The CDI spec of a claim, rendered from its record as the last effect: by then the record names the devices that earlier
//! effects created.

use dra_cdi::{ClaimDevice, Ensured, Kind, MpsClient, RenderedSpec, render};
use dra_checkpoint::{ClaimRecord, RecordedDevice, RecordedHardware, RecordedSharing, Step};
use dra_hardware::DeviceIds;
use dra_model::{Capability, ClaimUid, DeviceNode};

use crate::decide::shares;
use crate::effects::device_files;
use crate::effects::error::EffectError;
use crate::effects::prerequisites::Prerequisites;
use crate::effects::tools::Tools;
use crate::state::node::Settings;

/// Checks every device node before the first effect of a claim whose devices exist already. A claim with nothing but a spec has
/// no effect that comes before.
pub(super) fn check(
    record: &ClaimRecord,
    prerequisites: &Prerequisites<'_>,
    tools: &Tools<'_>,
) -> Result<(), EffectError> {
    if record.effects().iter().all(|step| *step == Step::ClaimSpec) {
        return Ok(());
    }
    let exists = |device: &&RecordedDevice| device.hardware.exists();
    let nodes = |device| nodes(device, prerequisites, tools).map(drop);
    record.devices.iter().filter(exists).try_for_each(nodes)
}

/// Writes the base spec and then the spec of the claim, and returns whether one of them changed. The record names the base
/// spec already, which keeps the reconciliation from removing it as unused.
pub(super) fn apply(
    record: &ClaimRecord,
    prerequisites: &Prerequisites<'_>,
    tools: &Tools<'_>,
) -> Result<bool, EffectError> {
    let spec = render(record, prerequisites, tools)?;
    let ensure = |spec: &RenderedSpec| tools.specs.ensure(spec, &record.claim.uid);
    let base = prerequisites.base.as_ref().map(ensure).transpose();
    let base = base.map_err(|source| EffectError::BaseSpec { source })?;
    let claim = ensure(&spec).map_err(|source| EffectError::ClaimSpec { source })?;
    Ok([base, Some(claim)].into_iter().flatten().any(|ensured| ensured != Ensured::Unchanged))
}

/// Compares the spec with what the record stands for now, and replaces it if it differs.
pub(super) fn verify(
    record: &ClaimRecord,
    prerequisites: &Prerequisites<'_>,
    tools: &Tools<'_>,
) -> Result<bool, EffectError> {
    apply(record, prerequisites, tools)
}

/// The base spec stays: other claims use it.
pub(super) fn undo(uid: &ClaimUid, tools: &Tools<'_>) -> Result<(), EffectError> {
    tools.specs.remove(&Kind::Claim(uid.clone())).map_err(|source| EffectError::RemoveClaimSpec { source })
}

fn render(
    record: &ClaimRecord,
    prerequisites: &Prerequisites<'_>,
    tools: &Tools<'_>,
) -> Result<RenderedSpec, EffectError> {
    let device = |recorded: &RecordedDevice| {
        Ok(ClaimDevice {
            device: recorded.device.clone(),
            share: recorded.share_id.clone(),
            nodes: nodes(recorded, prerequisites, tools)?,
            mps: mps_client(&recorded.sharing, prerequisites.settings),
        })
    };
    let devices: Vec<ClaimDevice> = record.devices.iter().map(device).collect::<Result<_, EffectError>>()?;
    let rendered = render::claim(tools.specs.naming(), &record.claim.uid, &devices);
    rendered.map_err(|source| EffectError::Render { source })
}

fn nodes(
    recorded: &RecordedDevice,
    prerequisites: &Prerequisites<'_>,
    tools: &Tools<'_>,
) -> Result<Vec<DeviceNode>, EffectError> {
    let (device, gpu) = (recorded.device.clone(), recorded.hardware.gpu());
    let Some(read) = prerequisites.gpus.get(gpu) else {
        return Err(EffectError::UnreadGpu { device, gpu: gpu.clone() });
    };
    let ids = match &recorded.hardware {
        RecordedHardware::Gpu { .. } | RecordedHardware::Shared { .. } => DeviceIds::Gpu { minor: read.minor },
        RecordedHardware::Mig { ids, .. } => DeviceIds::of_mig(read.minor, ids),
        RecordedHardware::Partition { created, identity, .. } => {
            let Some(ids) = created else { return Err(EffectError::NotCreated { device, identity: identity.clone() }) };
            // The minor number may have changed with the MIG mode.
            let now = tools
                .host
                .mig_state(gpu)
                .map_err(|source| EffectError::ReadGpu { device: device.clone(), source: Box::new(source) })?;
            DeviceIds::of_mig(now.minor, ids)
        }
    };
    let nodes = tools.host.device_nodes(ids).and_then(|mut nodes| {
        // A MIG device draws nothing.
        let is_whole = matches!(ids, DeviceIds::Gpu { .. });
        if is_whole && tools.specs.naming().capabilities(&recorded.cdi_ids).contains(Capability::Graphics) {
            nodes.extend(tools.host.dri_nodes(read.pci)?);
        }
        Ok(nodes)
    });
    let nodes = nodes.map_err(|source| EffectError::Nodes { device, source })?;
    if let Some(dev_dir) = &prerequisites.settings.host_dev_dir {
        device_files::ensure(dev_dir, &nodes);
    }
    Ok(nodes)
}

fn mps_client(sharing: &RecordedSharing, settings: &Settings) -> Option<MpsClient> {
    let RecordedSharing::Mps { daemon, .. } = sharing else { return None };
    let dir = settings.mps_root.join(daemon.as_str());
    Some(MpsClient { run_dir: dir.join("run"), shm_dir: dir.join("shm"), limits: shares::limits(sharing) })
}
