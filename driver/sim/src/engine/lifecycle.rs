// SPDX-License-Identifier: Apache-2.0
//! GPU reset, driver reload and reboot, and the state that survives each of them.
//!
//! Sources: NVIDIA MIG user guide (instances never survive a reset or reboot; Ampere stores the mode in the board, Hopper and
//! later in the driver). The driver stores compute mode and time-slice.

use crate::Code;
use crate::catalog::Model;
use crate::state::{ComputeMode, Driver, Gpu, MigMode, State, boot_id};

impl State {
    /// `nvidia-smi --gpu-reset`: `IN_USE` while clients hold the GPU. A pending MIG mode becomes active.
    pub fn reset_gpu(&mut self, index: usize) -> Result<(), Code> {
        let gpu = self.gpus.get_mut(index).ok_or(Code::INVALID_ARGUMENT)?;
        if gpu.is_in_use() {
            return Err(Code::IN_USE);
        }
        gpu.instances.clear();
        gpu.lost = false;
        gpu.recovery_action = 0;
        gpu.mig = gpu.mig.map(|mig| MigMode { current: mig.pending, ..mig });
        self.effects += 1;
        self.report_mig_change(index);
        Ok(())
    }

    /// The machine reboots: another boot ID, the driver is loaded, its state is lost.
    pub fn reboot(&mut self) {
        self.boots += 1;
        self.boot_id = boot_id(&self.seed, self.boots);
        self.unload_driver();
        self.driver = Driver::Loaded;
    }

    /// `rmmod nvidia`, also what a driver container does when it stops.
    pub fn unload_driver(&mut self) {
        self.driver = Driver::Unloaded;
        self.events.clear();
        for gpu in &mut self.gpus {
            forget(gpu);
        }
    }

    /// `modprobe nvidia`, with another version after an upgrade.
    pub fn load_driver(&mut self, version: Option<&str>) {
        self.driver = Driver::Loaded;
        if let Some(version) = version {
            version.clone_into(&mut self.driver_version);
        }
    }
}

fn forget(gpu: &mut Gpu) {
    let survives = gpu.model().ok().and_then(|model| model.mig.as_ref()).is_some_and(|mig| mig.survives_reboot);
    gpu.mig = gpu.mig.map(|mig| {
        let on = survives && mig.pending;
        MigMode { current: on, pending: on }
    });
    gpu.instances.clear();
    gpu.compute_mode = ComputeMode::Default;
    gpu.persistence = gpu.model().is_ok_and(Model::persists_after_boot);
    gpu.time_slice = 0;
    gpu.lost = false;
    gpu.clients = 0;
    gpu.processes.clear();
    gpu.recovery_action = 0;
}
