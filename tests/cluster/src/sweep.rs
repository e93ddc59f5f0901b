// SPDX-License-Identifier: Apache-2.0
//! Removes the leftovers of clusters whose watchdog was killed.

use crate::{
    cache,
    error::Result,
    run_dir::{self, RunDir},
    watchdog,
};
use std::fs::File;

/// Removes the leftovers of every cluster without a watchdog; returns the names of the clusters.
pub fn sweep() -> Result<Vec<String>> {
    sweep_locked(&lock()?)
}

/// The lock under which clusters start and leftovers are removed.
pub(crate) fn lock() -> Result<File> {
    cache::lock(&run_dir::state_dir().join("lock"))
}

/// `sweep` for a caller that holds the lock.
pub(crate) fn sweep_locked(_lock: &File) -> Result<Vec<String>> {
    let mut swept = Vec::new();
    for stopped in run_dir::all().iter().filter(|run_dir| !run_dir.is_held()) {
        watchdog::clean(stopped)?;
        swept.push(name_of(stopped));
    }
    Ok(swept)
}

fn name_of(run_dir: &RunDir) -> String {
    let name = run_dir.path().file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
