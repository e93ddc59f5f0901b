// SPDX-License-Identifier: Apache-2.0
//! The MIG mode and the MIG devices of one GPU.
//!
//! MIG devices are found in the slots of NVML. An administrator may remove or replace a device between two queries about it.
//! Then its slot is read again, so that neither the GPU fails nor two devices are mixed.
//!
//! Where the driver does not list the profiles, as in a guest, the existing devices are read all the same. Where it does not
//! report the resources of a device, those of its profile are used.

use std::sync::Arc;

use dra_model::{
    Bytes, ComputeShare, Engines, GpuInstance, GpuUuid, MigDevice, MigIdentity, MigMode, MigOrigin, MigUuid, Placement,
};
use dra_nvml::error::code;
use dra_nvml::{Device, MigAttributes, NvmlError};

use super::profiles::{ProfileTable, sized_name};
use super::subject::Subject;
use crate::gpu_error::GpuError;

/// How often a slot is read before its error is returned.
const ATTEMPTS: u32 = 4;

/// Reads the MIG mode, the layout and the devices of a GPU.
pub(super) fn read(
    gpu: &Device<'_>,
    subject: &Subject<'_>,
    uuid: &GpuUuid,
    memory: Option<u64>,
    profiles: impl FnOnce() -> Result<Arc<ProfileTable>, NvmlError>,
) -> Result<MigMode, GpuError> {
    let is_on = match gpu.mig_mode() {
        Ok(is_on) => is_on,
        Err(error) if error.is_unsupported() => return Ok(MigMode::Unsupported),
        Err(error) => return Err(subject.failed(error)),
    };
    let table = listed(profiles()).map_err(|error| subject.failed(error))?;
    let layout = table.as_ref().map(|table| table.layout.clone());
    if is_on {
        let profiles = Profiles { table: table.as_deref(), memory };
        // Before the devices, so that each of them has its GPU instance here unless it is new.
        let gpu_instances = table.as_deref().map_or_else(|| Ok(Vec::new()), |table| gpu_instances(gpu, table));
        let gpu_instances = gpu_instances.map_err(|error| subject.failed(error))?;
        let devices = devices(gpu, subject, uuid, &profiles)?;
        return Ok(MigMode::On { layout, devices, gpu_instances, origin: MigOrigin::default() });
    }
    // A GPU in a guest cannot be divided.
    Ok(layout.map_or(MigMode::Unsupported, MigMode::Off))
}

/// The profiles, or none if the driver does not list them.
fn listed(answer: Result<Arc<ProfileTable>, NvmlError>) -> Result<Option<Arc<ProfileTable>>, NvmlError> {
    match answer {
        Ok(table) => Ok(Some(table)),
        Err(error) if [code::NOT_SUPPORTED, code::NO_PERMISSION].contains(&error.code) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The GPU instances of all profiles, with or without compute instances, ordered by id.
pub(super) fn gpu_instances(gpu: &Device<'_>, table: &ProfileTable) -> Result<Vec<GpuInstance>, NvmlError> {
    let mut all = Vec::new();
    for profile in &table.layout.profiles {
        match gpu.gpu_instances(profile.id) {
            Ok(found) => all.extend(found.into_iter().map(|(id, instance)| GpuInstance {
                id,
                profile_id: instance.profile_id,
                placement: Placement { start: instance.placement.start, size: instance.placement.size },
                origin: MigOrigin::default(),
            })),
            Err(error) if error.is_unsupported() => {}
            Err(error) => return Err(error),
        }
    }
    all.sort_by_key(|instance| instance.id);
    all.dedup_by_key(|instance| instance.id);
    Ok(all)
}

struct Profiles<'a> {
    table: Option<&'a ProfileTable>,
    /// Memory of the GPU.
    memory: Option<u64>,
}

impl Profiles<'_> {
    /// The resources of a MIG device, or those of its profile if the driver does not report them.
    fn or_listed(
        &self,
        answer: Result<MigAttributes, NvmlError>,
        profile_id: u32,
        compute_slices: u32,
    ) -> Result<MigAttributes, NvmlError> {
        match answer {
            Err(error) if error.is_unsupported() => {
                self.table.and_then(|table| table.attributes(profile_id, compute_slices)).ok_or(error)
            }
            answer => answer,
        }
    }
}

fn devices(
    gpu: &Device<'_>,
    subject: &Subject<'_>,
    uuid: &GpuUuid,
    profiles: &Profiles<'_>,
) -> Result<Vec<MigDevice>, GpuError> {
    let mut devices = Vec::new();
    for slot in 0..gpu.mig_slots().map_err(|error| subject.failed(error))? {
        devices.extend(in_slot(gpu, slot, subject, uuid, profiles)?);
    }
    devices.sort_by_key(|device| (device.identity.placement, device.identity.share));
    Ok(devices)
}

