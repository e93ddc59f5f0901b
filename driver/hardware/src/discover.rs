// SPDX-License-Identifier: Apache-2.0
//! Discovers the GPUs of this node as an inventory.
//!
//! It queries a machine and sysfs. A GPU that does not respond becomes a broken entry with a reason and affects no other GPU; a
//! driver that does not respond becomes an inventory without a driver. It cannot fail and changes nothing.

use std::collections::BTreeSet;
use std::path::Path;

use dra_model::{DriverState, Fault, Gpu, GpuEntry, GpuUuid, Inventory, MigMode, PciAddress, chain};

use crate::machine::{GpuError, GpuFacts, GpuSelector, Machine, MachineError};
use crate::sysfs;

pub fn discover(machine: &dyn Machine, sys_root: &Path) -> Inventory {
    read(machine, sys_root).unwrap_or_else(|error| Inventory::without_driver(chain(&error).to_string()))
}

fn read(machine: &dyn Machine, sys_root: &Path) -> Result<Inventory, MachineError> {
    let versions = machine.driver()?;
    let count = machine.gpu_count()?;
    let gpus = (0..count).map(|index| entry(machine, sys_root, index)).collect::<Result<_, _>>()?;
    Ok(Inventory { driver: DriverState::Loaded { version: versions.driver, cuda: versions.cuda }, gpus })
}

fn entry(machine: &dyn Machine, sys_root: &Path, index: u32) -> Result<GpuEntry, MachineError> {
    match machine.gpu(GpuSelector::Index(index)) {
        Ok(facts) => Ok(GpuEntry::Good(complete(facts, sys_root))),
        Err(GpuError::Machine { source, .. }) => Err(source),
        Err(error) => Ok(broken(index, &error)),
    }
}

fn broken(index: u32, error: &GpuError) -> GpuEntry {
    let (uuid, pci) = match error {
        GpuError::Failed { uuid, pci, .. } | GpuError::UnexpectedValue { uuid, pci, .. } => (uuid.clone(), *pci),
        GpuError::Unsupported { gpu, .. } | GpuError::NotApplied { gpu, .. } | GpuError::Program { gpu, .. } => {
            (Some(gpu.clone()), None)
        }
        GpuError::NotFound { .. } | GpuError::OutOfTime { .. } | GpuError::Machine { .. } => (None, None),
    };
    let fault = match error {
        GpuError::Failed { code, .. } => code.fault(),
        GpuError::NotFound { .. }
        | GpuError::UnexpectedValue { .. }
        | GpuError::Unsupported { .. }
        | GpuError::NotApplied { .. }
        | GpuError::Program { .. }
        | GpuError::OutOfTime { .. }
        | GpuError::Machine { .. } => Fault::Failing,
    };
    GpuEntry::Broken { index, uuid, pci, reason: chain(error).to_string(), fault }
}

/// Adds the identity of broken GPUs that do not report it, from an earlier inventory of the same machine.
///
/// NVML counts in PCI order, so with the same number of GPUs a position means the same GPU, unless the earlier GPU is now at
/// another position.
pub fn recognise(mut now: Inventory, earlier: &Inventory) -> Inventory {
    if now.gpus.len() != earlier.gpus.len() {
        return now;
    }
    let elsewhere: BTreeSet<GpuUuid> = now.gpus.iter().filter_map(|entry| identity(entry).0).collect();
    for (entry, known) in now.gpus.iter_mut().zip(&earlier.gpus) {
        let (known_uuid, known_pci) = identity(known);
        match entry {
            GpuEntry::Broken { uuid: uuid @ None, pci, .. }
                if known_uuid.as_ref().is_some_and(|known| !elsewhere.contains(known)) =>
            {
                *uuid = known_uuid;
                *pci = pci.or(known_pci);
            }
            GpuEntry::Good(_) | GpuEntry::Broken { .. } => {}
        }
    }
    now
}

fn identity(entry: &GpuEntry) -> (Option<GpuUuid>, Option<PciAddress>) {
    match entry {
        GpuEntry::Good(gpu) => (Some(gpu.uuid.clone()), Some(gpu.pci)),
        GpuEntry::Broken { uuid, pci, .. } => (uuid.clone(), *pci),
    }
}

/// Completes GPUs with values from an earlier inventory of the same driver, for which they do not change. A value that is only
/// sometimes reported would otherwise change the published devices each time.
pub fn remember(mut now: Inventory, earlier: &Inventory) -> Inventory {
    if now.driver != earlier.driver {
        return now;
    }
    for entry in &mut now.gpus {
        if let GpuEntry::Good(gpu) = entry
            && let Some(known) = earlier.gpu(&gpu.uuid)
        {
            remember_gpu(gpu, known);
        }
    }
    now
}

fn remember_gpu(gpu: &mut Gpu, known: &Gpu) {
    gpu.product_name = gpu.product_name.take().or_else(|| known.product_name.clone());
    gpu.addressing_mode = gpu.addressing_mode.take().or_else(|| known.addressing_mode.clone());
    gpu.compute_capability = gpu.compute_capability.or(known.compute_capability);
    if gpu.memory.is_none() {
        (gpu.memory, gpu.reserved) = (known.memory, known.reserved);
    }
    match &mut gpu.mig {
        MigMode::On { layout, .. } => *layout = layout.or(known.mig_layout()),
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
