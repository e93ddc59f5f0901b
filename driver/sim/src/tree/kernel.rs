// SPDX-License-Identifier: Apache-2.0
//! What the kernel shows: `proc` and `sys` below the tree.
//!
//! In: the state. Out: the files of the NVIDIA module under `/proc/driver`, the device majors, the boot id, and the PCI
//! devices with vendor, class, NUMA node and the DRM devices of `nvidia-drm`. It writes only files that our driver or NVIDIA's tools read.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::catalog::Model;
use crate::state::{Gpu, State};

use super::devices::{MAJOR_CAPS, MAJOR_DRM, MAJOR_NVIDIA, MAJOR_UVM};
use super::files::{TreeError, link, remove, write_file};
use super::instances::{MINOR_MIG_CONFIG, MINOR_MIG_MONITOR, capability_minor};

/// Draws `proc` and `sys`.
pub fn draw(tree_dir: &Path, state: &State) -> Result<(), TreeError> {
    let proc_dir = tree_dir.join("proc");
    write_file(&proc_dir.join("devices"), devices_text(Module::Present).as_bytes())?;
    write_file(&proc_dir.join("sys/kernel/random/boot_id"), format!("{}\n", state.boot_id).as_bytes())?;
    let driver_dir = proc_dir.join("driver/nvidia");
    write_file(&driver_dir.join("version"), version_text(&state.driver_version).as_bytes())?;
    write_file(&driver_dir.join("params"), PARAMS.as_bytes())?;
    write_file(&proc_dir.join("driver/nvidia-caps/mig-minors"), mig_minors_text().as_bytes())?;
    for gpu in &state.gpus {
        if let Ok(model) = gpu.model() {
            let text = information_text(gpu, model, &state.driver_version);
            write_file(&driver_dir.join("gpus").join(gpu.pci.address()).join("information"), text.as_bytes())?;
            draw_pci(&tree_dir.join("sys"), gpu, model)?;
        }
    }
    Ok(())
}

/// Removes what vanishes with the module. Nodes in `dev` and the PCI devices stay, as on a real machine.
pub fn erase_driver(tree_dir: &Path, state: &State) -> Result<(), TreeError> {
    let proc_dir = tree_dir.join("proc");
    remove(&proc_dir.join("driver/nvidia"))?;
    remove(&proc_dir.join("driver/nvidia-caps"))?;
    for gpu in &state.gpus {
        remove(&pci_dir(&tree_dir.join("sys"), gpu).join("driver"))?;
    }
    write_file(&proc_dir.join("devices"), devices_text(Module::Absent).as_bytes())
}

#[derive(Clone, Copy)]
enum Module {
    Present,
    Absent,
}

fn devices_text(module: Module) -> String {
    let ours = match module {
        Module::Present => format!(
            "{MAJOR_NVIDIA} nvidia\n{MAJOR_NVIDIA} nvidia-modeset\n{MAJOR_NVIDIA} nvidiactl\n\
             {MAJOR_UVM} nvidia-uvm\n{MAJOR_CAPS} nvidia-caps\n"
        ),
        Module::Absent => String::new(),
    };
    format!("Character devices:\n  1 mem\n  5 /dev/tty\n136 pts\n{ours}\nBlock devices:\n259 blkext\n254 virtblk\n")
}

/// Distinguishes this tree from a real procfs.
pub(super) const MARK: &str = "gpu-sim";

fn version_text(version: &str) -> String {
    format!(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build  ({MARK})\nGCC version:  none\n"
    )
}

/// The parameters that tools read (`nvidia-modprobe` and the container toolkit read the first two).
const PARAMS: &str = "ModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 0\nDeviceFileMode: 438\n\
                      InitializeSystemMemoryAllocations: 1\nEnableMSI: 1\nEnablePCIeGen3: 0\n";

/// The static table: it lists every instance that could be, whether or not it exists.
fn mig_minors_text() -> String {
    let mut text = format!("config {MINOR_MIG_CONFIG}\nmonitor {MINOR_MIG_MONITOR}\n");
    for gpu in 0..32 {
        for instance in 0..15 {
            // Writing to a String cannot fail.
            writeln!(text, "gpu{gpu}/gi{instance}/access {}", capability_minor(gpu, instance, None)).ok();
            for compute in 0..8 {
                let minor = capability_minor(gpu, instance, Some(compute));
                writeln!(text, "gpu{gpu}/gi{instance}/ci{compute}/access {minor}").ok();
            }
        }
    }
    text
}

fn information_text(gpu: &Gpu, model: &Model, version: &str) -> String {
    format!(
        "Model: \t\t {}\nIRQ:   \t\t {}\nGPU UUID: \t {}\nVideo BIOS: \t {}\nBus Type: \t PCIe\nDMA Size: \t 47 bits\n\
         DMA Mask: \t 0x7fffffffffff\nBus Location: \t {}\nDevice Minor: \t {}\nGPU Firmware: \t {version}\nGPU Excluded:\t No\n",
        model.name,
        gpu.minor + 100,
        gpu.uuid,
        model.vbios.to_lowercase(),
        gpu.pci.address(),
        gpu.minor,
    )
}

fn pci_dir(sys_dir: &Path, gpu: &Gpu) -> PathBuf {
    sys_dir.join("devices").join(&gpu.pci.root).join(&gpu.pci.bridge).join(gpu.pci.address())
}

fn draw_pci(sys_dir: &Path, gpu: &Gpu, model: &Model) -> Result<(), TreeError> {
    let dir = pci_dir(sys_dir, gpu);
    let hex = |value: u32| format!("0x{value:04x}\n");
    let files = [
        ("vendor", hex(model.pci.device_id.0 & 0xffff)),
        ("device", hex(model.pci.device_id.0 >> 16)),
        ("subsystem_vendor", hex(model.pci.subsystem_id.0 & 0xffff)),
        ("subsystem_device", hex(model.pci.subsystem_id.0 >> 16)),
        ("class", format!("0x{:06x}\n", model.pci.class_id.0)),
        ("numa_node", format!("{}\n", gpu.numa_node)),
        ("local_cpulist", "0-1\n".to_owned()),
    ];
    for (name, text) in files {
        write_file(&dir.join(name), text.as_bytes())?;
    }
    for (name, minor) in
        [(format!("card{}", gpu.minor), gpu.minor), (format!("renderD{}", 128 + gpu.minor), 128 + gpu.minor)]
    {
        write_file(&dir.join("drm").join(name).join("dev"), format!("{MAJOR_DRM}:{minor}\n").as_bytes())?;
    }
    let address = gpu.pci.address();
    let bus_dir = sys_dir.join("bus/pci");
    link(&dir.join("driver"), Path::new("../../../../bus/pci/drivers/nvidia"))?;
    let target = Path::new("../../../devices").join(&gpu.pci.root).join(&gpu.pci.bridge).join(&address);
    link(&bus_dir.join("devices").join(&address), &target)?;
    link(&bus_dir.join("drivers/nvidia").join(&address), &Path::new("..").join(target))
}
