// SPDX-License-Identifier: Apache-2.0
//! The last cases: what is left of the driver under claims that are used, and nothing without.

use crate::{
    arena::{Arena, checked, state_dir},
    mps, pods, sharing,
};
use dra_demo::{driver, settings::GpuSetting, text};
use serde_json::{Value, json};
use std::process::Command;

crate::case::cases![uninstall_restores_gpus_that_claims_still_use, uninstall_leaves_nothing_behind];

const NODE: &str = "node-2";
/// Two A100 and two T4.
const GPUS: [&str; 4] = ["0", "1", "2", "3"];
/// Where a daemon cannot be removed, and its H100.
const OTHER: (&str, &str) = ("node-1", "4");
/// Looks like the place of a daemon, and holds what is of none.
const PLACE: &str = "/run/gpu-dra/mps/gpu-ffffffffffffffffffffffffffffffff";

fn uninstall_restores_gpus_that_claims_still_use(arena: &Arena) {
    let gpus = || GPUS.map(|gpu| (NODE, gpu)).into_iter().chain([OTHER]);
    gpus().for_each(|(node, gpu)| arena.set(node, gpu, "PROHIBITED", 3));
    let found = arena.settings(NODE);
    let users = start_users(arena, &found);
    assert_eq!(
        modes(&arena.settings(NODE)),
        ["Exclusive_Process, Long", "Exclusive_Process, Long", "Default, Short", "Exclusive_Process, Long"]
    );
    assert_eq!(mps::daemons(arena, NODE).len(), 2);
    checked(arena.node(OTHER.0).shell(&format!("mkdir -p {PLACE}/photos && touch {PLACE}/photos/1")));
    let output_text = uninstall_within(arena, 30);
    assert!(
        output_text.contains("node-1") && output_text.contains("photos") && !output_text.contains("node-2"),
        "{output_text}"
    );
    checked(arena.node(OTHER.0).shell(&format!("rm -r {PLACE}")));
    assert_eq!(arena.settings(NODE), found);
    assert_eq!(modes(&[arena.setting(OTHER.0, OTHER.1)]), ["Prohibited, Long"], "whatever else failed there");
    no_trace_of_mps(arena);
    no_object_is_left(arena);
    assert_eq!(arena.files(NODE, &state_dir("gpus")), Vec::<String>::new());
    // A new installation can stop them: a record for each, and what their containers need to be started again.
    assert_eq!(arena.files(NODE, &state_dir("claims")).len(), users.len() - 1);
    let specs = arena.files(NODE, "/var/run/cdi");
    assert_eq!(specs.len(), users.len(), "{specs:?}");
    checked(driver::install(&arena.cluster, &arena.repository));
    for user in users {
        pods::remove(arena, user);
    }
    assert_eq!(arena.files(NODE, &state_dir("claims")), Vec::<String>::new());
    assert_eq!(arena.settings(NODE), found);
    gpus().for_each(|(node, gpu)| arena.set(node, gpu, "DEFAULT", 0));
}

/// Uninstalls, with so many seconds for the work on the nodes, and returns everything that Helm says.
fn uninstall_within(arena: &Arena, seconds: u32) -> String {
    let timeout = format!("withdraw.timeoutSeconds={}", 3 * seconds);
    checked(driver::upgrade(&arena.cluster, &arena.repository, &["--set", &timeout]));
    let mut helm = Command::new("sh");
    helm.args(["-c", "exec helm uninstall --namespace \"$0\" --wait --timeout 120s \"$1\" 2>&1"]);
    let output = arena.cluster.equip(&mut helm).args([driver::NAMESPACE, driver::RELEASE]).output().unwrap();
    let output_text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{output_text}");
    output_text
}

/// A pod for each way to share.
fn start_users(arena: &Arena, gpus: &[GpuSetting]) -> [&'static str; 6] {
    let whole = |gpu: &GpuSetting| pods::gpu(&format!("device.attributes['gpu.nvidia.com'].uuid == '{}'", gpu.uuid));
    let strategy = |strategy: &str| json!({ "strategy": strategy });
    let short = json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Short"}});
    let time_slices = pods::share(sharing::TIME_SLICING, &gpus[2].uuid, &json!({}));
    let other = arena.setting(OTHER.0, OTHER.1);
    let users: [(&str, &str, Value); 6] = [
        ("exclusive", NODE, pods::shared_by(whole(&gpus[0]), &strategy("Exclusive"))),
        ("mps", NODE, pods::shared_by(whole(&gpus[1]), &strategy("MPS"))),
        ("time-slices", NODE, pods::shared_by(time_slices, &short)),
        ("share-a", NODE, mps::share(arena, GPUS[3], &json!({}))),
        ("share-b", NODE, mps::share(arena, GPUS[3], &json!({}))),
        ("other", OTHER.0, pods::shared_by(whole(&other), &strategy("Exclusive"))),
    ];
    for (name, node, devices) in &users {
        pods::start(arena, name, node, devices);
    }
    users.map(|(name, ..)| {
        checked(arena.stage().saw(name));
        name
    })
}

fn modes(gpus: &[GpuSetting]) -> Vec<String> {
    gpus.iter().map(|gpu| format!("{}, {}", gpu.compute_mode, gpu.interval)).collect()
}

fn no_trace_of_mps(arena: &Arena) {
    for node in arena.cluster.nodes() {
        let prints = |script: &str| checked(node.shell(script));
        assert_eq!(prints("pgrep -fa '[n]vidia-cuda-mps' || :"), "", "on {}", node.name());
        assert_eq!(prints("[ ! -d /run/gpu-dra/mps ] || ls -A /run/gpu-dra/mps"), "", "on {}", node.name());
        assert_eq!(prints("grep /run/gpu-dra /proc/mounts || :"), "", "on {}", node.name());
    }
}

fn uninstall_leaves_nothing_behind(arena: &Arena) {
    checked(driver::uninstall(&arena.cluster));
    no_object_is_left(arena);
    no_trace_of_mps(arena);
    for node in arena.cluster.nodes() {
        for dir in ["/var/run/cdi", "/opt/gpu-dra", "/var/lib/kubelet/plugins", "/var/lib/kubelet/plugins_registry"] {
            let left = arena.files(node.name(), dir);
            assert!(left.is_empty(), "on {}: {left:?}", node.name());
        }
    }
}

/// In the API server.
fn no_object_is_left(arena: &Arena) {
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
    for kind in ["daemonsets", "jobs", "serviceaccounts", "roles", "rolebindings", "leases", "resourceclaimtemplates"] {
        let left = left_in_the_namespace(arena, kind);
        assert!(left.is_empty(), "{kind}: {left:?}");
    }
    // The garbage collector removes the pods of a removed DaemonSet, which Helm does not wait for.
    arena.until("the last pod of the driver to go", || left_in_the_namespace(arena, "pods").is_empty().then_some(()));
}

fn left_in_the_namespace(arena: &Arena, kind: &str) -> Vec<String> {
    let objects = arena.list(&[kind, "-n", driver::NAMESPACE]);
    let names = objects.iter().map(|object| text(object, "/metadata/name").to_owned());
    names.filter(|name| name != "default").collect()
}
