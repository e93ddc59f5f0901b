// SPDX-License-Identifier: Apache-2.0
//! All queries about this machine, for the processes that run on it.
//!
//! They use a [`Machine`] and the root directories of driver, procfs and sysfs. Answers about one GPU and about files are read
//! at each call. The inventory is cached until the shape of the machine changes. Every call blocks.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dra_model::{
    ControlNode, DeviceNode, DriverFiles, DriverState, Gpu, GpuEntry, GpuSettings, GpuUuid, Inventory, MigMode,
    PciAddress, PciIds,
};
use parking_lot::{Mutex, RwLock};

use crate::creations::{Creations, Ownership, mark};
use crate::deadline::Deadline;
use crate::device_nodes::{self, DeviceIds, NodeError};
use crate::discover::{complete, discover, with_earlier};
use crate::driver_files::{DriverFilesCache, DriverFilesError};
use crate::driver_program::{DriverProgram, ProgramError};
use crate::driver_report::{self, DriverReport};
use crate::gpu_error::{GpuError, MachineError};
use crate::health::{GpuCondition, GpuEvents, HealthMachine as _};
use crate::holders::{Pod, ProcessRoots};
use crate::machine::{DriverVersions, GpuSelector, GpuShape, Machine};
use crate::measurements::Measurements;
use crate::procfs::{self, BootIdError};
use crate::sysfs;
use crate::timeout::{GPU_TIMEOUT, TimeoutMachine};

/// The directories of the machine, as this process sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// The driver's user-space part.
    pub driver: PathBuf,
    /// The path of [`Roots::driver`] on the host; container runtimes mount from there.
    pub driver_on_host: PathBuf,
    pub proc: PathBuf,
    pub sys: PathBuf,
    /// Of the node, to name processes that hold a GPU.
    pub processes: ProcessRoots,
}

/// The devices and the NVIDIA driver of this node, from NVML, procfs, sysfs and the driver root.
#[derive(Debug)]
pub struct Host {
    machine: TimeoutMachine,
    roots: Roots,
    latest: RwLock<Arc<Inventory>>,
    /// What an earlier process knew; until the driver responds.
    remembered: Mutex<Option<Inventory>>,
    /// The outline at the time of [`Host::latest`]; also serialises discoveries.
    outline: Mutex<Option<Outline>>,
    /// Without it everything is an administrator's.
    ownership: OnceLock<Arc<dyn Ownership>>,
    driver_files: DriverFilesCache,
}

/// Every change of the inventory changes this part of the machine.
type Outline = Result<(DriverVersions, Vec<GpuShape>), MachineError>;

impl Host {
    pub fn new(machine: Arc<dyn Machine>, roots: Roots) -> Self {
        Self::of(TimeoutMachine::new(machine, GPU_TIMEOUT), roots)
    }

    /// With another timeout, for tests.
    pub(crate) fn of(machine: TimeoutMachine, roots: Roots) -> Self {
        let latest = RwLock::new(Arc::new(Inventory::without_driver("not read yet".to_owned())));
        Self {
            machine,
            roots,
            latest,
            remembered: Mutex::new(None),
            outline: Mutex::new(None),
            ownership: OnceLock::new(),
            driver_files: DriverFilesCache::default(),
        }
    }

    /// Sets, once, who knows what this driver created.
    pub fn set_ownership(&self, ownership: Arc<dyn Ownership>) {
        self.ownership.set(ownership).ok();
    }

    /// Adds what an earlier process knew to the first reading: all about a GPU that cannot be read any more.
    pub fn remember(&self, earlier: Inventory) {
        *self.remembered.lock() = Some(earlier);
    }

    /// The inventory of the last reading; without a driver before the first one.
    pub fn latest(&self) -> Arc<Inventory> {
        Arc::clone(&self.latest.read())
    }

    /// The PCI ids of the model of a GPU, where the kernel has them.
    pub fn pci_ids(&self, pci: PciAddress) -> Option<PciIds> {
        sysfs::pci_ids(&self.roots.sys, pci)
    }

    /// Reads the whole inventory.
    pub fn refresh(&self) -> Arc<Inventory> {
        let mut outline = self.outline.lock();
        let before = self.creations();
        // Before the inventory: a change in between is then found at the next query.
        *outline = Some(outline_of(&self.machine));
        self.store(discover(&self.machine, &self.roots.sys), &before);
        self.latest()
    }

    /// As [`Host::refresh`], but without result if the deadline passes first: a GPU that was not queried is not broken.
    pub(crate) fn refresh_until(&self, deadline: &Deadline) -> Option<Arc<Inventory>> {
        let mut outline = self.outline.try_lock_for(deadline.limit(Duration::MAX))?;
        let (machine, before) = (self.machine.until(deadline), self.creations());
        let (now, inventory) = (outline_of(&machine), discover(&machine, &self.roots.sys));
        if deadline.is_over() {
            return None;
        }
        *outline = Some(now);
        self.store(inventory, &before);
        Some(self.latest())
    }

    /// Reads the whole inventory if the machine changed, and returns whether the inventory changed.
    ///
    /// Cheap enough for each second: it queries versions, count, shapes, and whether unusable GPUs recovered. The shape of a GPU
    /// that hangs is the same each time, so the inventory is read once when it begins to hang.
    pub fn refresh_if_changed(&self) -> bool {
        let mut outline = self.outline.lock();
        let before = self.creations();
        let now = outline_of(&self.machine);
        if outline.as_ref() == Some(&now) && !self.an_unusable_gpu_recovered() {
            return false;
        }
        *outline = Some(now);
        self.store(discover(&self.machine, &self.roots.sys), &before)
    }

