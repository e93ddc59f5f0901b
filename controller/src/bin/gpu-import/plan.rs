// SPDX-License-Identifier: Apache-2.0
//! From what the device plugin shared to what gives the same parts of a GPU here. Pure.
//!
//! A share of one in N gets what the plugin gave it: 1/N of the memory and 100/N percent of the threads with MPS, one
//! of N places with time-slicing. Extended resources cannot ask for an amount and take the default share, so the chart
//! values make that the same.

use std::collections::BTreeSet;

use dra_model::Bytes;

use crate::config::{Config, Kind, MigStrategy, Resource, Shared};
use crate::warnings::{self, Warning};

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    /// Of each GPU.
    pub(crate) memory: Memory,
    /// Of its MIG devices; nothing when it was not looked.
    pub(crate) profiles: BTreeSet<String>,
    /// The `sharing.timeSlicing.maxShares` it is to keep.
    pub(crate) max_shares: Option<u32>,
}

/// How much memory the GPUs have.
#[derive(Debug, Default)]
pub(crate) enum Memory {
    /// Nobody said.
    #[default]
    Unknown,
    /// A person said.
    Typed(Bytes),
    /// As the driver publishes it, each size once.
    Published(BTreeSet<Bytes>),
}

/// What to apply.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) values: Values,
    pub(crate) classes: Vec<Class>,
    pub(crate) templates: Vec<Template>,
    pub(crate) warnings: Vec<Warning>,
}

/// What to set in the chart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Values {
    /// `sharing.defaultShares`.
    pub(crate) default_shares: Option<u32>,
    /// `sharing.timeSlicing.maxShares`.
    pub(crate) max_shares: Option<u32>,
    /// Whether the class of whole GPUs has to give up the name `nvidia.com/gpu`.
    pub(crate) give_up_name: bool,
}

/// A DeviceClass for pods that ask for an extended resource.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Class {
    /// The extended resource.
    pub(crate) advertised: String,
    pub(crate) devices: Devices,
}

/// What a class selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Devices {
    /// GPUs in their MPS form.
    Mps,
    /// GPUs in their time-slicing form.
    TimeSlicing,
    /// MIG devices of a profile.
    Mig(String),
}

/// A ResourceClaimTemplate for pods that make claims.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) name: String,
    pub(crate) devices: Devices,
    /// What to ask of a capacity, by its name.
    pub(crate) capacity: Vec<(&'static str, Amount)>,
}

/// An amount of a capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Amount {
    Count(u32),
    Memory(Bytes),
}

/// Plans the import of one configuration.
pub(crate) fn plan(config: &Config, cluster: &Cluster) -> Plan {
    let mut plan = Plan::default();
    let mps = config.mps.as_ref().filter(|shared| !shared.resources.is_empty());
    if let Some(shared) = mps {
        for resource in &shared.resources {
            match &resource.kind {
                Kind::Gpu => plan.mps(shared, resource, cluster),
                Kind::Mig(_) => plan.warn(warnings::mig_by_mps(&resource.path)),
            }
        }
    }
    if let Some(shared) = &config.time_slicing {
        let served = mps.is_none();
        if !served {
            plan.warn(warnings::both_strategies(&shared.path));
        }
        for resource in &shared.resources {
            match &resource.kind {
                Kind::Gpu => plan.time_slicing(shared, resource, cluster, served),
                Kind::Mig(profile) => plan.mig(shared, resource, profile, config, cluster),
            }
        }
    }
    if let (Some((MigStrategy::Single, path)), false) = (&config.mig, plan.templates.is_empty()) {
        plan.warn(warnings::mig_as_gpu(path));
    }
    plan
}

impl Plan {
    fn warn(&mut self, warning: Warning) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    fn mps(&mut self, shared: &Shared, resource: &Resource, cluster: &Cluster) {
        let path = format!("{}.replicas", resource.path);
        if resource.replicas > 100 {
            self.warn(warnings::more_than_percents(&path, resource.replicas));
        } else if resource.replicas > 48 {
            self.warn(warnings::more_than_clients(&path, resource.replicas));
        }
        let threads = (100 / resource.replicas).max(1);
        let mut capacity = vec![("activeThreadPercentage", Amount::Count(threads))];
        capacity.extend(self.memory(resource, cluster));
        self.values.default_shares = Some(resource.replicas);
        self.class(shared, resource, Devices::Mps);
        self.templates.push(Template {
            name: format!("mps-gpu-1-of-{}", resource.replicas),
            devices: Devices::Mps,
            capacity,
        });
    }

    fn time_slicing(&mut self, shared: &Shared, resource: &Resource, cluster: &Cluster, served: bool) {
        let replicas = resource.replicas;
        let path = format!("{}.replicas", resource.path);
        let max_shares = cluster.max_shares.unwrap_or(replicas);
        let each = (max_shares / replicas).max(1);
        if !max_shares.is_multiple_of(replicas) {
            self.warn(warnings::does_not_divide(&path, replicas, max_shares, max_shares / each));
        }
        let mut capacity = vec![("shares", Amount::Count(each))];
        let memory = self.memory(resource, cluster);
        capacity.extend(memory);
        self.values.max_shares = Some(max_shares);
        let default_shares = *self.values.default_shares.get_or_insert(replicas);
        if memory.is_none() && default_shares < replicas {
            self.warn(warnings::memory_of_mps(&path, replicas, default_shares));
        }
        if served {
            self.class(shared, resource, Devices::TimeSlicing);
            if each > 1 {
                let advertised = advertised(shared, resource);
                self.warn(warnings::default_share_only(&path, &advertised, max_shares));
            }
        }
        let name = format!("time-slicing-gpu-1-of-{replicas}");
        self.templates.push(Template { name, devices: Devices::TimeSlicing, capacity });
    }