/// Reads a slot until nothing changed in between.
///
/// A device that disappears in every attempt is left out; any other error after all attempts is returned.
fn in_slot(
    gpu: &Device<'_>,
    slot: u32,
    subject: &Subject<'_>,
    uuid: &GpuUuid,
    profiles: &Profiles<'_>,
) -> Result<Option<MigDevice>, GpuError> {
    let mut answer = Answers::in_slot(gpu, slot, profiles);
    for _ in 1..ATTEMPTS {
        match answer {
            Err(error) if !error.is_driver_gone() => answer = Answers::in_slot(gpu, slot, profiles),
            Ok(_) | Err(_) => break,
        }
    }
    if let Err(error) = &answer
        && [code::NOT_FOUND, code::INVALID_ARGUMENT].contains(&error.code)
    {
        tracing::warn!(gpu = %uuid, slot, call = error.call, code = error.code, "MIG device left out, it keeps changing");
        return Ok(None);
    }
    let Some(answers) = answer.map_err(|error| subject.failed(error))? else { return Ok(None) };
    match answers.uuid.parse() {
        Ok(mig_uuid) => Ok(Some(answers.device(uuid, mig_uuid, profiles))),
        Err(_) => Err(subject.unexpected_value("nvmlDeviceGetUUID", answers.uuid)),
    }
}

/// The values of NVML for one MIG device.
struct Answers {
    uuid: String,
    gpu_instance: u32,
    compute_instance: u32,
    profile_id: u32,
    placement: Placement,
    share: ComputeShare,
    attributes: MigAttributes,
}

impl Answers {
    fn in_slot(gpu: &Device<'_>, slot: u32, profiles: &Profiles<'_>) -> Result<Option<Self>, NvmlError> {
        let Some(mig) = gpu.mig_device(slot)? else { return Ok(None) };
        let answers = Self::read(gpu, &mig, profiles)?;
        let now = gpu.mig_device(slot)?.map(|mig| mig.uuid()).transpose()?;
        let changed = NvmlError { call: "nvmlDeviceGetMigDeviceHandleByIndex", code: code::NOT_FOUND };
        if now.as_ref() == Some(&answers.uuid) { Ok(Some(answers)) } else { Err(changed) }
    }

    fn read(gpu: &Device<'_>, mig: &Device<'_>, profiles: &Profiles<'_>) -> Result<Self, NvmlError> {
        let uuid = mig.uuid()?;
        let (gpu_instance, compute_instance) = (mig.gpu_instance_id()?, mig.compute_instance_id()?);
        let instance = gpu.gpu_instance(gpu_instance)?;
        let compute = gpu.compute_instance(gpu_instance, compute_instance)?;
        let profile_id = instance.profile_id;
        let attributes = profiles.or_listed(mig.mig_attributes(), profile_id, compute.placement.size)?;
        let placement = Placement { start: instance.placement.start, size: instance.placement.size };
        let of = attributes.gpu_instance_slices;
        let share = ComputeShare { start: compute.placement.start, slices: compute.placement.size, of };
        Ok(Self { uuid, gpu_instance, compute_instance, profile_id, placement, share, attributes })
    }

    fn device(self, parent: &GpuUuid, uuid: MigUuid, profiles: &Profiles<'_>) -> MigDevice {
        MigDevice {
            uuid,
            gpu_instance: self.gpu_instance,
            compute_instance: self.compute_instance,
            profile: self.profile_name(profiles),
            memory: Bytes::from_mib(self.attributes.memory_mib),
            engines: engines(&self.attributes),
            identity: MigIdentity {
                parent: parent.clone(),
                profile_id: self.profile_id,
                placement: self.placement,
                share: self.share,
            },
            origin: MigOrigin::default(),
        }
    }

    /// `3g.40gb`, or `1c.3g.40gb` for a compute instance that does not span its GPU instance.
    fn profile_name(&self, profiles: &Profiles<'_>) -> String {
        let listed = profiles.table.and_then(|table| table.name(self.profile_id)).map(str::to_owned);
        let name = listed.unwrap_or_else(|| sized_name(self.share.of, self.attributes.memory_mib, profiles.memory));
        if self.share.is_whole() { name } else { format!("{}c.{name}", self.share.slices) }
    }
}

fn engines(attributes: &MigAttributes) -> Engines {
    Engines {
        multiprocessors: attributes.multiprocessors,
        copy_engines: attributes.copy_engines,
        decoders: attributes.decoders,
        encoders: attributes.encoders,
        jpeg_engines: attributes.jpeg_engines,
        ofa_engines: attributes.ofa_engines,
    }
}
