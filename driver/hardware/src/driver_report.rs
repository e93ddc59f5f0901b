// SPDX-License-Identifier: Apache-2.0
//! What a driver root has of the files that containers can get, and what it lacks, for administrators.

use std::path::{Path, PathBuf};

use crate::driver_files::{DriverFilesError, installed, open, search};
use crate::driver_rules::{RULES, Rule};
use crate::elf::ElfError;

/// The files of one version of the driver, rule by rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverReport {
    pub version: String,
    /// In the order of the rules.
    pub entries: Vec<DriverReportEntry>,
}

/// One rule and its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverReportEntry {
    pub rule: &'static Rule,
    /// Real paths on the host; empty if there is none.
    pub found: Vec<PathBuf>,
    /// Files that are no libraries, with the reason.
    pub unusable: Vec<(PathBuf, ElfError)>,
}

/// Searches as for a claim, but a missing file is an entry and no error. Without `libnvidia-ml.so.1` there is no version.
pub(crate) fn report(root: &Path, root_on_host: &Path, loaded: Option<&str>) -> Result<DriverReport, DriverFilesError> {
    let opened = open(root)?;
    let installed = installed(&opened, loaded)?;
    let search = search(&opened, &installed)?;
    let found = |rule: &'static Rule| {
        let hits = search.hits().filter(|hit| hit.rule == rule).map(|hit| root_on_host.join(&hit.path));
        let unusable = search.left_out().iter().filter(|file| file.rule == rule);
        let unusable = unusable.map(|file| (root_on_host.join(&file.path), file.why)).collect();
        DriverReportEntry { rule, found: hits.collect(), unusable }
    };
    let entries = RULES.iter().map(found).collect();
    Ok(DriverReport { version: installed.version.clone(), entries })
}
