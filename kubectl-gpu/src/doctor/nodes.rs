// SPDX-License-Identifier: Apache-2.0
//! The checks of one node. Pure.

use std::collections::BTreeSet;

use dra_allocation::pool::PoolFault;
use dra_allocation::{Pool, Pools};
use dra_model::node_check::{Check, Problem};

use super::{NodeAnswer, Seen, SeenNode};
use crate::driver_pods::{DriverPod, PLUGIN};
use crate::support;

/// A difference that breaks leases, certificates and the times in claims.
const MAX_CLOCK_ERROR_MS: i64 = 5_000;
/// More than upgrades and a reboot leave.
const MANY_RESTARTS: u32 = 5;

/// The nodes that are checked: those with a pod or devices of the driver.
pub(super) fn names(seen: &Seen<'_>) -> BTreeSet<String> {
    if let Some(only) = seen.only {
        return BTreeSet::from([only.to_owned()]);
    }
    let pods = seen.pods.as_ref().into_iter().flat_map(|found| &found.pods).filter_map(|pod| pod.node.clone());
    let pools = seen.pools.as_ref().into_iter().flat_map(Pools::iter);
    let pools = pools.filter(|pool| *pool.driver == *seen.driver).map(|pool| pool.name.to_string());
    pods.chain(pools).collect()
}

pub(super) fn checks(seen: &Seen<'_>, name: &str) -> Vec<Check> {
    let node = seen.nodes.as_ref().ok().map(|nodes| nodes.get(name));
    if node == Some(None) {
        let cause = format!("the cluster has no node {name}");
        return vec![Check::bad("node", Problem::error(cause, "`kubectl get nodes` lists the nodes"))];
    }
    let node = node.flatten();
    let answer = seen.answers.get(name);
    let mut checks: Vec<Check> = pod(seen, name).into_iter().collect();
    checks.extend(node.into_iter().flat_map(of_node));
    checks.extend(slices(seen, name, answer.and_then(|answer| answer.as_ref().ok())));
    checks.extend(owners(seen, name, node));
    match answer {
        Some(Ok(answer)) => {
            checks.extend(answer.checks.checks.iter().cloned());
            checks.push(clock(answer.clock_error_ms));
            checks.extend(version(&answer.checks.version));
        }
        Some(Err(why)) => {
            let cause = format!("the plugin could not be asked: {why}");
            checks.push(Check::bad("node side", Problem::warning(cause, "run this again when that is ended")));
        }
        None => {}
    }
    checks
}

fn pod(seen: &Seen<'_>, name: &str) -> Option<Check> {
    let subject = "pod of the driver";
    let found = seen.pods.as_ref().ok()?;
    let on_node: Vec<&DriverPod> = found.pods.iter().filter(|pod| pod.node.as_deref() == Some(name)).collect();
    let Some(pod) = on_node.iter().min_by_key(|pod| (pod.is_ending, !pod.is_ready)) else {
        let cause = format!("node {name} has none");
        let fix = "kubeletPlugin.nodeSelector and kubeletPlugin.tolerations of the chart must fit the node";
        return Some(Check::bad(subject, Problem::error(cause, fix)));
    };
    let label = pod.label();
    if let Some(problem) = pod_problem(pod, seen.logs.get(name)) {
        return Some(Check::bad(subject, problem));
    }
    let restarting = pod.containers.iter().find(|container| container.restarts >= MANY_RESTARTS);
    Some(match restarting {
        Some(container) => {
            let last = container.ended.as_deref().unwrap_or("unknown");
            let cause = format!(
                "container {} of {label} was started again {} times; it ended last with: {last}",
                container.name, container.restarts
            );
            let fix = format!(
                "`kubectl logs -n {} {} -c {} --previous` has the reason",
                pod.namespace, pod.name, container.name
            );
            Check::bad(subject, Problem::warning(cause, fix))
        }
        None => Check::good(subject, format!("{label} is ready")),
    })
}

/// Why the pod is not ready.
fn pod_problem(pod: &DriverPod, log: Option<&String>) -> Option<Problem> {
    if pod.is_ready {
        return None;
    }
    let label = pod.label();
    let failing = pod.containers.iter().find(|container| !container.is_running);
    let failing = failing.or_else(|| pod.containers.iter().find(|container| !container.is_ready));
    let (container, why) = match failing {
        Some(container) => {
            let ended = container.ended.as_ref().map(|ended| format!("ended with {ended}"));
            let reasons: Vec<String> = container.waiting.clone().into_iter().chain(ended).collect();
            let why = if reasons.is_empty() { "it is not ready".to_owned() } else { reasons.join("; ") };
            (container.name.as_str(), why)
        }
        None => (PLUGIN, pod.message.clone().unwrap_or_else(|| "it is not started".to_owned())),
    };
    let log = log.map(|line| format!("; its log ends with: {line}")).unwrap_or_default();
    let fix = format!(
        "`kubectl describe pod -n {} {}` and `kubectl logs -n {0} {1} -c {container}` have more",
        pod.namespace, pod.name
    );
    Some(Problem::error(format!("container {container} of {label}: {why}{log}"), fix))
}

