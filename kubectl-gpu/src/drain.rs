// SPDX-License-Identifier: Apache-2.0
//! What `drain` and `undrain` do: which pods leave, and which DeviceTaintRules are made, changed and removed. Pure.

mod table;

use std::collections::{BTreeMap, BTreeSet};

use dra_allocation::device::Taint;
use dra_allocation::node::Effect;

use crate::holders::{EmptyEffect, Eviction, Holder};
use crate::rules::{Rule, Selector, drained};
use crate::target::{Target, Wanted};

pub use table::{announcement, drain_text, undrain_text};

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// A claim still holds the GPU, or something else still keeps claims away.
    Waits,
}

/// What was read of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub driver: &'a str,
    pub holders: &'a [Holder],
    pub rules: &'a [Rule],
    pub empty_effect: EmptyEffect,
}

/// What `drain` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    pub gpus: Vec<Target>,
    pub taint: Taint,
    /// In the order of namespace and claim.
    pub users: Vec<User>,
    pub changes: Vec<Change>,
}

/// A claim that holds one of the devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub holder: Holder,
    pub eviction: Eviction,
}

/// A change of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Create(Selector),
    /// A rule of this program has another effect.
    Replace {
        rule: String,
        selector: Selector,
        before: Effect,
    },
}

impl Change {
    pub fn selector(&self) -> &Selector {
        match self {
            Self::Create(selector) | Self::Replace { selector, .. } => selector,
        }
    }
}

/// A rule names a device, so a GPU needs one for each of its forms. The rule of a node has no device.
pub fn drain(gpus: Vec<Target>, wanted: Wanted<'_>, effect: Effect, seen: Seen<'_>) -> Drain {
    let taint = drained(seen.driver, effect);
    let holds = |holder: &&Holder| gpus.iter().any(|gpu| gpu.has(holder));
    let users = seen.holders.iter().filter(holds).map(|holder| User {
        eviction: if effect == Effect::NoExecute {
            holder.eviction(&taint, seen.empty_effect)
        } else {
            Eviction::Never
        },
        holder: holder.clone(),
    });
    let mut users: Vec<User> = users.collect();
    users.sort_by(|one, other| one.key().cmp(&other.key()));
    let of_device = |gpu: &Target, device: &str| Selector::of(seen.driver, &gpu.node, Some(device));
    let selectors: Vec<Selector> = match wanted {
        Wanted::Node(node) => vec![Selector::of(seen.driver, node, None)],
        Wanted::Gpu { .. } => {
            let devices = gpus.iter().flat_map(|gpu| gpu.devices.iter().map(move |device| of_device(gpu, device)));
            devices.collect()
        }
    };
    let changes = selectors.into_iter().filter_map(|selector| change(selector, effect, seen.rules)).collect();
    Drain { gpus, taint, users, changes }
}

/// Nothing where a rule of this program has the effect already.
fn change(selector: Selector, effect: Effect, rules: &[Rule]) -> Option<Change> {
    let covers = |rule: &&Rule| match (&rule.selector, &selector) {
        (Some(found), Selector { driver: Some(driver), pool: Some(pool), device: Some(device) }) => {
            found.matches(driver, pool, device)
        }
        (found, _) => found.as_ref() == Some(&selector),
    };
    let mut covering = rules.iter().filter(|rule| rule.is_own).filter(covers);
    if covering.clone().any(|rule| rule.taint.effect == effect) {
        return None;
    }
    match covering.find(|rule| rule.selector.as_ref() == Some(&selector)) {
        Some(rule) => Some(Change::Replace { rule: rule.name.clone(), selector, before: rule.taint.effect }),
        None => Some(Change::Create(selector)),
    }
}

impl User {
    fn key(&self) -> (&str, &str, &str) {
        (&self.holder.namespace, &self.holder.claim, &self.holder.device)
    }
}

impl Target {
    pub fn has(&self, holder: &Holder) -> bool {
        self.node == holder.pool && self.devices.contains(&holder.device)
    }
}

