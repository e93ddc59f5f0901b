// SPDX-License-Identifier: Apache-2.0
//! `gpu-kubelet-plugin claim print`: what this node has for a claim, as JSON. It takes no lock and changes nothing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use dra_cdi::{Kind, Naming};
use dra_checkpoint::{
    ClaimRecord, ClaimState, Inspected, RecordStore, RecordedDevice, RecordedHardware, RecordedSharing,
};
use dra_files::{Files as _, HostFiles};
use dra_hardware::{DeviceIds, Host};
use dra_model::claim_report::{
    ClaimReport, DeviceReport, HardwareReport, NodeReport, RecordReport, SpecContent, SpecReport,
};
use dra_model::{Capability, ClaimUid, DeviceNode, Gpu, GpuUuid, MigIds, explain};

use crate::host_args::{HostArgs, StateArgs};
use crate::json_report::{self, EncodeError};
use crate::spec_report::spec_devices;

/// Shows what this node has for claims.
#[derive(Debug, Parser)]
#[command(name = "gpu-kubelet-plugin claim", bin_name = "gpu-kubelet-plugin claim", version)]
pub struct ClaimCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the record, the CDI specs and the hardware of a claim as JSON, for `kubectl gpu verify`
    Print(Print),
}

#[derive(Debug, Args)]
struct Print {
    /// UID of the ResourceClaim
    uid: ClaimUid,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    state: StateArgs,
}

/// No spec of this driver is larger.
const MAX_SPEC_BYTES: u64 = 4 * 1024 * 1024;

impl ClaimCommand {
    /// The text for standard output.
    pub fn run(self) -> (String, Result<(), EncodeError>) {
        let What::Print(print) = self.what;
        json_report::line(&print.report())
    }
}

impl Print {
    fn report(&self) -> ClaimReport {
        let host = self.host.host();
        let plugin_dir = self.state.plugin_dir(&self.host.driver_name);
        let store = RecordStore::for_reading(Arc::new(HostFiles), &plugin_dir);
        let path = store.path(&self.uid).display().to_string();
        let of_claim = Kind::Claim(self.uid.clone());
        let (record, kinds) = match store.inspect(&self.uid) {
            Ok(Inspected::Nothing) => (RecordReport::Absent { path }, vec![of_claim]),
            Ok(Inspected::Unusable(why)) => (RecordReport::Unreadable { path, why }, vec![of_claim]),
            Err(error) => (RecordReport::Unreadable { path, why: explain(&error) }, vec![of_claim]),
            Ok(Inspected::Record(record)) => {
                let base = Kind::Base(record.base.clone());
                (self.record(&host, *record), vec![base, of_claim])
            }
        };
        let specs = kinds.iter().map(|kind| self.spec(kind)).collect();
        ClaimReport { claim_uid: self.uid.to_string(), record, specs }
    }

    fn record(&self, host: &Host, record: ClaimRecord) -> RecordReport {
        let naming = Naming::new(&self.host.driver_name);
        let devices = record.devices.iter().map(|device| device_report(host, &naming, device)).collect();
        match record.state {
            ClaimState::Preparing { .. } => RecordReport::Preparing { devices },
            ClaimState::Ready { .. } => {
                let is_of_this_boot = host.boot_id().is_ok_and(|boot_id| boot_id == record.boot_id);
                RecordReport::Ready { is_of_this_boot, devices }
            }
            ClaimState::Undoing { last_error, .. } => RecordReport::Undoing { last_error, devices },
        }
    }

