// SPDX-License-Identifier: Apache-2.0
//! The files of the driver as text: by capability, what was found and what is missing, and where it was searched. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use dra_hardware::{DriverReport, DriverReportEntry, Files};
use dra_model::{Capabilities, Capability};

/// One section for each capability, and the directories.
pub fn driver_text(report: &DriverReport, capabilities: &Capabilities) -> String {
    let mut text = format!("NVIDIA driver {}\n", report.version);
    for capability in capabilities.iter() {
        write!(text, "\n{capability}\n").ok();
        let entries = report.entries.iter().filter(|entry| is_listed_with(entry, capability, capabilities));
        for line in entries.flat_map(|entry| lines(entry, &report.version)) {
            writeln!(text, "  {line}").ok();
        }
    }
    let mut dirs: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
    for entry in report.entries.iter().filter(|entry| capabilities.intersects(entry.rule.capabilities)) {
        dirs.entry(kind(entry.rule.files)).or_insert_with(|| entry.rule.dirs());
    }
    text.push_str("\nsearched below the driver root\n");
    for (kind, dirs) in dirs {
        let dirs: Vec<String> = dirs.iter().map(|dir| format!("/{}", dir.display())).collect();
        writeln!(text, "  {kind}: {}", dirs.join(", ")).ok();
    }
    text
}

/// A file of several capabilities is listed with the first of those that are selected.
fn is_listed_with(entry: &DriverReportEntry, capability: Capability, selected: &Capabilities) -> bool {
    entry.rule.capabilities.iter().find(|one| selected.contains(**one)) == Some(&capability)
}

fn lines(entry: &DriverReportEntry, version: &str) -> Vec<String> {
    let found = entry.found.iter().map(|path| format!("found    {}", path.display()));
    let unusable = entry.unusable.iter().map(|(path, why)| format!("unusable {}: {why}", path.display()));
    let lines: Vec<String> = found.chain(unusable).collect();
    if !lines.is_empty() {
        return lines;
    }
    let (name, package) = (entry.rule.file_name(version), entry.rule.package);
    vec![match (entry.rule.files, entry.rule.only) {
        (_, Some(only)) => format!("absent   {name}: only {only} have it (package {package})"),
        (Files::Socket(_), None) => format!("absent   {name}: the daemon does not run (package {package})"),
        (_, None) => format!("missing  {name}: usually in the Debian package {package}"),
    }]
}

const fn kind(files: Files) -> &'static str {
    match files {
        Files::Library(_) | Files::Libraries(_) | Files::Independent(_) | Files::Fixed(_) | Files::Module { .. } => {
            "libraries"
        }
        Files::Program(_) => "programs",
        Files::XModule { .. } => "modules of the X server",
        Files::Data { .. } => "data",
        Files::Firmware => "firmware",
        Files::Socket(_) => "sockets",
    }
}

#[cfg(test)]
mod tests {
    use dra_hardware::RULES;

    use super::*;

    fn report() -> DriverReport {
        let found = |name: &str| -> Vec<PathBuf> {
            let is_there = name.starts_with("libcuda.so") || name == "nvidia-smi";
            is_there.then(|| PathBuf::from("/usr/lib64").join(name)).into_iter().collect()
        };
        let entries = RULES.iter().map(|rule| {
            let found = found(&rule.file_name("550.54.15"));
            DriverReportEntry { rule, found, unusable: Vec::new() }
        });
        DriverReport { version: "550.54.15".to_owned(), entries: entries.collect() }
    }

    #[test]
    fn every_expected_file_is_found_or_missing_with_the_package_that_brings_it() {
        let text = driver_text(&report(), &Capabilities::of([Capability::Compute, Capability::Ipc]).unwrap());
        for expect in [
            "NVIDIA driver 550.54.15\n\ncompute\n  found    /usr/lib64/libcuda.so.550.54.15\n",
            "\n  missing  libnvidia-ptxjitcompiler.so.550.54.15: usually in the Debian package libnvidia-ptxjitcompiler1\n",
            "\n  absent   libnvidia-tileiras.so.550.54.15: only R590 and later versions have it (package libnvidia-tileiras)\n",
            "\n  missing  OpenCL/vendors/nvidia.icd: usually in the Debian package nvidia-opencl-common\n",
            "\nipc\n  absent   nvidia-persistenced/socket: the daemon does not run (package nvidia-persistenced)\n",
            "\n  libraries: /usr/lib64, /usr/lib64/nvidia/current, ",
            "\n  sockets: /run, /var/run\n",
        ] {
            assert!(text.contains(expect), "{expect} in\n{text}");
        }
        assert!(!text.contains("/nvidia-smi") && !text.contains("X server"), "{text}");
    }

    #[test]
    fn no_file_is_left_out() {
        let text = driver_text(&report(), &Capabilities::of(Capability::ALL).unwrap());
        for rule in RULES {
            let name = rule.file_name("550.54.15");
            let (missing, found) = (format!(" {name}: "), format!("/{name}"));
            let is_about = |line: &&str| line.contains(&missing) || line.ends_with(&found);
            assert_eq!(text.lines().filter(is_about).count(), 1, "{name}");
        }
    }
}