fn of_node(node: &SeenNode) -> Vec<Check> {
    vec![support::kubernetes("kubelet", &node.kubelet), support::runtime(&node.runtime)]
}

fn pool<'a>(seen: &'a Seen<'_>, name: &str) -> Option<&'a Pool> {
    seen.pools.as_ref().ok()?.iter().find(|pool| *pool.driver == *seen.driver && *pool.name == *name)
}

fn slices(seen: &Seen<'_>, name: &str, answer: Option<&NodeAnswer>) -> Option<Check> {
    let subject = "ResourceSlices";
    seen.pools.as_ref().ok()?;
    let log = "the log of the container `controller` has the reason";
    let has_driver = answer.is_some_and(|answer| answer.checks.nvidia_driver.is_some());
    match pool(seen, name) {
        Some(pool) => Some(match &pool.fault {
            None if pool.devices().next().is_none() && has_driver => {
                let cause = "they have no device, although the NVIDIA driver is loaded";
                Check::bad(subject, Problem::warning(cause, format!("run this again; if it stays so, {log}")))
            }
            None => Check::good(subject, format!("{} with {} devices", pool.slices.len(), pool.devices().count())),
            Some(PoolFault::Incomplete { found, expected }) => {
                let cause =
                    format!("{found} of {expected} are there, and the scheduler uses none of them until all are");
                Check::bad(subject, Problem::warning(cause, format!("run this again; if it stays so, {log}")))
            }
            Some(PoolFault::Duplicate(device)) => {
                let cause = format!("two devices have the name {device}, so that the scheduler uses none");
                Check::bad(
                    subject,
                    Problem::error(cause, "delete the ResourceSlices of the node; the driver creates them again"),
                )
            }
        }),
        None if has_driver => {
            Some(Check::bad(subject, Problem::error("there are none, although the NVIDIA driver is loaded", log)))
        }
        // The check of the NVIDIA driver says whether the node should have GPUs.
        None => None,
    }
}

/// Another program that gives the same GPUs to pods.
fn owners(seen: &Seen<'_>, name: &str, node: Option<&SeenNode>) -> Option<Check> {
    let subject = "owner of the GPUs";
    let own = pool(seen, name)?;
    let uuids: BTreeSet<&str> = own.devices().filter_map(|device| device.text("uuid", &own.driver)).collect();
    let others = seen.pools.as_ref().ok()?.iter().filter(|pool| *pool.driver != *seen.driver);
    let others = others.filter(|pool| {
        pool.devices().any(|device| device.text("uuid", &pool.driver).is_some_and(|uuid| uuids.contains(uuid)))
    });
    let drivers: BTreeSet<String> = others.map(|pool| pool.driver.to_string()).collect();
    let drivers = drivers.into_iter().map(|driver| {
        let cause = format!("the DRA driver {driver} publishes GPUs of this node, too: both would allocate them");
        Problem::error(cause, "uninstall one of the drivers, or keep it from this node by its node selector")
    });
    let plugin = node.filter(|node| !node.plugin_resources.is_empty()).map(|node| {
        let cause = format!("a device plugin offers {} on this node: both would allocate the GPUs", node.plugin_resources.join(", "));
        Problem::error(cause, "remove NVIDIA's device plugin from this node (docs/migration.md); the kubelet forgets its resources after a restart")
    });
    let problems: Vec<Problem> = drivers.chain(plugin).collect();
    let found = if problems.is_empty() { "only this driver" } else { "" };
    Some(Check { subject: subject.to_owned(), found: found.to_owned(), problems })
}

fn clock(error_ms: i64) -> Check {
    if error_ms.abs() <= MAX_CLOCK_ERROR_MS {
        return Check::good("clock", "agrees with the API server");
    }
    let direction = if error_ms > 0 { "ahead of" } else { "behind" };
    let cause = format!("the node is {} s {direction} the API server", error_ms.abs() / 1000);
    Check::bad("clock", Problem::warning(cause, "set up time synchronisation (NTP) on the node"))
}

/// Fields of another version may be missing.
fn version(of_driver: &str) -> Option<Check> {
    let own = env!("CARGO_PKG_VERSION");
    let cause = format!("the driver is of version {of_driver}, this program of {own}");
    (own != of_driver).then(|| Check::bad("versions", Problem::warning(cause, "install both of one version")))
}
