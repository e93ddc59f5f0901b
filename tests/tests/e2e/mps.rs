// SPDX-License-Identifier: Apache-2.0
//! MPS daemons: NVIDIA's own, started for shares, asked from inside pods, killed, and gone in the end.
//!
//! Without a GPU no program of CUDA runs, so no client reaches its server: what is proven is that a client finds the
//! daemon, and its limits and the shared memory with it.

use crate::{
    arena::{Arena, checked},
    pods,
};
use dra_demo::{driver, text};
use serde_json::{Value, json};

crate::case::cases![
    shares_of_other_namespaces_and_users_meet_in_one_daemon,
    a_killed_daemon_is_reported_on_its_claims_and_restarted,
    a_deleted_mps_host_takes_its_daemons_along_and_the_next_one_serves,
];

const NODE: &str = "node-2";
/// A T4.
const GPU: &str = "3";
pub(crate) const CLASS: &str = "mps.gpu.nvidia.com";

/// A control daemon of NVIDIA's as a process of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Daemon {
    pub(crate) id: String,
    pub(crate) pid: String,
    /// In ticks since the start of the machine: with the id of the process, one and the same process.
    started: String,
}

/// All of them on a node. A control program with `-f` is a daemon, one without asks one.
pub(crate) fn daemons(arena: &Arena, node: &str) -> Vec<Daemon> {
    let script = "for pid in $(pgrep -f '[m]ps-control -f'); do
        id=$(tr '\\0' '\\n' </proc/$pid/environ | sed -n 's|^CUDA_MPS_PIPE_DIRECTORY=/run/gpu-dra/mps/\\(.*\\)/run/pipe$|\\1|p')
        echo \"$pid $(cut -d' ' -f22 /proc/$pid/stat) $id\"
    done";
    let lines = checked(arena.node(node).shell(script));
    let daemon = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some(Daemon { pid: words.next()?, started: words.next()?, id: words.next()? })
    };
    lines.lines().filter_map(daemon).collect()
}

/// The only daemon of a node.
pub(crate) fn only_daemon(arena: &Arena, node: &str) -> Daemon {
    let daemons = daemons(arena, node);
    assert_eq!(daemons.len(), 1, "{daemons:?}");
    daemons[0].clone()
}

/// What the daemon answers to a question from inside a pod.
pub(crate) fn asked(arena: &Arena, namespace: &str, pod: &str) -> String {
    let ask = "echo get_default_active_thread_percentage | nvidia-cuda-mps-control";
    checked(arena.stage().run_in(namespace, pod, ask)).trim().to_owned()
}

/// A share by MPS of a GPU of `node-2`.
pub(crate) fn share(arena: &Arena, gpu: &str, amounts: &Value) -> Value {
    pods::share(CLASS, &arena.setting(NODE, gpu).uuid, amounts)
}

fn claim(arena: &Arena, namespace: &str, name: &str) -> Value {
    let claim = arena.kubectl(&["-n", namespace, "get", "resourceclaim", name, "-o", "json"]);
    serde_json::from_str(&claim).unwrap()
}

/// The condition of the claim's only device, once it has this status.
fn mps_ready(arena: &Arena, name: &str, status: &str) -> Value {
    arena.until(&format!("MPSReady {status} on claim {name}"), || {
        let claim = claim(arena, "default", name);
        let conditions = claim.pointer("/status/devices/0/conditions")?.as_array()?.clone();
        conditions.into_iter().find(|it| text(it, "/type") == "MPSReady" && text(it, "/status") == status)
    })
}

/// The text of an Event on a claim.
fn event(arena: &Arena, name: &str, reason: &str) -> String {
    arena.until(&format!("the Event {reason} on claim {name}"), || {
        let about = format!("involvedObject.kind=ResourceClaim,involvedObject.name={name},reason={reason}");
        let events = arena.list(&["events", "--field-selector", &about]);
        events.last().map(|event| text(event, "/message").to_owned())
    })
}

fn no_daemon_is_left(arena: &Arena) {
    assert_eq!(daemons(arena, NODE), []);
    assert_eq!(checked(arena.node(NODE).shell("ls /run/gpu-dra/mps")), "host.lock\nhost.sock\n");
    assert_eq!(checked(arena.node(NODE).shell("grep -c '^gpu-dra-mps /run/gpu-dra/' /proc/mounts || :")), "0\n");
    assert_eq!(arena.setting(NODE, GPU).compute_mode, "Default");
}

