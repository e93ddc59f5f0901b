// SPDX-License-Identifier: Apache-2.0
//! Everything about this machine, for the processes that run on it.
//!
//! In come a [`Machine`] and the places where the driver, procfs and sysfs are seen. Answers about one GPU and about files
//! are read when asked; the inventory is kept until the machine's shape differs. Every call blocks.

use std::path::PathBuf;
use std::sync::Arc;

use dra_model::{
    ComputeMode, Device, DeviceNode, DriverFiles, Gpu, GpuEntry, GpuSettings, GpuUuid, Interval, Inventory,
};
use parking_lot::{Mutex, RwLock};

use crate::discover::{complete, discover, recognise, remember};
use crate::driver_files::{DriverFilesCache, DriverFilesError};
use crate::driver_program::{DriverProgram, ProgramError};
use crate::machine::{DriverVersions, GpuError, GpuSelector, GpuShape, Machine, MachineError};
use crate::nodes::{self, NodeError};
use crate::patience::{PATIENCE, Patient};
use crate::procfs::{self, BootIdError};

/// Where this process sees the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// The driver's user-space part.
    pub driver: PathBuf,
    /// What the host calls [`Roots::driver`]; container runtimes bind from there.
    pub driver_on_host: PathBuf,
    /// procfs.
    pub proc: PathBuf,
    /// sysfs.
    pub sys: PathBuf,
}

/// This machine.
#[derive(Debug)]
pub struct Host {
    machine: Patient,
    roots: Roots,
    latest: RwLock<Arc<Inventory>>,
    /// What [`Host::latest`] was read under; also serialises discoveries.
    outline: Mutex<Option<Outline>>,
    driver_files: DriverFilesCache,
}

/// What a change of the inventory cannot happen without.
type Outline = Result<(DriverVersions, Vec<GpuShape>), MachineError>;

impl Host {
    /// Asks nothing yet.
    pub fn new(machine: Arc<dyn Machine>, roots: Roots) -> Self {
        Self::of(Patient::new(machine, PATIENCE), roots)
    }

    /// With a patience of its own, since no test waits for the true one.
    pub(crate) fn of(machine: Patient, roots: Roots) -> Self {
        let latest = RwLock::new(Arc::new(Inventory::without_driver("not read yet".to_owned())));
        Self { machine, roots, latest, outline: Mutex::new(None), driver_files: DriverFilesCache::default() }
    }

    /// The inventory as it was read last; without a driver before the first time.
    pub fn latest(&self) -> Arc<Inventory> {
        Arc::clone(&self.latest.read())
    }

    /// Reads everything now.
    pub fn refresh(&self) -> Arc<Inventory> {
        let mut outline = self.outline.lock();
        // Before the reading: a change in between is then found the next time.
        *outline = Some(self.outline());
        self.read_all();
        self.latest()
    }

    /// Reads everything if the machine changed, and says whether the inventory did.
    ///
    /// Cheap enough for once a second: asks versions, count and shapes, which GPUs in error would still refuse, and nothing
    /// else. A GPU that hangs looks alike each time, so that everything is read once when it begins to, and not each time.
    pub fn refresh_if_changed(&self) -> bool {
        let mut outline = self.outline.lock();
        let now = self.outline();
        if outline.as_ref() == Some(&now) && !self.a_broken_gpu_recovered() {
            return false;
        }
        *outline = Some(now);
        self.read_all()
    }

    /// One GPU as it is now, MIG devices included.
    pub fn gpu(&self, uuid: &GpuUuid) -> Result<Gpu, GpuError> {
        Ok(complete(self.machine.gpu(GpuSelector::Uuid(uuid))?, &self.roots.sys))
    }

    /// Both settings of a GPU as they are now, where it has them.
    pub fn settings(&self, gpu: &GpuUuid) -> Result<GpuSettings, GpuError> {
        Ok(GpuSettings { compute_mode: self.machine.compute_mode(gpu)?, interval: self.machine.interval(gpu)? })
    }

    /// See [`Machine::compute_mode`]. Some microseconds, unlike the interval.
    pub fn compute_mode(&self, gpu: &GpuUuid) -> Result<Option<ComputeMode>, GpuError> {
        self.machine.compute_mode(gpu)
    }

    /// See [`Machine::set_compute_mode`].
    pub fn set_compute_mode(&self, gpu: &GpuUuid, mode: ComputeMode) -> Result<(), GpuError> {
        self.machine.set_compute_mode(gpu, mode)
    }

    /// See [`Machine::interval`]. Some milliseconds, since a program is run for it.
    pub fn interval(&self, gpu: &GpuUuid) -> Result<Option<Interval>, GpuError> {
        self.machine.interval(gpu)
    }

    /// See [`Machine::set_interval`].
    pub fn set_interval(&self, gpu: &GpuUuid, interval: Interval) -> Result<(), GpuError> {
        self.machine.set_interval(gpu, interval)
    }

    /// The nodes of one device: that of its GPU, and for a MIG device its two capabilities.
    pub fn device_nodes(&self, device: Device<'_>) -> Result<Vec<DeviceNode>, NodeError> {
        nodes::device_nodes(device, &self.roots.driver, &self.roots.driver_on_host, &self.roots.proc)
    }

    /// The nodes every container with a GPU needs: `nvidiactl`, `nvidia-uvm`, and where they exist `nvidia-uvm-tools`
    /// and `nvidia-modeset`.
    pub fn control_nodes(&self) -> Result<Vec<DeviceNode>, NodeError> {
        nodes::control_nodes(&self.roots.driver, &self.roots.driver_on_host)
    }

    /// Libraries and programs of the driver, all of them or an error. Cached until a file or directory changes.
    pub fn driver_files(&self) -> Result<DriverFiles, DriverFilesError> {
        self.driver_files.find(&self.roots.driver, &self.roots.driver_on_host)
    }

    /// A program of the driver, with the libraries of the driver that it opens itself, by SONAME.
    pub fn driver_program(&self, name: &str, libraries: &[&str]) -> Result<DriverProgram, ProgramError> {
        DriverProgram::find(&self.roots.driver, name, libraries)
    }

    /// The id of this boot of the kernel.
    pub fn boot_id(&self) -> Result<String, BootIdError> {
        procfs::boot_id(&self.roots.proc)
    }

    fn outline(&self) -> Outline {
        let driver = self.machine.driver()?;
        let count = self.machine.gpu_count()?;
        Ok((driver, (0..count).map(|index| self.machine.shape(index)).collect::<Result<_, _>>()?))
    }

    fn read_all(&self) -> bool {
        let inventory = discover(&self.machine, &self.roots.sys);
        let inventory = remember(recognise(inventory, &self.latest()), &self.latest());
        let mut latest = self.latest.write();
        let changed = **latest != inventory;
        if changed {
            *latest = Arc::new(inventory);
        }
        changed
    }

    /// A GPU may break and recover without a change of its shape.
    fn a_broken_gpu_recovered(&self) -> bool {
        self.latest().gpus.iter().any(|entry| match entry {
            GpuEntry::Good(_) => false,
            GpuEntry::Broken { index, .. } => self.machine.gpu(GpuSelector::Index(*index)).is_ok(),
        })
    }
}
