// SPDX-License-Identifier: Apache-2.0
//! The files that follow MIG instances: `capabilities/gpuN/mig/giM[/ciK]/access` and `dev/nvidia-caps/nvidia-capX`.
//!
//! In: the state after a change. Out: exactly the files of the instances that exist. On a real machine the procfs part is
//! the kernel's and the nodes are made by `nvidia-modprobe`; here both come with the change.
//! Minors: open-gpu-kernel-modules, kernel-open/nvidia/nv-caps.c.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::state::{Driver, State};

use super::devices::{self, MAJOR_CAPS};
use super::files::{TreeError, list, make_dir, remove, write_file};

/// Minor of `mig/config`.
pub const MINOR_MIG_CONFIG: u32 = 1;
/// Minor of `mig/monitor`.
pub const MINOR_MIG_MONITOR: u32 = 2;

/// Minor of the capability of a GPU instance, or of a compute instance in it.
pub const fn capability_minor(gpu_minor: u32, gpu_instance: u32, compute_instance: Option<u32>) -> u32 {
    let instance = 3 + gpu_minor * 135 + gpu_instance * 9;
    match compute_instance {
        None => instance,
        Some(compute) => instance + 1 + compute,
    }
}

/// Makes files and nodes of instances that are new.
pub fn draw_new(tree_dir: &Path, state: &State) -> Result<(), TreeError> {
    if state.driver == Driver::Unloaded {
        return Ok(());
    }
    let (capabilities_dir, caps_dir) = dirs(tree_dir);
    make_dir(&caps_dir)?;
    for gpu in state.gpus.iter().filter(|gpu| gpu.mig.is_some()) {
        make_dir(&capabilities_dir.join(format!("gpu{}/mig", gpu.minor)))?;
    }
    for (access, minor) in wanted(state) {
        let mode = if minor == MINOR_MIG_CONFIG { 0o400 } else { 0o444 };
        let text = format!("DeviceFileMinor: {minor}\nDeviceFileMode: {mode}\nDeviceFileModify: 1\n");
        write_file(&capabilities_dir.join(access), text.as_bytes())?;
        devices::make(&caps_dir.join(format!("nvidia-cap{minor}")), MAJOR_CAPS, minor, mode)?;
    }
    Ok(())
}

/// Removes files and nodes of instances that are gone.
pub fn erase_gone(tree_dir: &Path, state: &State) -> Result<(), TreeError> {
    if state.driver == Driver::Unloaded {
        return Ok(());
    }
    let (capabilities_dir, caps_dir) = dirs(tree_dir);
    let wanted = wanted(state);
    for gpu in state.gpus.iter().filter(|gpu| gpu.mig.is_some()) {
        drop_missing(&capabilities_dir, &capabilities_dir.join(format!("gpu{}/mig", gpu.minor)), &wanted)?;
    }
    drop_nodes(&caps_dir, &wanted)
}

fn dirs(tree_dir: &Path) -> (PathBuf, PathBuf) {
    (tree_dir.join("proc/driver/nvidia/capabilities"), tree_dir.join("dev/nvidia-caps"))
}

/// Every `access` file below `capabilities`, with its minor.
fn wanted(state: &State) -> BTreeMap<PathBuf, u32> {
    let mut files = BTreeMap::new();
    files.insert(PathBuf::from("mig/config"), MINOR_MIG_CONFIG);
    files.insert(PathBuf::from("mig/monitor"), MINOR_MIG_MONITOR);
    for gpu in &state.gpus {
        for (&id, instance) in &gpu.instances {
            let dir = PathBuf::from(format!("gpu{}/mig/gi{id}", gpu.minor));
            files.insert(dir.join("access"), capability_minor(gpu.minor, id, None));
            for &compute in instance.compute.keys() {
                let minor = capability_minor(gpu.minor, id, Some(compute));
                files.insert(dir.join(format!("ci{compute}/access")), minor);
            }
        }
    }
    files
}

/// Removes the directories of instances without an `access` file to be.
fn drop_missing(capabilities_dir: &Path, dir: &Path, wanted: &BTreeMap<PathBuf, u32>) -> Result<(), TreeError> {
    for path in list(dir)?.into_iter().filter(|path| path.is_dir()) {
        let access = path.join("access");
        let known = access.strip_prefix(capabilities_dir).is_ok_and(|access| wanted.contains_key(access));
        if known {
            drop_missing(capabilities_dir, &path, wanted)?;
        } else {
            remove(&path)?;
        }
    }
    Ok(())
}

fn drop_nodes(caps_dir: &Path, wanted: &BTreeMap<PathBuf, u32>) -> Result<(), TreeError> {
    for path in list(caps_dir)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let minor = name.strip_prefix("nvidia-cap").and_then(|minor| minor.parse::<u32>().ok());
        if minor.is_some_and(|minor| !wanted.values().any(|&wanted| wanted == minor)) {
            remove(&path)?;
        }
    }
    Ok(())
}
