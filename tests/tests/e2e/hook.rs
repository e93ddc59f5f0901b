// SPDX-License-Identifier: Apache-2.0
//! The hook of the CDI specs in containers that containerd and runc start.

use crate::{
    arena::{Arena, checked},
    pods,
};
use serde_json::{Value, json};

crate::case::cases![
    the_cache_of_the_loader_has_the_libraries_of_the_driver,
    pods_in_a_user_namespace_have_gpus_and_mig_devices,
    a_hook_program_that_was_removed_comes_back,
];

const NODE: &str = "node-2";
const DIR: &str = "/opt/gpu-dra/gpu.nvidia.com";
const LIBRARIES: [&str; 2] = ["libcuda.so.1", "libnvidia-ml.so.1"];

/// What `ldconfig` of the image prints of its cache.
fn cache(arena: &Arena, pod: &str) -> String {
    checked(arena.stage().run_in("default", pod, "ldconfig -p"))
}

fn start(arena: &Arena, name: &str, security_context: &Value) {
    pods::start_restricted(arena, "default", name, NODE, &pods::gpu(""), security_context);
    checked(arena.stage().saw(name));
}

fn the_cache_of_the_loader_has_the_libraries_of_the_driver(arena: &Arena) {
    for (name, security_context) in [
        ("as-root", json!({})),
        ("as-user", json!({"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": false})),
        ("read-only", json!({"readOnlyRootFilesystem": true})),
    ] {
        start(arena, name, &security_context);
        let cache = cache(arena, name);
        assert!(LIBRARIES.iter().all(|library| cache.contains(library)), "{name}: {cache}");
        pods::remove(arena, name);
    }
}

/// The simulated driver has its device files in its own root, and no program of NVIDIA creates capability files.
fn pods_in_a_user_namespace_have_gpus_and_mig_devices(arena: &Arena) {
    arena.ensure_mig();
    let mut mig = pods::gpu("");
    mig["requests"][0]["exactly"]["deviceClassName"] = json!("mig.nvidia.com");
    for (name, node, devices) in [("mapped-gpu", NODE, pods::gpu("")), ("mapped-mig", "node-1", mig)] {
        pods::start_in_user_namespace(arena, name, node, &devices);
        let saw = checked(arena.stage().saw(name));
        assert_eq!(saw.seen.gpus.len(), 1, "{:?}", saw.seen);
        let map = checked(arena.stage().run_in("default", name, "cat /proc/self/uid_map"));
        assert_ne!(map.split_whitespace().nth(1), Some("0"), "a user namespace of its own: {map}");
        assert!(cache(arena, name).contains(LIBRARIES[0]));
        pods::remove(arena, name);
    }
}

fn a_hook_program_that_was_removed_comes_back(arena: &Arena) {
    let programs = || arena.files(NODE, DIR);
    let before = programs();
    assert!(matches!(&before[..], [path] if path.starts_with(&format!("{DIR}/gpu-cdi-hook-"))), "{before:?}");
    checked(arena.node(NODE).shell(&format!("rm -r {DIR}/*")));
    // Nothing is prepared, since a container that starts again needs it too.
    arena.until("the hook program", || (programs() == before).then_some(()));
    start(arena, "after-removal", &json!({}));
    assert!(cache(arena, "after-removal").contains(LIBRARIES[0]));
    pods::remove(arena, "after-removal");
}
