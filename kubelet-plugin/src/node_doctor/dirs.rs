// SPDX-License-Identifier: Apache-2.0
//! The directories of the plugin: writable, with space, and without damaged records.

use std::path::Path;
use std::sync::Arc;

use dra_checkpoint::RecordStore;
use dra_files::HostFiles;
use dra_model::node_check::{Check, Problem};
use rustix::fs::{Access, access, statvfs};
use rustix::io::Errno;

use super::problem::error;
use crate::host_args::StateArgs;

/// What the records and specs of a full node take many times.
const MIN_FREE_BYTES: u64 = 16 << 20;

pub(super) fn checks(state: &StateArgs, driver_name: &str, hook_dir: Option<&Path>) -> Vec<Check> {
    let plugin_dir = state.plugin_dir(driver_name);
    let mut checks = vec![
        dir(
            "CDI directory",
            &state.cdi_root,
            "set cdiRoot of the chart to a directory of cdi_spec_dirs of the container runtime",
        ),
        dir("directory of the plugin", &plugin_dir, "set kubeletRootDir of the chart to --root-dir of the kubelet"),
    ];
    checks.extend(hook_dir.map(|dir| hook(&dir.join(driver_name))));
    checks.push(records(&plugin_dir));
    checks
}

fn dir(subject: &str, path: &Path, fix: &str) -> Check {
    let name = path.display();
    if let Err(failed) = access(path, Access::WRITE_OK) {
        let cause = format!("{name} cannot be written: {}", std::io::Error::from(failed));
        return Check::bad(subject, Problem::error(cause, fix));
    }
    match statvfs(path) {
        Ok(space) if space.f_bavail.saturating_mul(space.f_frsize) < MIN_FREE_BYTES => {
            let free = space.f_bavail.saturating_mul(space.f_frsize) >> 10;
            let cause = format!("the file system of {name} has {free} KiB left");
            Check::bad(
                subject,
                Problem::error(cause, "free space there: claims are prepared only after their record is on disk"),
            )
        }
        Ok(space) if space.f_files > 0 && space.f_favail == 0 => {
            let cause = format!("the file system of {name} has no inode left");
            Check::bad(subject, Problem::error(cause, "remove files there"))
        }
        Ok(_) | Err(_) => Check::good(subject, format!("{name} can be written")),
    }
}

/// A copy of the hook program has the checksum of its content in its name.
fn hook(dir: &Path) -> Check {
    let subject = "hook program";
    let fix = "set cdiHook.directory of the chart to a directory of a file system that allows execution, or cdiHook.enabled=false";
    let programs: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    let name = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("gpu-cdi-hook-"));
    let Some(program) = programs.iter().find(|path| name(path)) else {
        let cause = format!("{} has no hook program", dir.display());
        return Check::bad(
            subject,
            Problem::warning(cause, "the log of the container `plugin` has why it is not installed"),
        );
    };
    match access(program, Access::EXEC_OK) {
        Err(Errno::ACCESS) => {
            let cause = format!("{} cannot be executed: its file system forbids it", program.display());
            Check::bad(subject, Problem::warning(cause, fix))
        }
        Ok(()) | Err(_) => Check::good(subject, program.display().to_string()),
    }
}

fn records(plugin_dir: &Path) -> Check {
    let subject = "claim records";
    let store = RecordStore::for_reading(Arc::new(HostFiles), plugin_dir);
    let (quarantined, listing) = (store.all_quarantined(), store.list());
    match (quarantined, listing) {
        (Ok(quarantined), Ok(listing)) => {
            let problems = quarantined.iter().map(|one| {
                let cause = format!("{} is damaged, and the devices that it names stay reserved", one.path.display());
                let fix = "delete the pods of that claim; if the claim no longer exists, delete the file";
                Problem::warning(cause, fix)
            });
            let found = format!("{} claims are prepared", listing.records.len());
            Check { subject: subject.to_owned(), found, problems: problems.collect() }
        }
        (Err(failed), _) | (_, Err(failed)) => Check::bad(subject, error(&failed, "make the directory readable")),
    }
}
