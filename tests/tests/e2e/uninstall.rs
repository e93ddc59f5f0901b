// SPDX-License-Identifier: Apache-2.0
//! The last case: nothing of the driver is left.

use crate::arena::{Arena, told};
use dra_demo::{driver, text};

crate::cases![uninstall_leaves_nothing_behind];

fn uninstall_leaves_nothing_behind(arena: &Arena) {
    told(driver::uninstall(&arena.cluster));
    let ours = |what: &str| {
        let found = arena.list(&[what]).into_iter().map(|object| text(&object, "/metadata/name").to_owned());
        found.filter(|name| name.contains("gpu-dra") || name.contains("nvidia")).collect::<Vec<_>>()
    };
    for kind in [
        "resourceslices",
        "deviceclasses",
        "clusterroles",
        "clusterrolebindings",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    ] {
        assert_eq!(ours(kind), Vec::<String>::new(), "{kind}");
    }
    for kind in ["daemonsets", "pods", "jobs", "serviceaccounts", "roles", "rolebindings", "resourceclaimtemplates"] {
        let objects = arena.list(&[kind, "-n", driver::NAMESPACE]);
        let names: Vec<_> = objects.iter().map(|object| text(object, "/metadata/name")).collect();
        let left: Vec<_> = names.into_iter().filter(|name| *name != "default").collect();
        assert!(left.is_empty(), "{kind}: {left:?}");
    }
    for node in arena.cluster.nodes() {
        for dir in ["/var/run/cdi", "/var/lib/kubelet/plugins", "/var/lib/kubelet/plugins_registry"] {
            let left = arena.files(node.name(), dir);
            assert!(left.is_empty(), "on {}: {left:?}", node.name());
        }
    }
}
