// SPDX-License-Identifier: Apache-2.0
//! The driver root, NVML, the device nodes and the NVLink fabric.

use std::path::Path;

use dra_hardware::{DeviceIds, DriverFilesError, DriverReport, Files, Host, procfs};
use dra_model::node_check::{Check, Problem};
use dra_model::{DriverState, Gpu, GpuEntry, Inventory};

use super::problem::error;
use crate::host_args::HostArgs;

/// What the node needs of the NVIDIA driver. A node without GPU and driver is well.
pub(super) fn checks(host: &Host, args: &HostArgs, inventory: &Inventory) -> Vec<Check> {
    let kernel_module = procfs::loaded_driver(&args.proc_root);
    let report = host.driver_report();
    if let (Err(DriverFilesError::NoLibrary { .. }), None) = (&report, &kernel_module) {
        return vec![no_driver(args)];
    }
    let mut checks = vec![driver_root(host, args, report.as_ref(), kernel_module.as_deref())];
    checks.push(nvml(inventory));
    if matches!(inventory.driver, DriverState::Loaded { .. }) {
        checks.push(device_nodes(host, inventory));
        checks.extend(fabric(host, inventory, report.as_ref().ok()));
    }
    checks
}

fn no_driver(args: &HostArgs) -> Check {
    let subject = "NVIDIA driver";
    match gpus_on_pci(&args.sys_root) {
        0 => Check::good(subject, "none, as the node has no GPU of NVIDIA"),
        count => {
            let root = args.driver_root_host.display();
            let cause = format!(
                "the node has {count} GPUs of NVIDIA on its PCI bus, but no kernel module of the driver is loaded, and {root} has no libraries"
            );
            let fix =
                "install the NVIDIA driver on the node, and set driver.root of the chart to the directory that has it";
            Check::bad(subject, Problem::error(cause, fix))
        }
    }
}

/// Display controllers of the vendor NVIDIA (PCI code and ID assignment: class 03, vendor 10de).
fn gpus_on_pci(sys_root: &Path) -> usize {
    let devices = std::fs::read_dir(sys_root.join("bus/pci/devices")).into_iter().flatten().flatten();
    let has = |dir: &Path, file: &str, start: &str| {
        std::fs::read_to_string(dir.join(file)).is_ok_and(|text| text.starts_with(start))
    };
    devices.map(|entry| entry.path()).filter(|dir| has(dir, "vendor", "0x10de") && has(dir, "class", "0x03")).count()
}

/// The files of the driver, of one version with the kernel module.
fn driver_root(
    host: &Host,
    args: &HostArgs,
    report: Result<&DriverReport, &DriverFilesError>,
    kernel_module: Option<&str>,
) -> Check {
    let (subject, root) = ("driver root", args.driver_root_host.display());
    let named = |mut problem: Problem| {
        problem.cause = format!("driver.root is {root} on the node: {}", problem.cause);
        problem
    };
    let fix = "set driver.root of the chart to the directory that has the NVIDIA driver of the node";
    let report = match report {
        Ok(report) => report,
        Err(failed) => return Check::bad(subject, named(error(failed, fix))),
    };
    if let Some(module) = kernel_module.filter(|module| *module != report.version) {
        let cause =
            format!("the kernel module is of version {module}, the libraries below {root} are of {}", report.version);
        let fix = "install both of one version and reboot the node, or set driver.root to the libraries of the module";
        return Check::bad(subject, Problem::error(cause, fix));
    }
    match host.driver_files() {
        Ok(files) => {
            let found = format!("NVIDIA driver {} below {root}, {} libraries", files.version, files.libraries.len());
            Check::good(subject, found)
        }
        Err(failed) => Check::bad(subject, named(error(&failed, fix))),
    }
}

fn nvml(inventory: &Inventory) -> Check {
    let subject = "NVML";
    if let DriverState::Missing { reason } = &inventory.driver {
        let fix =
            "see the driver root above; if it is right, `nvidia-smi` on the node names what the kernel module lacks";
        return Check::bad(subject, Problem::error(format!("no NVIDIA driver answers: {reason}"), fix));
    }
    let failing = inventory.gpus.iter().filter_map(|entry| Some((entry, entry.failure()?)));
    let problems = failing.map(|(entry, failure)| {
        let name = entry.uuid().map(ToString::to_string).or_else(|| entry.pci().map(|pci| pci.to_string()));
        let name = name.unwrap_or_else(|| "without UUID".to_owned());
        let fix =
            "`nvidia-smi` and Xid messages in the kernel log of the node have more; reset the GPU or reboot the node";
        Problem::error(format!("GPU {name} cannot be read: {}", failure.reason), fix)
    });
    let problems = problems.collect();
    Check { subject: subject.to_owned(), found: format!("{} GPUs", inventory.gpus.len()), problems }
}

fn usable(inventory: &Inventory) -> impl Iterator<Item = &Gpu> {
    inventory.gpus.iter().filter_map(|entry| match entry {
        GpuEntry::Known { gpu, .. } if entry.failure().is_none() => Some(gpu),
        GpuEntry::Known { .. } | GpuEntry::Unidentified { .. } => None,
    })
}

fn device_nodes(host: &Host, inventory: &Inventory) -> Check {
    let fix = "run `nvidia-smi` on the node, which creates them";
    let control = host.control_nodes().err().map(|failed| error(&failed, fix));
    let of_gpus = usable(inventory).filter_map(|gpu| host.device_nodes(DeviceIds::Gpu { minor: gpu.minor }).err());
    let problems: Vec<Problem> = control.into_iter().chain(of_gpus.map(|failed| error(&failed, fix))).collect();
    let found = if problems.is_empty() { "all there" } else { "" };
    Check { subject: "device nodes".to_owned(), found: found.to_owned(), problems }
}

/// Only GPUs with NVSwitches have one.
fn fabric(host: &Host, inventory: &Inventory, report: Option<&DriverReport>) -> Option<Check> {
    let pending = usable(inventory).filter(|gpu| host.condition(&gpu.uuid).is_ok_and(|found| found.is_fabric_pending));
    let pending: Vec<String> = pending.map(|gpu| gpu.uuid.to_string()).collect();
    if pending.is_empty() {
        return None;
    }
    let sockets = report.into_iter().flat_map(|report| &report.entries);
    let is_running = sockets.into_iter().any(|entry| {
        matches!(entry.rule.files, Files::Socket(path) if path.contains("fabricmanager")) && !entry.found.is_empty()
    });
    let manager = if is_running { "its socket is there" } else { "its socket is missing" };
    let cause = format!("no NVLink fabric on {}; the fabric manager: {manager}", pending.join(", "));
    let fix = "start nvidia-fabricmanager of the version of the driver on the node, and look at its log";
    Some(Check::bad("NVLink fabric", Problem::error(cause, fix)))
}
