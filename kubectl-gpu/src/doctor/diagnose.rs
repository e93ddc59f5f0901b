// SPDX-License-Identifier: Apache-2.0
//! All checks, and what could not be checked. Pure.

use super::{Diagnosis, Node, Seen, cluster, nodes};
use crate::driver_pods::Found;

/// The checks of the cluster, then those of each node.
pub fn diagnose(seen: &Seen<'_>) -> Diagnosis {
    let cluster = cluster::checks(seen);
    let nodes = nodes::names(seen).into_iter().map(|name| Node { checks: nodes::checks(seen, &name), name });
    Diagnosis { cluster, nodes: nodes.collect(), notes: notes(seen) }
}

/// The checks that were left out.
fn notes(seen: &Seen<'_>) -> Vec<String> {
    let Seen { server_version, api_versions, gates, classes, pools, pods, .. } = seen;
    let Seen { daemon_sets, denied, policies, nodes, .. } = seen;
    let limited = match pods {
        Ok(Found { missing: Some(right), .. }) => {
            Some(format!("{right} is missing: pods of the driver are looked for in one namespace only"))
        }
        Ok(Found { missing: None, .. }) | Err(_) => None,
    };
    let unread = [
        server_version.as_ref().err(),
        api_versions.as_ref().err(),
        gates.as_ref().err(),
        classes.as_ref().err(),
        pools.as_ref().err(),
        pods.as_ref().err(),
        daemon_sets.as_ref().err(),
        denied.as_ref().err(),
        policies.as_ref().err(),
        nodes.as_ref().err(),
    ];
    let mut notes: Vec<String> = unread.into_iter().flatten().cloned().chain(limited).collect();
    notes.dedup();
    notes
}
