// SPDX-License-Identifier: Apache-2.0
//! What GPUs, claims and pods use: measured values of the driver, joined with the claims of the cluster. Pure.

mod table;

use std::collections::BTreeMap;

use dra_allocation::{Pool, Pools};
use serde::Serialize;

use crate::holders::Holder;
use crate::metrics_text::Sample;
use crate::status::{Form, form_of, gpu_name};

pub use table::table;

/// The prefix of all series of the driver.
pub const PREFIX: &str = "gpu_dra_";

/// The answer of `kubectl gpu top`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Top {
    pub gpus: Vec<Gpu>,
    /// In the order of namespace, pod and device.
    pub pods: Vec<Pod>,
    /// Nodes without measured values, and rights that would show more.
    pub incomplete: Vec<String>,
}

/// What is measured of a GPU. Absent where the driver reports nothing, as the utilization of a GPU in MIG mode.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    pub node: String,
    pub name: String,
    pub product: Option<String>,
    /// From 0 to 1.
    pub utilization: Option<f64>,
    pub memory_used_bytes: Option<f64>,
    pub memory_total_bytes: Option<f64>,
    pub temperature_celsius: Option<f64>,
    pub power_watts: Option<f64>,
    pub power_limit_watts: Option<f64>,
    /// The claims that hold it.
    pub claims: usize,
}

/// What a pod uses of one device of a claim.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    pub namespace: String,
    /// Absent for a claim without a pod.
    pub name: Option<String>,
    pub claim: String,
    pub node: String,
    pub device: String,
    pub form: &'static str,
    /// Of a MIG device; else what the processes of the pod use on the GPU, in all of its claims.
    pub memory_used_bytes: Option<f64>,
    /// What the claim may use: its share, or the memory of the MIG device or GPU.
    pub memory_limit_bytes: Option<f64>,
    /// Of the whole GPU, from 0 to 1: all of its users together.
    pub gpu_utilization: Option<f64>,
}

/// What was read of the cluster.
#[derive(Debug)]
pub struct Seen<'a> {
    pub pools: &'a Pools,
    pub driver: &'a str,
    pub holders: &'a [Holder],
    /// The series of the driver by node, without their prefix.
    pub measured: &'a BTreeMap<String, Vec<Sample>>,
    /// Only pods of this namespace are listed.
    pub namespace: Option<&'a str>,
    pub incomplete: Vec<String>,
}

/// The series of one node.
#[derive(Clone, Copy)]
struct Measured<'a>(&'a [Sample]);

impl Measured<'_> {
    /// The value of the sample that has all of these labels.
    fn value(self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has_all = |sample: &&Sample| labels.iter().all(|(label, value)| sample.label(label) == *value);
        let found = self.0.iter().filter(|sample| sample.name == name).find(has_all);
        found.map(|sample| sample.value).filter(|value| value.is_finite())
    }

    fn of_device(self, name: &str, device: &str) -> Option<f64> {
        self.value(name, &[("device", device)])
    }
}

/// Joins what is measured with who holds what.
pub fn top(seen: Seen<'_>) -> Top {
    let mut found = Top { gpus: Vec::new(), pods: Vec::new(), incomplete: Vec::new() };
    for pool in seen.pools.iter().filter(|pool| *pool.driver == *seen.driver) {
        let measured = Measured(seen.measured.get(&*pool.name).map_or(&[], Vec::as_slice));
        let holders: Vec<&Holder> = seen.holders.iter().filter(|holder| holder.pool == *pool.name).collect();
        let devices: BTreeMap<&str, (String, Form)> = pool
            .devices()
            .map(|device| (&*device.name, (gpu_name(device, &pool.driver), form_of(device, &pool.driver))))
            .collect();
        found.gpus.extend(gpus(pool, measured, &holders, &devices));
        let is_listed = |holder: &&&Holder| seen.namespace.is_none_or(|namespace| holder.namespace == namespace);
        found.pods.extend(holders.iter().filter(is_listed).flat_map(|holder| pods(holder, measured, &devices)));
    }
    found.pods.sort_by(|one, other| one.key().cmp(&other.key()));
    found.incomplete = seen.incomplete;
    found
}

type Devices<'a> = BTreeMap<&'a str, (String, Form)>;

fn gpus(pool: &Pool, measured: Measured<'_>, holders: &[&Holder], devices: &Devices<'_>) -> Vec<Gpu> {
    let mut products: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for device in pool.devices() {
        let Some((gpu, _)) = devices.get(&*device.name) else { continue };
        let product = products.entry(gpu).or_default();
        *product = product.or_else(|| device.text("productName", &pool.driver));
    }
    let gpu = |(name, product): (&str, Option<&str>)| {
        let is_held = |holder: &&&Holder| devices.get(holder.device.as_str()).is_some_and(|(gpu, _)| gpu == name);
        let value = |series: &str| measured.of_device(series, name);
        Gpu {
            node: pool.name.to_string(),
            name: name.to_owned(),
            product: product.map(str::to_owned),
            utilization: value("gpu_utilization_ratio"),
            memory_used_bytes: value("gpu_memory_used_bytes"),
            memory_total_bytes: value("gpu_memory_total_bytes"),
            temperature_celsius: value("gpu_temperature_celsius"),
            power_watts: value("gpu_power_watts"),
            power_limit_watts: value("gpu_power_limit_watts"),
            claims: holders.iter().filter(is_held).count(),
        }
    };
    products.into_iter().map(gpu).collect()
}

fn pods(holder: &Holder, measured: Measured<'_>, devices: &Devices<'_>) -> Vec<Pod> {
    let Some((gpu, form)) = devices.get(holder.device.as_str()) else { return Vec::new() };
    let of_claim = [
        ("namespace", holder.namespace.as_str()),
        ("claim", holder.claim.as_str()),
        ("device", holder.device.as_str()),
    ];
    let limit = match form {
        Form::Mig => measured.of_device("mig_memory_total_bytes", &holder.device),
        Form::Mps | Form::TimeSlicing => measured.value("claim_memory_limit_bytes", &of_claim),
        Form::Gpu | Form::Free => measured.of_device("gpu_memory_total_bytes", gpu),
    };
    let used = |pod: &str| match form {
        Form::Mig => measured.of_device("mig_memory_used_bytes", &holder.device),
        Form::Mps | Form::TimeSlicing | Form::Gpu | Form::Free => {
            let labels = [("namespace", holder.namespace.as_str()), ("pod", pod), ("gpu", gpu)];
            measured.value("pod_memory_used_bytes", &labels)
        }
    };
    let pod = |name: Option<&String>| Pod {
        namespace: holder.namespace.clone(),
        name: name.cloned(),
        claim: holder.claim.clone(),
        node: holder.pool.clone(),
        device: holder.device.clone(),
        form: form.name(),
        memory_used_bytes: name.and_then(|name| used(name)),
        memory_limit_bytes: limit,
        gpu_utilization: measured.of_device("gpu_utilization_ratio", gpu),
    };
    if holder.pods.is_empty() { vec![pod(None)] } else { holder.pods.iter().map(|name| pod(Some(name))).collect() }
}

impl Pod {
    fn key(&self) -> (&str, Option<&String>, &str, &str) {
        (&self.namespace, self.name.as_ref(), &self.node, &self.device)
    }
}