fn shares_of_other_namespaces_and_users_meet_in_one_daemon(arena: &Arena) {
    let stage = arena.stage();
    arena.kubectl(&["create", "namespace", "team-b"]);
    // The scheduler counts whole MiB: 1000500Ki are 977 and a bit.
    let amounts = json!({"memory": "1000500Ki", "activeThreadPercentage": "30"});
    pods::start(arena, "asks", NODE, &share(arena, GPU, &amounts));
    pods::start_as(arena, ("team-b", 1000), "asks-nothing", NODE, &share(arena, GPU, &json!({})));
    let both = [("default", "asks"), ("team-b", "asks-nothing")];
    let uuid = arena.setting(NODE, GPU).uuid;
    for (namespace, name) in both {
        assert_eq!(checked(stage.saw_in(namespace, name, "main")).seen.uuids(), [uuid.as_str()]);
        let results = claim(arena, namespace, name)["status"]["allocation"]["devices"]["results"].take();
        let consumed = |what: &str| text(&results[0], &format!("/consumedCapacity/{what}")).to_owned();
        let (memory, threads) = (consumed("memory"), consumed("activeThreadPercentage"));
        if name == "asks" {
            assert_eq!((memory.as_str(), threads.as_str()), ("978Mi", "30"), "{results}");
        }
        let env = checked(stage.run_in(namespace, name, "env | grep ^CUDA_MPS_ | sort"));
        let megabytes = memory.strip_suffix("Mi").unwrap();
        let expect = format!(
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE={threads}\nCUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0={megabytes}M\n\
             CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps/pipe\n"
        );
        assert_eq!(env, expect, "{namespace}/{name}");
        assert_eq!(asked(arena, namespace, name), "100.0");
    }
    assert_eq!(arena.setting(NODE, GPU).compute_mode, "Exclusive_Process");
    let daemon = only_daemon(arena, NODE);
    assert_eq!(daemon.id, format!("gpu-{}", uuid["GPU-".len()..].replace('-', "")));
    checked(stage.run_in("default", "asks", "echo hello >/dev/shm/greeting"));
    assert_eq!(checked(stage.run_in("team-b", "asks-nothing", "cat /dev/shm/greeting")), "hello\n");
    mps_ready(arena, "asks", "True");
    let device = claim(arena, "default", "asks")["status"]["devices"][0].take();
    let expect = json!({
        "type": "shared-gpu", "uuid": uuid, "shareID": device["shareID"], "strategy": "MPS",
        "computeMode": "Exclusive_Process", "limits": {"memory": "978Mi", "activeThreadPercentage": 30},
        "daemon": {"id": daemon.id, "state": "MPSDaemonReady", "multiUser": false},
    });
    assert_eq!(device["data"], expect);
    pods::remove_in(arena, "team-b", "asks-nothing");
    assert_eq!(only_daemon(arena, NODE), daemon, "the other share still uses it");
    assert_eq!(asked(arena, "default", "asks"), "100.0");
    pods::remove(arena, "asks");
    arena.kubectl(&["delete", "namespace", "team-b", "--wait=false"]);
    no_daemon_is_left(arena);
}

fn a_killed_daemon_is_reported_on_its_claims_and_restarted(arena: &Arena) {
    pods::start(arena, "client", NODE, &share(arena, GPU, &json!({})));
    checked(arena.stage().saw("client"));
    mps_ready(arena, "client", "True");
    let killed = only_daemon(arena, NODE);
    checked(arena.node(NODE).shell(&format!("kill -KILL {}", killed.pid)));
    let message = event(arena, "client", "MPSDaemonExited");
    assert!(message.contains(&killed.id), "{message}");
    let next = arena.until("the next daemon", || daemons(arena, NODE).into_iter().find(|daemon| *daemon != killed));
    assert_eq!(next.id, killed.id);
    event(arena, "client", "MPSDaemonReady");
    mps_ready(arena, "client", "True");
    assert_eq!(asked(arena, "default", "client"), "100.0", "a container that runs finds the new daemon");
    pods::remove(arena, "client");
    no_daemon_is_left(arena);
}

fn a_deleted_mps_host_takes_its_daemons_along_and_the_next_one_serves(arena: &Arena) {
    pods::start(arena, "client", NODE, &share(arena, GPU, &json!({})));
    checked(arena.stage().saw("client"));
    let before = only_daemon(arena, NODE);
    let label = "app.kubernetes.io/component=mps-host";
    let of_node = format!("spec.nodeName={NODE}");
    let of_node = ["-n", driver::NAMESPACE, "-l", label, "--field-selector", &of_node];
    arena.kubectl(&[&["delete", "pod", "--timeout=60s"], &of_node[..]].concat());
    checked(driver::wait_for_mps_hosts(&arena.cluster));
    // The driver knows from its records which daemons there have to be.
    let next = arena.until("the daemon again", || daemons(arena, NODE).into_iter().find(|daemon| *daemon != before));
    assert_eq!(next.id, before.id);
    mps_ready(arena, "client", "True");
    pods::start(arena, "newcomer", NODE, &share(arena, GPU, &json!({})));
    checked(arena.stage().saw("newcomer"));
    assert_eq!(asked(arena, "default", "newcomer"), "100.0");
    for name in ["client", "newcomer"] {
        pods::remove(arena, name);
    }
    no_daemon_is_left(arena);
}
