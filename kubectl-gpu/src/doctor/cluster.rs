// SPDX-License-Identifier: Apache-2.0
//! The checks of the cluster as a whole. Pure.

use std::collections::BTreeMap;

use dra_allocation::selector::{SelectorError, Selectors};
use dra_allocation::{Classes, Device, Pool, Pools};
use dra_model::node_check::{Check, Problem};

use super::{DaemonSet, Seen};
use crate::driver_pods::Found;
use crate::support;

/// A feature gate, the first minor version in which the driver uses it, and what is missing without it.
struct Gate {
    name: &'static str,
    since: u32,
    lost: &'static str,
}

const GATES: [Gate; 7] = [
    Gate { name: "DynamicResourceAllocation", since: 34, lost: "pods get no GPUs" },
    Gate { name: "DRAResourceClaimDeviceStatus", since: 34, lost: "claims show no devices in their status" },
    Gate { name: "DRAPartitionableDevices", since: 36, lost: "no MIG devices on demand and no shares" },
    Gate { name: "DRAConsumableCapacity", since: 37, lost: "no shares of GPUs" },
    Gate { name: "DRADeviceTaints", since: 36, lost: "pods stay on GPUs that fail" },
    Gate { name: "DRADeviceTaintRules", since: 37, lost: "GPUs cannot be taken out of service by hand" },
    Gate { name: "DRAExtendedResource", since: 36, lost: "pods that request `nvidia.com/gpu` get no GPU" },
];

pub(super) fn checks(seen: &Seen<'_>) -> Vec<Check> {
    let version = seen.server_version.as_ref().ok();
    let minor = version.and_then(|version| support::numbers(version.trim_start_matches('v'))).map(|found| found.1);
    let parts = [
        version.map(|version| support::kubernetes("API server", version)),
        seen.api_versions.as_ref().ok().map(|versions| api(versions)),
        seen.gates.as_ref().ok().map(|gates| feature_gates(gates, minor)),
        seen.pods.as_ref().ok().map(|pods| driver_pods(pods, seen)),
        both(seen).map(|(classes, pools)| device_classes(classes, pools, seen.driver)),
        seen.denied.as_ref().ok().map(|denied| rights(denied)),
        seen.policies.as_ref().ok().map(|bound| policies(*bound)),
    ];
    parts.into_iter().flatten().collect()
}

fn both<'a>(seen: &'a Seen<'_>) -> Option<(&'a Classes, &'a Pools)> {
    seen.classes.as_ref().ok().zip(seen.pools.as_ref().ok())
}

fn api(versions: &[String]) -> Check {
    let subject = "API resource.k8s.io";
    if versions.iter().any(|version| version == "v1") {
        return Check::good(subject, versions.join(", "));
    }
    let found =
        if versions.is_empty() { "not served".to_owned() } else { format!("served as {}", versions.join(", ")) };
    let cause = format!("resource.k8s.io/v1 is {found}");
    Check::bad(
        subject,
        Problem::error(cause, "use Kubernetes 1.34 or later, without --runtime-config that turns it off"),
    )
}

fn feature_gates(gates: &BTreeMap<String, bool>, minor: Option<u32>) -> Check {
    let is_off = |gate: &&Gate| minor.is_some_and(|minor| minor >= gate.since) && gates.get(gate.name) == Some(&false);
    let problems = GATES.iter().filter(is_off).map(|Gate { name, lost, .. }| {
        let fix = format!("set --feature-gates={name}=true on API server, controller manager, scheduler and kubelets");
        Problem::warning(format!("{name} is off: {lost}"), fix)
    });
    let problems: Vec<Problem> = problems.collect();
    let found = if problems.is_empty() { "all that the driver uses are on" } else { "" };
    Check { subject: "feature gates".to_owned(), found: found.to_owned(), problems }
}

fn driver_pods(found: &Found, seen: &Seen<'_>) -> Check {
    let subject = "pods of the driver";
    let sets = seen.daemon_sets.as_deref().unwrap_or_default();
    let problems: Vec<Problem> = sets.iter().filter_map(daemon_set).collect();
    if found.pods.is_empty() && problems.is_empty() {
        let cause = format!("no pod of the driver {} was found", seen.driver);
        let fix = "install the chart, or name the driver with --driver-name and its namespace with --driver-namespace";
        return Check::bad(subject, Problem::error(cause, fix));
    }
    let namespaces: std::collections::BTreeSet<&str> = found.pods.iter().map(|pod| pod.namespace.as_str()).collect();
    let namespaces: Vec<&str> = namespaces.into_iter().collect();
    let text = format!("{} in namespace {}", found.pods.len(), namespaces.join(", "));
    let two = (namespaces.len() > 1).then(|| {
        let cause = format!("the driver {} is installed in the namespaces {}", seen.driver, namespaces.join(", "));
        Problem::error(cause, "uninstall one of them: both would allocate the same GPUs")
    });
    let problems = problems.into_iter().chain(two).collect();
    Check { subject: subject.to_owned(), found: text, problems }
}

