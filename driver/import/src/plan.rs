// SPDX-License-Identifier: Apache-2.0
//! Plans the classes, templates and chart values that give the same shares as the device plugin. Pure.
//!
//! One of N replicas becomes a share of 1/N of the memory and 100/N percent of the threads with MPS, or one of N shares with
//! time-slicing. Extended resources cannot request an amount and get the default share, so the chart values set the default share to
//! the same amount. More replicas than this driver has shares of a GPU become the maximum number of shares, with a warning.

use std::ops::RangeInclusive;

use crate::limits::{DEFAULT_SHARES, MAX_TIME_SLICES};
use dra_model::{Bytes, SharedForm};

use crate::config::object_name;
use crate::config::{Config, Kind, MigStrategy, Resource, Shared};
use crate::published::{Published, Sizes};
use crate::warnings::{self, Warning};

/// Properties of the cluster, from the flags.
#[derive(Debug, Default)]
pub struct Cluster {
    /// Memory of each GPU.
    pub memory: Memory,
    /// `sharing.timeSlicing.maxShares` from the flag.
    pub max_shares: Option<u32>,
}

#[derive(Debug, Default)]
pub enum Memory {
    #[default]
    Unknown,
    /// From `--memory`.
    Flag(Bytes),
    /// From `--slices`.
    Published(Published),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub values: Values,
    pub classes: Vec<Class>,
    pub templates: Vec<Template>,
    pub warnings: Vec<Warning>,
}

/// The chart values to set.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// `sharing.defaultShares`.
    pub default_shares: Option<u32>,
    /// `sharing.timeSlicing.maxShares`.
    pub max_shares: Option<u32>,
    /// Whether requests without an amount, such as those for extended resources, must get a share.
    pub shares_without_amount: bool,
    /// Whether the class of whole GPUs must not have the extended resource `nvidia.com/gpu`.
    pub release_resource_name: bool,
}

/// A DeviceClass for pods that request an extended resource.
#[derive(Debug, PartialEq, Eq)]
pub struct Class {
    /// The extended resource.
    pub advertised: String,
    pub devices: Devices,
}

/// The devices that a class selects or a template requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    Gpu,
    Mps,
    TimeSlicing,
    /// MIG devices of a profile, by the class of all MIG devices.
    Mig(String),
    /// MIG devices of a profile, by a class of their own under the name that the chart uses.
    OfProfile(String),
}

/// A ResourceClaimTemplate for pods with claims.
#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    pub name: String,
    pub devices: Devices,
    /// Requested amounts by name of the capacity.
    pub capacity: Vec<(&'static str, Amount)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    Count(u32),
    Memory(Bytes),
}

/// Limit of client processes of an MPS server before CUDA 13.1.
const MPS_CLIENTS: u64 = 48;