    fn spec(&self, kind: &Kind) -> SpecReport {
        let naming = Naming::new(&self.host.driver_name);
        let path: PathBuf = self.state.cdi_root.join(naming.file_name(kind));
        let content = match HostFiles.read(&path, MAX_SPEC_BYTES) {
            Ok(None) => SpecContent::Absent,
            Ok(Some(bytes)) => match spec_devices(&bytes) {
                Ok(devices) => SpecContent::Found { devices },
                Err(error) => SpecContent::Unreadable { why: error.to_string() },
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => SpecContent::Absent,
            Err(error) => SpecContent::Unreadable { why: error.to_string() },
        };
        SpecReport { path: path.display().to_string(), content }
    }
}

fn device_report(host: &Host, naming: &Naming, recorded: &RecordedDevice) -> DeviceReport {
    let daemon = match &recorded.sharing {
        RecordedSharing::Mps { daemon, .. } => Some(daemon.to_string()),
        RecordedSharing::Plain | RecordedSharing::Exclusive | RecordedSharing::TimeSlicing { .. } => None,
    };
    let hardware = hardware(host, naming, recorded).unwrap_or_else(|why| HardwareReport::Missing { why });
    DeviceReport {
        request: recorded.request.clone(),
        pool: recorded.pool.clone(),
        device: recorded.device.to_string(),
        share_id: recorded.share_id.as_ref().map(ToString::to_string),
        uuid: recorded_uuid(&recorded.hardware),
        mps_daemon: daemon,
        cdi_devices: recorded.cdi_ids.clone(),
        hardware,
    }
}

fn recorded_uuid(hardware: &RecordedHardware) -> Option<String> {
    match hardware {
        RecordedHardware::Gpu { uuid } | RecordedHardware::Shared { uuid, .. } => Some(uuid.to_string()),
        RecordedHardware::Mig { ids, .. } => Some(ids.uuid.to_string()),
        RecordedHardware::Partition { created, .. } => created.as_ref().map(|ids| ids.uuid.to_string()),
    }
}

/// What NVML has now, or why not.
fn hardware(host: &Host, naming: &Naming, recorded: &RecordedDevice) -> Result<HardwareReport, String> {
    let gpu = host.gpu(recorded.hardware.gpu()).map_err(|error| explain(&error))?;
    match &recorded.hardware {
        RecordedHardware::Gpu { uuid } | RecordedHardware::Shared { uuid, .. } => {
            whole(host, naming, recorded, &gpu, uuid)
        }
        RecordedHardware::Mig { ids, .. } | RecordedHardware::Partition { created: Some(ids), .. } => {
            part(host, &gpu, ids)
        }
        RecordedHardware::Partition { created: None, .. } => Err("the MIG device is not created".to_owned()),
    }
}

fn whole(
    host: &Host,
    naming: &Naming,
    recorded: &RecordedDevice,
    gpu: &Gpu,
    uuid: &GpuUuid,
) -> Result<HardwareReport, String> {
    let mut nodes = host.device_nodes(DeviceIds::Gpu { minor: gpu.minor }).map_err(|error| explain(&error))?;
    if naming.capabilities(&recorded.cdi_ids).contains(Capability::Graphics) {
        nodes.extend(host.dri_nodes(gpu.pci).map_err(|error| explain(&error))?);
    }
    Ok(HardwareReport::Found { uuid: uuid.to_string(), nodes: node_reports(&nodes) })
}

fn part(host: &Host, gpu: &Gpu, ids: &MigIds) -> Result<HardwareReport, String> {
    let found = gpu.mig_devices().iter().find(|mig| mig.ids().uuid == ids.uuid);
    let found = found.ok_or_else(|| format!("GPU {} has no MIG device {}", gpu.uuid, ids.uuid))?;
    let nodes = host.device_nodes(DeviceIds::of_mig(gpu.minor, &found.ids())).map_err(|error| explain(&error))?;
    Ok(HardwareReport::Found { uuid: ids.uuid.to_string(), nodes: node_reports(&nodes) })
}

fn node_reports(nodes: &[DeviceNode]) -> Vec<NodeReport> {
    let report = |node: &DeviceNode| NodeReport { path: node.path.clone(), major: node.major, minor: node.minor };
    nodes.iter().map(report).collect()
}
