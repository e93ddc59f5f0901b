// SPDX-License-Identifier: Apache-2.0
//! Everything about this machine, for the processes that run on it.
//!
//! In come a [`Machine`] and the places where the driver, procfs and sysfs are seen. Answers about one GPU and about files
//! are read when asked; the inventory is kept until the machine's shape differs. Every call blocks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dra_model::{Device, DeviceNode, DriverFiles, Gpu, GpuEntry, GpuSettings, GpuUuid, Inventory};
use parking_lot::{Mutex, RwLock};

use crate::deadline::Deadline;
use crate::discover::{complete, discover, recognise, remember};
use crate::driver_files::{DriverFilesCache, DriverFilesError};
use crate::driver_program::{DriverProgram, ProgramError};
use crate::machine::{DriverVersions, GpuError, GpuSelector, GpuShape, Machine, MachineError};
use crate::nodes::{self, NodeError};
use crate::procfs::{self, BootIdError};
use crate::timeout::{GPU_TIMEOUT, TimeoutMachine};

/// Where this process sees the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// The driver's user-space part.
    pub driver: PathBuf,
    /// What the host calls [`Roots::driver`]; container runtimes bind from there.
    pub driver_on_host: PathBuf,
    pub proc: PathBuf,
    pub sys: PathBuf,
}

/// This machine.
#[derive(Debug)]
pub struct Host {
    machine: TimeoutMachine,
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
        Self::of(TimeoutMachine::new(machine, GPU_TIMEOUT), roots)
    }

    /// With a timeout of its own, since no test waits for the true one.
    pub(crate) fn of(machine: TimeoutMachine, roots: Roots) -> Self {
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
        *outline = Some(outline_of(&self.machine));
        self.keep(discover(&self.machine, &self.roots.sys));
        self.latest()
    }

    /// The same, unless the deadline comes first: a GPU that was not asked any more is not broken.
    pub(crate) fn refresh_until(&self, deadline: &Deadline) -> Option<Arc<Inventory>> {
        let mut outline = self.outline.try_lock_for(deadline.limit(Duration::MAX))?;
        let machine = self.machine.until(deadline);
        let (now, inventory) = (outline_of(&machine), discover(&machine, &self.roots.sys));
        if deadline.is_over() {
            return None;
        }
        *outline = Some(now);
        self.keep(inventory);
        Some(self.latest())
    }

    /// Reads everything if the machine changed, and says whether the inventory did.
    ///
    /// Cheap enough for once a second: asks versions, count and shapes, which GPUs in error would still refuse, and nothing
    /// else. A GPU that hangs looks alike each time, so that everything is read once when it begins to, and not each time.
    pub fn refresh_if_changed(&self) -> bool {
        let mut outline = self.outline.lock();
        let now = outline_of(&self.machine);
        if outline.as_ref() == Some(&now) && !self.a_broken_gpu_recovered() {
            return false;
        }
        *outline = Some(now);
        self.keep(discover(&self.machine, &self.roots.sys))
    }

    /// One GPU as it is now, MIG devices included.
    pub fn gpu(&self, uuid: &GpuUuid) -> Result<Gpu, GpuError> {
        Ok(complete(self.machine.gpu(GpuSelector::Uuid(uuid))?, &self.roots.sys))
    }

    /// Both settings of a GPU as they are now, where it has them.
    pub fn settings(&self, gpu: &GpuUuid) -> Result<GpuSettings, GpuError> {
        Ok(GpuSettings { compute_mode: self.machine.compute_mode(gpu)?, interval: self.machine.interval(gpu)? })
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

    pub(crate) fn machine(&self) -> &TimeoutMachine {
        &self.machine
    }

    pub(crate) fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Says whether the inventory changed.
    fn keep(&self, found: Inventory) -> bool {
        let inventory = remember(recognise(found, &self.latest()), &self.latest());
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

fn outline_of(machine: &TimeoutMachine) -> Outline {
    let driver = machine.driver()?;
    let count = machine.gpu_count()?;
    Ok((driver, (0..count).map(|index| machine.shape(index)).collect::<Result<_, _>>()?))
}