impl Drain {
    /// The pods of the GPUs as `namespace/name`, with what happens to each: a pod leaves with the first of its claims.
    pub fn pods(&self) -> BTreeMap<String, Eviction> {
        let mut pods: BTreeMap<String, Eviction> = BTreeMap::new();
        for User { holder, eviction } in &self.users {
            for pod in &holder.pods {
                let found = pods.entry(format!("{}/{pod}", holder.namespace)).or_insert(*eviction);
                *found = (*found).min(*eviction);
            }
        }
        pods
    }

    /// The rules whose devices are in use: Kubernetes counts the pods of these.
    pub fn selectors_in_use(&self) -> Vec<&Selector> {
        let is_used = |selector: &&Selector| {
            let driver = selector.driver.as_deref().unwrap_or_default();
            self.users.iter().any(|user| selector.matches(driver, &user.holder.pool, &user.holder.device))
        };
        self.changes.iter().map(Change::selector).filter(is_used).collect()
    }
}

/// What `undrain` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undrain {
    pub subject: String,
    pub removed: Vec<Rule>,
    /// What keeps new claims away afterwards.
    pub left: Vec<Left>,
}

/// Something that keeps new claims away and that `undrain` does not remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// A rule of this program for the whole node.
    OfNode { rule: String, node: String },
    /// A rule that this program did not make.
    Other { rule: String, taint: Taint },
    /// A taint of the driver.
    OfDriver(Taint),
}

/// A GPU that is no longer published is found by the rules that name its devices.
pub fn undrain(gpus: &[Target], wanted: Wanted<'_>, driver: &str, rules: &[Rule]) -> Undrain {
    let own = rules.iter().filter(|rule| rule.is_own);
    let is_removed = |rule: &&Rule| {
        let Some(Selector { driver: Some(of_driver), pool: Some(pool), device }) = &rule.selector else { return false };
        let is_meant = match (wanted, device) {
            (Wanted::Node(node), _) => pool == node,
            (Wanted::Gpu { .. }, None) => false,
            (Wanted::Gpu { name, node }, Some(device)) => {
                let is_there = |gpu: &Target| gpu.node == *pool && is_of(device, &gpu.gpu);
                gpus.iter().any(is_there)
                    || (gpus.is_empty() && node.is_none_or(|node| node == pool) && is_of(device, name))
            }
        };
        of_driver == driver && is_meant
    };
    let removed: Vec<Rule> = own.filter(is_removed).cloned().collect();
    let subject = match wanted {
        Wanted::Node(node) => format!("all GPUs of node {node}"),
        Wanted::Gpu { name, .. } => gpus.first().map_or_else(|| name.to_owned(), label),
    };
    let is_removed = |rule: &&Rule| removed.iter().any(|removed| removed.name == rule.name);
    let concerns =
        |rule: &&Rule| gpus.iter().any(|gpu| gpu.devices.iter().any(|device| rule.matches(driver, &gpu.node, device)));
    let others = rules.iter().filter(|rule| !is_removed(rule) && rule.taint.effect != Effect::None).filter(concerns);
    let mut left: Vec<Left> = others.map(|rule| left(rule, gpus)).collect();
    let taints: BTreeSet<&Taint> = gpus.iter().flat_map(|gpu| &gpu.taints).collect();
    left.extend(taints.into_iter().filter(|taint| taint.effect != Effect::None).cloned().map(Left::OfDriver));
    Undrain { subject, removed, left }
}

fn left(rule: &Rule, gpus: &[Target]) -> Left {
    match gpus.first() {
        Some(gpu) if rule.is_own => Left::OfNode { rule: rule.name.clone(), node: gpu.node.clone() },
        Some(_) | None => Left::Other { rule: rule.name.clone(), taint: rule.taint.clone() },
    }
}

/// Whether a name is that of a GPU, or of a form of it.
fn is_of(device: &str, gpu: &str) -> bool {
    device.strip_prefix(gpu).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn label(gpu: &Target) -> String {
    format!("GPU {} on node {}", gpu.gpu, gpu.node)
}
