// SPDX-License-Identifier: Apache-2.0
//! Notes on a mig-parted configuration: what has no equivalent in this driver, or another one than its name suggests.
//!
//! Configurations repeat their entries, so a note is printed once, with the paths of all keys that it is about.

use dra_mig_parted::Limit;
use dra_mig_parted::device_id::DeviceId;
use dra_resource::DriverName;

use crate::warnings::{self, Warning};

/// Paths that a note names.
const MAX_PATHS: usize = 3;

/// Texts, each with its paths.
#[derive(Debug, Default)]
pub struct Notes(Vec<(String, Vec<String>)>);

impl Notes {
    fn add(&mut self, path: &str, text: String) {
        match self.0.iter_mut().find(|(other, _)| *other == text) {
            Some((_, paths)) => paths.push(path.to_owned()),
            None => self.0.push((text, vec![path.to_owned()])),
        }
    }

    pub fn into_warnings(self) -> Vec<Warning> {
        self.0.into_iter().map(|(text, paths)| warnings::warning(&joined(&paths), text)).collect()
    }

    /// Counts of MIG devices.
    pub fn counts(&mut self, path: &str) {
        let text = "the counts and the node label nvidia.com/mig.config are not imported: this driver creates a MIG device when a pod that \
                    claims it starts; to divide GPUs as configured, set the chart's `mig.static.file` and `mig.static.config`";
        self.add(path, text.to_owned());
    }

    /// The printed classes.
    pub fn classes(&mut self, path: &str) {
        let text = "the printed classes have the names of those that the chart's `deviceClasses.mig.profiles` and the chart's \
                    `deviceClasses.mig.models` create: apply them, or set these values, not both";
        self.add(path, text.to_owned());
    }

    /// `mig-enabled: false`.
    pub fn whole_gpus(&mut self, path: &str) {
        let text =
            "these GPUs stay whole: claims request them with class gpu.nvidia.com, as the printed template gpu does";
        self.add(path, text.to_owned());
    }

    /// MIG mode without MIG devices.
    pub fn no_devices(&mut self, path: &str) {
        self.add(path, "MIG mode without MIG devices has no equivalent: nothing is printed for this entry".to_owned());
    }

    /// `devices` with indexes.
    pub fn indexes(&mut self, limit: &Limit<u64>, driver: &DriverName) {
        let text = format!(
            "{:?} selects GPUs of a node by index, which is not imported: the printed classes are for all GPUs of the cluster; a claim can \
             select a GPU by its attributes, such as device.attributes[\"{driver}\"].productName",
            limit.values
        );
        self.add(&limit.path, text);
    }

    /// `device-filter`.
    pub fn filter(&mut self, limit: &Limit<DeviceId>, driver: &DriverName) {
        let ids: Vec<String> = limit.values.iter().map(|id| format!("\"{id}\"")).collect();
        let text = format!(
            "{} selects GPU models by PCI device id, which is not imported: the printed classes are for all GPUs of the cluster; a class \
             or a claim can select a model with device.attributes[\"{driver}\"].productName == \"NAME\"",
            ids.join(", ")
        );
        self.add(&limit.path, text);
    }

    /// A compute instance that is smaller than its GPU instance.
    pub fn part(&mut self, path: &str) {
        let text = "a compute instance that is smaller than its GPU instance: this driver creates none for a claim, and publishes one that an \
                    administrator or the chart's `mig.static.file` creates";
        self.add(path, text.to_owned());
    }

    /// A profile that no device has.
    pub fn not_published(&mut self, path: &str, profile: &str, published: &str) {
        self.add(path, warnings::profile_not_published(path, profile, published).text);
    }

    /// A flag about shares.
    pub fn flag_without_effect(&mut self, flag: &str) {
        self.add(flag, "no effect on MIG devices, only on shares of GPUs".to_owned());
    }
}

/// The first paths and the number of the others.
fn joined(paths: &[String]) -> String {
    let (named, others) = paths.split_at(paths.len().min(MAX_PATHS));
    let named = named.join(", ");
    if others.is_empty() { named } else { format!("{named} and {} more", others.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_printed_once_with_its_paths() {
        let mut notes = Notes::default();
        for path in ["a", "b", "c", "d", "e"] {
            notes.whole_gpus(path);
        }
        notes.counts("a");
        let printed: Vec<String> = notes.into_warnings().iter().map(ToString::to_string).collect();
        assert_eq!(printed.len(), 2);
        assert!(printed[0].starts_with("a, b, c and 2 more: these GPUs"), "{printed:?}");
        assert!(printed[1].starts_with("a: the counts"), "{printed:?}");
    }
}