/// Plans the import of one configuration.
pub fn plan(config: &Config, cluster: &Cluster) -> Plan {
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
        let fit = fitting(resource.replicas, &DEFAULT_SHARES);
        if u64::from(fit) < resource.replicas {
            self.warn(warnings::more_than_percents(&path, resource.replicas, fit));
        }
        if resource.replicas > MPS_CLIENTS {
            self.warn(warnings::more_than_clients(&path, resource.replicas));
        }
        let mut capacity = vec![("activeThreadPercentage", Amount::Count((100 / fit).max(1)))];
        capacity.extend(self.memory(resource, fit, SharedForm::Mps, cluster));
        self.values.default_shares = Some(fit);
        self.class(shared, resource, Devices::Mps);
        self.templates.push(Template { name: format!("mps-gpu-1-of-{fit}"), devices: Devices::Mps, capacity });
    }

    fn time_slicing(&mut self, shared: &Shared, resource: &Resource, cluster: &Cluster, served: bool) {
        let path = format!("{}.replicas", resource.path);
        let fit = fitting(resource.replicas, &MAX_TIME_SLICES);
        if u64::from(fit) < resource.replicas {
            self.warn(warnings::more_than_slices(&path, resource.replicas, fit));
        }
        let max_shares = cluster.max_shares.unwrap_or(fit);
        let each = (max_shares / fit).max(1);
        if !max_shares.is_multiple_of(fit) {
            self.warn(warnings::does_not_divide(&path, fit, max_shares, max_shares / each));
        }
        let mut capacity = vec![("shares", Amount::Count(each))];
        capacity.extend(self.memory(resource, fit, SharedForm::TimeSlicing, cluster));
        self.values.max_shares = Some(max_shares);
        if served {
            self.class(shared, resource, Devices::TimeSlicing);
            if each > 1 {
                let advertised = advertised(shared, resource);
                self.warn(warnings::default_share_only(&path, &advertised, max_shares));
            }
        }
        let name = format!("time-slicing-gpu-1-of-{fit}");
        self.templates.push(Template { name, devices: Devices::TimeSlicing, capacity });
    }

    /// MIG devices have no shared form, so each claim gets a whole MIG device.
    fn mig(&mut self, shared: &Shared, resource: &Resource, profile: &str, config: &Config, cluster: &Cluster) {
        let path = format!("{}.replicas", resource.path);
        self.warn(warnings::mig_replicas(&path, resource.replicas));
        let name = format!("{}.name", resource.path);
        if config.mig.as_ref().is_none_or(|(strategy, _)| *strategy != MigStrategy::Mixed) {
            self.warn(warnings::mig_without_mixed(&name));
        }
        if let Memory::Published(published) = &cluster.memory
            && let Some(others) = published.others_than(profile)
        {
            self.warn(warnings::profile_not_published(&name, profile, &others));
        }
        let devices = Devices::Mig(profile.to_owned());
        self.class(shared, resource, devices.clone());
        self.templates.push(Template { name: object_name(profile), devices, capacity: Vec::new() });
    }

    fn class(&mut self, shared: &Shared, resource: &Resource, devices: Devices) {
        let advertised = advertised(shared, resource);
        if resource.kind == Kind::Gpu && !shared.renamed {
            self.values.release_resource_name = true;
            self.warn(warnings::unchanged_name(&format!("{}.renameByDefault", shared.path), &advertised));
        }
        self.values.shares_without_amount |= matches!(devices, Devices::Mps | Devices::TimeSlicing);
        self.classes.push(Class { advertised, devices });
    }

    /// 1/N of the memory in whole MiB, if all GPUs have the same memory.
    fn memory(
        &mut self,
        resource: &Resource,
        shares: u32,
        form: SharedForm,
        cluster: &Cluster,
    ) -> Option<(&'static str, Amount)> {
        let path = format!("{}.replicas", resource.path);
        let total = match &cluster.memory {
            Memory::Unknown => None,
            Memory::Flag(total) => Some(*total),
            Memory::Published(published) => self.only_size(&path, shares, published.of(form)),
        }?;
        let share = Bytes::from_mib((total.mib() / u64::from(shares)).max(1));
        if matches!(cluster.memory, Memory::Flag(_)) {
            self.warn(warnings::memory_from_flag(&formatted(share), shares));
        }
        if total.mib() < u64::from(shares) {
            self.warn(warnings::less_than_a_unit(&path, shares, &formatted(total)));
        }
        Some(("memory", Amount::Memory(share)))
    }

    /// The memory of all GPUs, if it is equal.
    fn only_size(&mut self, path: &str, shares: u32, sizes: &Sizes) -> Option<Bytes> {
        if sizes.unknown {
            self.warn(warnings::no_memory_published(sizes.memory.is_empty()));
            return None;
        }
        let mut each = sizes.memory.iter().copied();
        match (each.next(), each.next()) {
            (Some(total), None) => return Some(total),
            (Some(_), Some(_)) => {
                let sizes: Vec<String> = sizes.memory.iter().copied().map(formatted).collect();
                self.warn(warnings::several_sizes(path, shares, &sizes.join(", ")));
            }
            (None, _) => self.warn(warnings::no_gpu_published()),
        }
        None
    }
}