fn daemon_set(set: &DaemonSet) -> Option<Problem> {
    let DaemonSet { namespace, name, desired, current } = set;
    if *desired == 0 {
        let cause = format!("DaemonSet {namespace}/{name} selects no node");
        return Some(Problem::error(
            cause,
            "correct kubeletPlugin.nodeSelector and kubeletPlugin.tolerations of the chart",
        ));
    }
    (current < desired).then(|| {
        let cause = format!("DaemonSet {namespace}/{name} has pods on {current} of {desired} nodes");
        let fix = format!(
            "`kubectl describe daemonset -n {namespace} {name}` has the reason; where pod security refuses the pods, \
             `kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged`"
        );
        Problem::error(cause, fix)
    })
}

/// A kind of device that claims get by a class.
struct Kind {
    name: &'static str,
    /// The value of the chart that creates its class.
    value: &'static str,
}

fn kind_of(device: &Device, driver: &str) -> Kind {
    match (device.text("type", driver), device.text("sharingStrategy", driver)) {
        (Some("mig"), _) => Kind { name: "MIG devices", value: "deviceClasses.mig.enabled" },
        (Some("shared-gpu"), Some("MPS")) => Kind { name: "MPS shares", value: "deviceClasses.mps.enabled" },
        (Some("shared-gpu"), _) => Kind { name: "time-slicing shares", value: "deviceClasses.timeSlicing.enabled" },
        (Some(_) | None, _) => Kind { name: "whole GPUs", value: "deviceClasses.gpu.enabled" },
    }
}

/// Each kind of published devices needs a class that selects one of them.
fn device_classes(classes: &Classes, pools: &Pools, driver: &str) -> Check {
    let subject = "DeviceClasses";
    let mut kinds: BTreeMap<&str, (Kind, Vec<&Device>)> = BTreeMap::new();
    for device in pools.iter().filter(|pool| *pool.driver == *driver).flat_map(Pool::devices) {
        let kind = kind_of(device, driver);
        kinds.entry(kind.name).or_insert_with(|| (kind, Vec::new())).1.push(device);
    }
    let selectors = Selectors::default();
    let is_selected =
        |device: &Device| classes.names().any(|class| selects(classes, class, driver, device, &selectors));
    let missing = kinds.values().filter(|(_, devices)| !devices.iter().any(|device| is_selected(device)));
    let problems = missing.map(|(Kind { name, value }, _)| {
        let cause = format!("no DeviceClass selects {name}, so that no claim can ask for them by a class");
        Problem::warning(cause, format!("`helm upgrade` with {value}=true creates the class of the chart"))
    });
    let problems: Vec<Problem> = problems.collect();
    let names: Vec<&str> = kinds.keys().copied().collect();
    let found = match (problems.is_empty(), names.is_empty()) {
        (true, false) => format!("select {}", names.join(", ")),
        (true, true) => "no device is published".to_owned(),
        (false, _) => String::new(),
    };
    Check { subject: subject.to_owned(), found, problems }
}

/// An expression that this program does not know may select the device.
fn selects(classes: &Classes, class: &str, driver: &str, device: &Device, selectors: &Selectors) -> bool {
    let expressions = classes.selectors(class).unwrap_or_default();
    let is_true = |expression: &String| match selectors.selects(expression, driver, device) {
        Ok(is_selected) => is_selected,
        Err(SelectorError::Unknown(_)) => true,
        Err(
            SelectorError::Syntax(_)
            | SelectorError::Missing { .. }
            | SelectorError::Failed(_)
            | SelectorError::NotBool,
        ) => false,
    };
    // A class without a selector selects the devices of all drivers, and says nothing about this one.
    !expressions.is_empty() && expressions.iter().all(is_true)
}

fn rights(denied: &[String]) -> Check {
    let problems = denied.iter().map(|right| {
        let fix = "`helm upgrade` restores the ClusterRole of the chart and its binding";
        Problem::error(format!("the account of the driver may not {right}"), fix)
    });
    let problems: Vec<Problem> = problems.collect();
    let found = if problems.is_empty() { "as in the ClusterRole of the chart" } else { "" };
    Check { subject: "rights of the driver".to_owned(), found: found.to_owned(), problems }
}

fn policies(bound: usize) -> Check {
    let subject = "admission policies";
    if bound > 0 {
        return Check::good(subject, format!("{bound} of the chart are bound"));
    }
    let cause = "none of the chart is bound: a node that is broken into can publish devices for all nodes, and wrong \
                 configurations are refused only on the node";
    Check::bad(subject, Problem::warning(cause, "set admissionPolicy.enabled=true of the chart"))
}
