// SPDX-License-Identifier: Apache-2.0
//! This machine, queried on behalf of a call: no answer of NVML is awaited beyond the deadline of the call. nvidia-smi, which
//! may take long without persistence mode, continues beside the call.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::sync::Arc;

use dra_model::{ComputeMode, DeviceNode, Gpu, GpuUuid, Interval, Inventory, MigIdentity, MigIds, PciAddress};
use rustix::fs::makedev;

use crate::deadline::Deadline;
use crate::device_nodes::{DeviceIds, NodeError};
use crate::gpu_error::GpuError;
use crate::holders::Process;
use crate::host::Host;
use crate::machine::{GpuProcess, Machine as _, MigMachine as _, MigState};
use crate::timeout::TimeoutMachine;

#[derive(Debug, Clone, Copy)]
pub struct BoundedHost<'a> {
    host: &'a Host,
    deadline: &'a Deadline,
}

impl Host {
    /// This machine, queried on behalf of a call.
    pub fn until<'a>(&'a self, deadline: &'a Deadline) -> BoundedHost<'a> {
        BoundedHost { host: self, deadline }
    }
}

impl BoundedHost<'_> {
    /// Reads the whole inventory.
    pub fn refresh(&self) -> Result<Arc<Inventory>, GpuError> {
        let which = || "the GPUs of this node".to_owned();
        self.host.refresh_until(self.deadline).ok_or_else(|| GpuError::OutOfTime { which: which() })
    }

    /// One GPU as it is now, MIG devices included.
    pub fn gpu(&self, uuid: &GpuUuid) -> Result<Gpu, GpuError> {
        self.host.gpu_of(&self.machine(), uuid)
    }

    /// See [`Machine::compute_mode`](crate::Machine::compute_mode). Takes some microseconds, unlike the interval.
    pub fn compute_mode(&self, gpu: &GpuUuid) -> Result<Option<ComputeMode>, GpuError> {
        self.machine().compute_mode(gpu)
    }

    /// See [`Machine::set_compute_mode`](crate::Machine::set_compute_mode).
    pub fn set_compute_mode(&self, gpu: &GpuUuid, mode: ComputeMode) -> Result<(), GpuError> {
        self.machine().set_compute_mode(gpu, mode)
    }

    /// See [`Machine::interval`](crate::Machine::interval). Runs a program: some milliseconds to half a minute.
    pub fn interval(&self, gpu: &GpuUuid) -> Result<Option<Interval>, GpuError> {
        let what = format!("nvidia-smi to read the time-slice interval of {gpu}");
        self.deadline.beside(what, || self.host.machine().interval(gpu))
    }

    /// See [`Machine::set_interval`](crate::Machine::set_interval).
    pub fn set_interval(&self, gpu: &GpuUuid, interval: Interval) -> Result<(), GpuError> {
        let what = format!("nvidia-smi to set the time-slice interval of {gpu}");
        self.deadline.beside(what, || self.host.machine().set_interval(gpu, interval))
    }

    /// See [`MigMachine::mig_state`](crate::MigMachine::mig_state).
    pub fn mig_state(&self, gpu: &GpuUuid) -> Result<MigState, GpuError> {
        self.machine().mig_state(gpu)
    }

    /// See [`MigMachine::set_mig_mode`](crate::MigMachine::set_mig_mode).
    pub fn set_mig_mode(&self, gpu: &GpuUuid, on: bool) -> Result<(), GpuError> {
        self.machine().set_mig_mode(gpu, on)
    }

    /// See [`MigMachine::create_gpu_instance`](crate::MigMachine::create_gpu_instance).
    pub fn create_gpu_instance(&self, mig: &MigIdentity) -> Result<(), GpuError> {
        self.machine().create_gpu_instance(mig)
    }

    /// See [`MigMachine::create_compute_instance`](crate::MigMachine::create_compute_instance).
    pub fn create_compute_instance(&self, mig: &MigIdentity) -> Result<MigIds, GpuError> {
        self.machine().create_compute_instance(mig)
    }

    /// See [`MigMachine::destroy_compute_instances`](crate::MigMachine::destroy_compute_instances).
    pub fn destroy_compute_instances(&self, mig: &MigIdentity) -> Result<(), GpuError> {
        self.machine().destroy_compute_instances(mig)
    }

    /// See [`MigMachine::destroy_gpu_instance`](crate::MigMachine::destroy_gpu_instance).
    pub fn destroy_gpu_instance(&self, mig: &MigIdentity) -> Result<(), GpuError> {
        self.machine().destroy_gpu_instance(mig)
    }

    /// The processes that use a GPU or have its device file open, as far as they are found.
    pub fn holders(&self, gpu: &GpuUuid) -> Vec<Process> {
        let roots = self.host.process_roots();
        let with_context = self.machine().processes(gpu).unwrap_or_default();
        let with_open = self.device_number(gpu).map(|number| {
            let is_it = |metadata: &Metadata| metadata.file_type().is_char_device() && metadata.rdev() == number;
            roots.with_open(is_it)
        });
        let ids: BTreeSet<u32> =
            with_context.into_iter().map(|process| process.id).chain(with_open.into_iter().flatten()).collect();
        ids.into_iter().map(|id| roots.process(id)).collect()
    }

    /// Of the device file of a GPU.
    fn device_number(&self, gpu: &GpuUuid) -> Option<u64> {
        let minor = self.machine().mig_state(gpu).ok()?.minor;
        let nodes = self.host.device_nodes(DeviceIds::Gpu { minor }).ok()?;
        let node = nodes.into_iter().find(|node| node.minor == minor)?;
        Some(makedev(node.major, node.minor))
    }

    /// The processes that use a GPU instance, as far as they are found.
    pub fn holders_of_instance(&self, gpu: &GpuUuid, gpu_instance: u32) -> Vec<Process> {
        let is_inside = |process: &GpuProcess| process.gpu_instance.is_none_or(|id| id == gpu_instance);
        let processes = self.machine().processes(gpu).unwrap_or_default().into_iter().filter(is_inside);
        processes.map(|process| self.host.process_roots().process(process.id)).collect()
    }

    /// The deadline of the call.
    pub fn deadline(&self) -> &Deadline {
        self.deadline
    }

    /// See [`Host::device_nodes`].
    pub fn device_nodes(&self, device: DeviceIds) -> Result<Vec<DeviceNode>, NodeError> {
        self.host.device_nodes(device)
    }

    /// See [`Host::dri_nodes`].
    pub fn dri_nodes(&self, pci: PciAddress) -> Result<Vec<DeviceNode>, NodeError> {
        self.host.dri_nodes(pci)
    }

    fn machine(&self) -> TimeoutMachine {
        self.host.machine().until(self.deadline)
    }
}