    /// MIG devices have no shared form, so each claim gets a whole one.
    fn mig(&mut self, shared: &Shared, resource: &Resource, profile: &str, config: &Config, cluster: &Cluster) {
        let path = format!("{}.replicas", resource.path);
        self.warn(warnings::mig_replicas(&path, resource.replicas));
        let name = format!("{}.name", resource.path);
        if config.mig.as_ref().is_none_or(|(strategy, _)| *strategy != MigStrategy::Mixed) {
            self.warn(warnings::mig_without_mixed(&name));
        }
        if !cluster.profiles.is_empty() && !cluster.profiles.contains(profile) {
            let published: Vec<&str> = cluster.profiles.iter().map(String::as_str).collect();
            self.warn(warnings::profile_not_published(&name, profile, &published.join(", ")));
        }
        let devices = Devices::Mig(profile.to_owned());
        self.class(shared, resource, devices.clone());
        let name = format!("mig-{}", profile.replace('+', "."));
        self.templates.push(Template { name, devices, capacity: Vec::new() });
    }

    fn class(&mut self, shared: &Shared, resource: &Resource, devices: Devices) {
        let advertised = advertised(shared, resource);
        if resource.kind == Kind::Gpu && !shared.renamed {
            self.values.give_up_name = true;
            self.warn(warnings::kept_name(&format!("{}.renameByDefault", shared.path), &advertised));
        }
        self.classes.push(Class { advertised, devices });
    }

    /// 1/N of the memory in whole MiB, where all GPUs have the same.
    fn memory(&mut self, resource: &Resource, cluster: &Cluster) -> Option<(&'static str, Amount)> {
        let replicas = resource.replicas;
        let part = |total: Bytes| Bytes::from_mib((total.mib() / u64::from(replicas)).max(1));
        let share = match &cluster.memory {
            Memory::Unknown => None,
            Memory::Typed(total) => {
                self.warn(warnings::typed_memory(&shown(part(*total)), replicas));
                Some(part(*total))
            }
            Memory::Published(sizes) => {
                let mut each = sizes.iter();
                match (each.next(), each.next()) {
                    (Some(total), None) => Some(part(*total)),
                    (Some(_), Some(_)) => {
                        let sizes: Vec<String> = sizes.iter().copied().map(shown).collect();
                        let path = format!("{}.replicas", resource.path);
                        self.warn(warnings::several_sizes(&path, replicas, &sizes.join(", ")));
                        None
                    }
                    (None, _) => {
                        self.warn(warnings::no_gpu_published());
                        None
                    }
                }
            }
        };
        share.map(|share| ("memory", Amount::Memory(share)))
    }
}

/// The name the plugin really advertised.
fn advertised(shared: &Shared, resource: &Resource) -> String {
    let name = resource.kind.resource_name();
    if shared.renamed { format!("{name}.shared") } else { name }
}

fn shown(bytes: Bytes) -> String {
    dra_resource::quantity::binary(bytes).0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shared(replicas: u32) -> Shared {
        let resource = Resource { path: String::new(), kind: Kind::Gpu, replicas };
        Shared { path: String::new(), renamed: true, resources: vec![resource] }
    }

    fn asked(plan: &Plan, name: &str) -> u64 {
        let capacity = plan.templates.iter().flat_map(|template| &template.capacity);
        let mut amounts = capacity.filter(|(asked, _)| *asked == name).map(|(_, amount)| match amount {
            Amount::Count(count) => u64::from(*count),
            Amount::Memory(bytes) => bytes.mib(),
        });
        amounts.next().unwrap()
    }

    proptest! {
        /// What the plugin promises with MPS: as many shares as replicas fit, and no more.
        #[test]
        fn as_many_mps_shares_fit_as_there_were_replicas(replicas in 2_u32..=100, mib in 10_000_u64..400_000) {
            let config = Config { mps: Some(shared(replicas)), ..Config::default() };
            let memory = Memory::Published(BTreeSet::from([Bytes::from_mib(mib)]));
            let plan = plan(&config, &Cluster { memory, ..Cluster::default() });
            let (threads, memory) = (asked(&plan, "activeThreadPercentage"), asked(&plan, "memory"));
            let replicas = u64::from(replicas);
            prop_assert!(replicas * threads <= 100 && replicas * memory <= mib);
            prop_assert_eq!(mib / memory, replicas);
        }

        /// And with time-slicing, unless the number of slices is kept and cannot be divided, which is said.
        #[test]
        fn as_many_time_slices_fit_as_there_were_replicas(replicas in 2_u32..200, kept in proptest::option::of(1_u32..200)) {
            let config = Config { time_slicing: Some(shared(replicas)), ..Config::default() };
            let plan = plan(&config, &Cluster { max_shares: kept, ..Cluster::default() });
            let max_shares = u64::from(plan.values.max_shares.unwrap());
            let fits = max_shares / asked(&plan, "shares") == u64::from(replicas);
            let said = plan.warnings.iter().any(|warning| warning.to_string().contains("equal ones"));
            prop_assert!(fits || said);
            prop_assert_eq!(plan.values.default_shares, Some(replicas));
        }
    }
}
