// SPDX-License-Identifier: Apache-2.0
//! Plans the classes and templates of a mig-parted configuration: one of each for each profile, and a template for whole GPUs. Pure.

use std::collections::BTreeSet;

use dra_mig_parted::{Entry, Gpus, Layouts, MigDevices, Profile};
use dra_resource::DriverName;

use crate::config::Kind;
use crate::config::object_name;
use crate::layout_notes::Notes;
use crate::plan::{Class, Cluster, Devices, Memory, Plan, Template};

/// Plans the import of the selected configurations.
pub fn plan(layouts: &Layouts, cluster: &Cluster, driver: &DriverName) -> Plan {
    let Layouts { path, entries } = layouts;
    let mut profiles = BTreeSet::new();
    let mut notes = Notes::default();
    notes_on_flags(&mut notes, cluster);
    let is_parted = |entry: &Entry| matches!(&entry.gpus, Gpus::Parted(devices) if !devices.is_empty());
    if entries.iter().any(is_parted) {
        notes.counts(path);
        notes.classes(path);
    }
    for entry in entries {
        note_limits(&mut notes, entry, driver);
        match &entry.gpus {
            Gpus::Whole => notes.whole_gpus(&entry.path),
            Gpus::Parted(devices) if devices.is_empty() => notes.no_devices(&entry.path),
            Gpus::Parted(devices) => {
                for MigDevices { profile, path, .. } in devices {
                    note_profile(&mut notes, profile, path, cluster);
                    profiles.insert(profile.clone());
                }
            }
        }
    }
    let mut plan = Plan { warnings: notes.into_warnings(), ..Plan::default() };
    for profile in profiles {
        plan.add_profile(&profile.to_string());
    }
    if entries.iter().any(|entry| entry.gpus == Gpus::Whole) {
        plan.templates.push(Template { name: "gpu".to_owned(), devices: Devices::Gpu, capacity: Vec::new() });
    }
    plan
}

impl Plan {
    /// Adds the class of a profile and a template with this class.
    fn add_profile(&mut self, profile: &str) {
        let devices = Devices::OfProfile(profile.to_owned());
        let advertised = Kind::Mig(profile.to_owned()).resource_name();
        self.classes.push(Class { advertised, devices: devices.clone() });
        self.templates.push(Template { name: object_name(profile), devices, capacity: Vec::new() });
    }
}

fn notes_on_flags(notes: &mut Notes, cluster: &Cluster) {
    if matches!(cluster.memory, Memory::Flag(_)) {
        notes.flag_without_effect("--memory");
    }
    if cluster.max_shares.is_some() {
        notes.flag_without_effect("--max-shares");
    }
}

fn note_limits(notes: &mut Notes, entry: &Entry, driver: &DriverName) {
    if let Some(limit) = &entry.indexes {
        notes.indexes(limit, driver);
    }
    if let Some(limit) = &entry.filter {
        notes.filter(limit, driver);
    }
}

fn note_profile(notes: &mut Notes, profile: &Profile, path: &str, cluster: &Cluster) {
    if profile.is_part() {
        notes.part(path);
    }
    if let Memory::Published(published) = &cluster.memory
        && let Some(others) = published.others_than(&profile.to_string())
    {
        notes.not_published(path, &profile.to_string(), &others);
    }
}