    /// One GPU as it is now, MIG devices included.
    pub fn gpu(&self, uuid: &GpuUuid) -> Result<Gpu, GpuError> {
        self.gpu_of(&self.machine, uuid)
    }

    pub(crate) fn gpu_of(&self, machine: &TimeoutMachine, uuid: &GpuUuid) -> Result<Gpu, GpuError> {
        let mut gpu = complete(machine.gpu(GpuSelector::Uuid(uuid))?, &self.roots.sys);
        // Reading the records takes time, and only MIG has an owner.
        if matches!(gpu.mig, MigMode::On { .. }) {
            let creations = self.creations();
            mark(&mut gpu, &creations, &creations);
        }
        Ok(gpu)
    }

    /// Both settings of a GPU, if it supports them.
    pub fn settings(&self, gpu: &GpuUuid) -> Result<GpuSettings, GpuError> {
        Ok(GpuSettings { compute_mode: self.machine.compute_mode(gpu)?, interval: self.machine.interval(gpu)? })
    }

    /// The nodes of one device: that of its GPU, and for a MIG device its two capabilities.
    pub fn device_nodes(&self, device: DeviceIds) -> Result<Vec<DeviceNode>, NodeError> {
        device_nodes::device_nodes(device, &self.roots.driver, &self.roots.driver_on_host, &self.roots.proc)
    }

    /// The nodes of the driver itself: `nvidiactl`, `nvidia-uvm`, and if they exist `nvidia-uvm-tools` and `nvidia-modeset`.
    pub fn control_nodes(&self) -> Result<Vec<ControlNode>, NodeError> {
        device_nodes::control_nodes(&self.roots.driver, &self.roots.driver_on_host)
    }

    /// The DRI nodes of a GPU; none without the module `nvidia-drm`.
    pub fn dri_nodes(&self, pci: PciAddress) -> Result<Vec<DeviceNode>, NodeError> {
        device_nodes::dri_nodes(pci, &self.roots.driver, &self.roots.driver_on_host, &self.roots.sys)
    }

    /// The files of the driver for containers, or an error without those that each needs. Cached until a file or directory changes.
    pub fn driver_files(&self) -> Result<DriverFiles, DriverFilesError> {
        let loaded = procfs::loaded_driver(&self.roots.proc);
        self.driver_files.find(&self.roots.driver, &self.roots.driver_on_host, loaded)
    }

    /// What the driver root has of the files that containers can get.
    pub fn driver_report(&self) -> Result<DriverReport, DriverFilesError> {
        let loaded = procfs::loaded_driver(&self.roots.proc);
        driver_report::report(&self.roots.driver, &self.roots.driver_on_host, loaded.as_deref())
    }

    /// A program of the driver, with the libraries that it opens by SONAME.
    pub fn driver_program(&self, name: &str, libraries: &[&str]) -> Result<DriverProgram, ProgramError> {
        DriverProgram::find(&self.roots.driver, name, libraries, procfs::loaded_driver(&self.roots.proc).as_deref())
    }

    /// The id of this boot of the kernel.
    pub fn boot_id(&self) -> Result<String, BootIdError> {
        procfs::boot_id(&self.roots.proc)
    }

    /// See [`HealthMachine::condition`].
    pub fn condition(&self, gpu: &GpuUuid) -> Result<GpuCondition, GpuError> {
        self.machine.condition(gpu)
    }

    /// See [`HealthMachine::events`]. A wait may hang with its GPU.
    pub fn events(&self, gpu: &GpuUuid) -> Result<Box<dyn GpuEvents>, GpuError> {
        self.machine.events(gpu)
    }

    /// See [`HealthMachine::measurements`].
    pub fn measurements(&self, gpu: &GpuUuid) -> Result<Measurements, GpuError> {
        self.machine.measurements(gpu)
    }

    /// The pod of a process, if it is found.
    pub fn pod_of(&self, process: u32) -> Option<Pod> {
        self.roots.processes.process(process).pod
    }

    pub(crate) fn process_roots(&self) -> &ProcessRoots {
        &self.roots.processes
    }

    pub(crate) fn machine(&self) -> &TimeoutMachine {
        &self.machine
    }

    fn creations(&self) -> Creations {
        let boot_id = self.boot_id().ok();
        self.ownership.get().map(|ownership| ownership.creations(boot_id.as_deref())).unwrap_or_default()
    }

    /// Returns whether the inventory changed. `before` is what this driver had created before it was read.
    fn store(&self, found: Inventory, before: &Creations) -> bool {
        let is_loaded = matches!(found.driver, DriverState::Loaded { .. });
        let remembered = if is_loaded { self.remembered.lock().take() } else { None };
        let mut inventory = with_earlier(found, remembered.as_ref().unwrap_or(&self.latest()));
        let after = self.creations();
        for entry in &mut inventory.gpus {
            if let GpuEntry::Known { gpu, .. } = entry {
                mark(gpu, before, &after);
            }
        }
        let mut latest = self.latest.write();
        let changed = **latest != inventory;
        if changed {
            *latest = Arc::new(inventory);
        }
        changed
    }

    /// A GPU may fail and recover without a change of its shape.
    fn an_unusable_gpu_recovered(&self) -> bool {
        let latest = self.latest();
        let unusable = (0..).zip(&latest.gpus).filter(|(_, entry)| entry.failure().is_some());
        unusable.into_iter().any(|(index, _)| self.machine.gpu(GpuSelector::Index(index)).is_ok())
    }
}

fn outline_of(machine: &TimeoutMachine) -> Outline {
    let driver = machine.driver()?;
    let count = machine.gpu_count()?;
    Ok((driver, (0..count).map(|index| machine.shape(index)).collect::<Result<_, _>>()?))
}