/// The number of replicas, limited to the number of shares.
fn fitting(replicas: u64, shares: &RangeInclusive<u32>) -> u32 {
    let most = *shares.end();
    u32::try_from(replicas).map_or(most, |replicas| replicas.min(most))
}

/// The extended resource that the plugin advertised.
fn advertised(shared: &Shared, resource: &Resource) -> String {
    let name = resource.kind.resource_name();
    if shared.renamed { format!("{name}.shared") } else { name }
}

fn formatted(bytes: Bytes) -> String {
    dra_resource::quantity::binary(bytes).0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn shared(replicas: u64) -> Shared {
        let resource = Resource { path: String::new(), kind: Kind::Gpu, replicas };
        Shared { path: String::new(), renamed: true, resources: vec![resource] }
    }

    fn requested(plan: &Plan, name: &str) -> u64 {
        let capacity = plan.templates.iter().flat_map(|template| &template.capacity);
        let mut amounts = capacity.filter(|(requested, _)| *requested == name).map(|(_, amount)| match amount {
            Amount::Count(count) => u64::from(*count),
            Amount::Memory(bytes) => bytes.mib(),
        });
        amounts.next().unwrap()
    }

    fn all_with(mib: u64) -> Cluster {
        let whole = Sizes { memory: BTreeSet::from([Bytes::from_mib(mib)]), unknown: false };
        Cluster { memory: Memory::Published(Published { whole, ..Published::default() }), ..Cluster::default() }
    }

    fn warns(plan: &Plan, word: &str) -> bool {
        plan.warnings.iter().any(|warning| warning.to_string().contains(word))
    }

    proptest! {
        /// As with the plugin, exactly as many MPS shares as replicas fit.
        #[test]
        fn as_many_mps_shares_fit_as_there_were_replicas(replicas in 2_u64..=100, mib in 10_000_u64..400_000) {
            let config = Config { mps: Some(shared(replicas)), ..Config::default() };
            let plan = plan(&config, &all_with(mib));
            let (threads, memory) = (requested(&plan, "activeThreadPercentage"), requested(&plan, "memory"));
            prop_assert!(replicas * threads <= 100 && replicas * memory <= mib);
            prop_assert_eq!(mib / memory, replicas);
        }

        /// As with the plugin, exactly as many time-slicing shares fit, unless a fixed number cannot be divided, which is a warning.
        #[test]
        fn as_many_time_slices_fit_as_there_were_replicas(replicas in 2_u64..200, max_shares in proptest::option::of(1_u32..200)) {
            let config = Config { time_slicing: Some(shared(replicas)), ..Config::default() };
            let plan = plan(&config, &Cluster { max_shares, ..Cluster::default() });
            let max_shares = u64::from(plan.values.max_shares.unwrap());
            let fits = max_shares / requested(&plan, "shares") == replicas;
            prop_assert!(fits || warns(&plan, "equal ones"));
            prop_assert_eq!(plan.values.default_shares, None);
        }

        /// With too many replicas the warning has the number of shares that fit.
        #[test]
        fn how_many_shares_fit_is_in_the_warning(replicas in 101_u64..=1 << 31, mib in 1_u64..400_000, mps: bool) {
            let config = if mps { Config { mps: Some(shared(replicas)), ..Config::default() } } else { Config { time_slicing: Some(shared(replicas)), ..Config::default() } };
            let plan = plan(&config, &all_with(mib));
            let shares = plan.values.default_shares.or(plan.values.max_shares).map(u64::from).unwrap();
            prop_assert!(shares <= replicas);
            prop_assert_eq!(shares < replicas, warns(&plan, &format!("{shares} fit")) || warns(&plan, &format!("{shares} shares fit")));
            prop_assert_eq!(shares * requested(&plan, "memory") > mib, warns(&plan, "do not fit"));
        }
    }
}
