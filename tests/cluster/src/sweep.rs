// SPDX-License-Identifier: Apache-2.0
//! Removes what is left of clusters whose watchdog was killed.

use crate::{
    cache,
    error::Result,
    run_dir::{self, RunDir},
    watchdog,
};
use std::fs::File;

/// Removes the leftovers of every cluster that nobody holds; returns their names.
pub fn sweep() -> Result<Vec<String>> {
    sweep_locked(&lock()?)
}

/// The lock under which clusters start and leftovers are removed.
pub(crate) fn lock() -> Result<File> {
    cache::lock(&run_dir::state_dir().join("lock"))
}

/// The same for a caller that holds the lock, which it shows.
pub(crate) fn sweep_locked(_lock: &File) -> Result<Vec<String>> {
    let mut swept = Vec::new();
    for dead in run_dir::all().iter().filter(|run_dir| !run_dir.is_held()) {
        watchdog::clean(dead)?;
        swept.push(name_of(dead));
    }
    Ok(swept)
}

fn name_of(run_dir: &RunDir) -> String {
    let name = run_dir.path().file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
