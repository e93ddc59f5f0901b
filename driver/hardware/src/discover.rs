// SPDX-License-Identifier: Apache-2.0
//! Discovers the GPUs of this node as an inventory.
//!
//! It queries a machine and sysfs. A GPU that does not respond becomes an entry with a failure and affects no other GPU; a driver
//! that does not respond becomes an inventory without a driver. It cannot fail and changes nothing. One inventory knows nothing
//! about a GPU that does not respond; [`with_earlier`] adds what an earlier one knew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dra_model::{DriverState, Failure, Fault, Gpu, GpuEntry, GpuUuid, Inventory, MigMode, chain};

use crate::gpu_error::{GpuError, MachineError};
use crate::machine::{GpuFacts, GpuSelector, Machine};
use crate::sysfs;

pub fn discover(machine: &dyn Machine, sys_root: &Path) -> Inventory {
    read(machine, sys_root).unwrap_or_else(|error| Inventory::without_driver(chain(&error).to_string()))
}

fn read(machine: &dyn Machine, sys_root: &Path) -> Result<Inventory, MachineError> {
    let versions = machine.driver()?;
    let count = machine.gpu_count()?;
    let gpus = (0..count).map(|index| entry(machine, sys_root, index)).collect::<Result<_, _>>()?;
    let driver = DriverState::Loaded { version: versions.driver, cuda: versions.cuda };
    Ok(Inventory { driver, gpus, findings: BTreeMap::new() })
}

fn entry(machine: &dyn Machine, sys_root: &Path, index: u32) -> Result<GpuEntry, MachineError> {
    match machine.gpu(GpuSelector::Index(index)) {
        Ok(facts) => Ok(GpuEntry::usable(complete(facts, sys_root))),
        Err(GpuError::Machine { source, .. }) => Err(source),
        Err(error) => Ok(unidentified(index, &error)),
    }
}

fn unidentified(index: u32, error: &GpuError) -> GpuEntry {
    let (uuid, pci) = match error {
        GpuError::Failed { uuid, pci, .. } | GpuError::UnexpectedValue { uuid, pci, .. } => (uuid.clone(), *pci),
        GpuError::Unsupported { gpu, .. }
        | GpuError::NotApplied { gpu, .. }
        | GpuError::MigModePending { gpu, .. }
        | GpuError::Program { gpu, .. } => (Some(gpu.clone()), None),
        GpuError::NotFound { .. } | GpuError::OutOfTime { .. } | GpuError::Machine { .. } => (None, None),
    };
    let fault = match error {
        GpuError::Failed { code, .. } => code.fault(),
        GpuError::NotFound { .. }
        | GpuError::UnexpectedValue { .. }
        | GpuError::Unsupported { .. }
        | GpuError::NotApplied { .. }
        | GpuError::MigModePending { .. }
        | GpuError::Program { .. }
        | GpuError::OutOfTime { .. }
        | GpuError::Machine { .. } => Fault::Failing,
    };
    GpuEntry::Unidentified { index, uuid, pci, failure: Failure { reason: chain(error).to_string(), fault } }
}

/// Adds what an earlier inventory of the same machine knew: all about a GPU that cannot be read now, and values of the others that
/// NVML reports only sometimes.
///
/// With another driver, only the identity of a GPU is the same.
pub fn with_earlier(mut now: Inventory, earlier: &Inventory) -> Inventory {
    let same_driver = now.driver == earlier.driver;
    let same_places = now.gpus.len() == earlier.gpus.len();
    let present: BTreeSet<GpuUuid> = now.gpus.iter().filter_map(GpuEntry::uuid).cloned().collect();
    for (index, entry) in now.gpus.iter_mut().enumerate() {
        let uuid = entry.uuid().cloned();
        // NVML counts in PCI order, so with the same number of GPUs a position means the same GPU, unless the earlier GPU is
        // now at another position.
        let at_place = || {
            earlier
                .gpus
                .get(index)
                .filter(|known| same_places && !known.uuid().is_some_and(|uuid| present.contains(uuid)))
        };
        let known = match &uuid {
            Some(uuid) => earlier.gpus.iter().find(|known| known.uuid() == Some(uuid)),
            None => at_place(),
        };
        if let Some(known) = known {
            add_known(entry, known, same_driver);
        }
    }
    now
}

fn add_known(entry: &mut GpuEntry, known: &GpuEntry, same_driver: bool) {
    match (&mut *entry, known) {
        (GpuEntry::Known { gpu, .. }, GpuEntry::Known { gpu: known, .. }) if same_driver => remember_gpu(gpu, known),
        (GpuEntry::Known { .. }, _) => {}
        (GpuEntry::Unidentified { failure, .. }, GpuEntry::Known { gpu, .. }) if same_driver => {
            *entry = GpuEntry::unusable(gpu.clone(), failure.clone());
        }
        (GpuEntry::Unidentified { uuid, pci, .. }, _) => {
            *uuid = uuid.take().or_else(|| known.uuid().cloned());
            *pci = pci.or(known.pci());
        }
    }
}

fn remember_gpu(gpu: &mut Gpu, known: &Gpu) {
    gpu.product_name = gpu.product_name.take().or_else(|| known.product_name.clone());
    gpu.addressing_mode = gpu.addressing_mode.take().or_else(|| known.addressing_mode.clone());
    gpu.compute_capability = gpu.compute_capability.or(known.compute_capability);
    if gpu.memory.is_none() {
        (gpu.memory, gpu.reserved) = (known.memory, known.reserved);
    }
    match &mut gpu.mig {
        MigMode::On { layout, .. } => *layout = layout.take().or_else(|| known.mig_layout().cloned()),
        MigMode::Off(_) | MigMode::Unsupported => {}
    }
}

/// Adds the values of sysfs to those of NVML.
pub fn complete(facts: GpuFacts, sys_root: &Path) -> Gpu {
    Gpu {
        uuid: facts.uuid,
        minor: facts.minor,
        pci: facts.pci,
        pcie_root: sysfs::pcie_root(sys_root, facts.pci),
        numa_node: sysfs::numa_node(sys_root, facts.pci),
        product_name: facts.product_name,
        brand: facts.brand,
        architecture: facts.architecture,
        compute_capability: facts.compute_capability,
        memory: facts.memory,
        reserved: facts.reserved,
        addressing_mode: facts.addressing_mode,
        mig: facts.mig,
    }
}
