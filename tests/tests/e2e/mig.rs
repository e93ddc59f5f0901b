// SPDX-License-Identifier: Apache-2.0
//! MIG devices that are created for pods: the claims that NVIDIA publishes, other ways to choose, faults, and a full node.

use crate::{
    arena::{Arena, checked, is_ready},
    pods,
};
use dra_demo::text;
use serde_json::{Value, json};
use std::collections::BTreeSet;

crate::case::cases![
    four_containers_divide_one_gpu_in_each_of_four_replicas,
    a_mig_device_is_chosen_by_its_multiprocessors,
    mig_devices_are_spread_counted_and_chosen_in_order,
    an_old_pod_requests_a_mig_device_under_limits,
    a_mig_device_for_a_claim_is_shared_by_its_configuration,
    the_status_and_the_events_of_a_claim_show_its_mig_device,
    a_process_that_stays_delays_the_end_of_its_pod_and_is_named,
    a_plugin_that_is_killed_while_hardware_is_slow_loses_nothing,
    a_full_node_has_no_overlap_and_is_empty_afterwards,
    a_gpu_is_divided_by_a_file_of_mig_parted,
];

const NODE: &str = "node-1";

fn request(name: &str, expression: &str) -> Value {
    let selectors = json!([{"cel": {"expression": expression}}]);
    json!({"name": name, "exactly": {"deviceClassName": "mig.nvidia.com", "selectors": selectors}})
}

fn of_profile(name: &str, profile: &str) -> Value {
    request(name, &format!("device.attributes['gpu.nvidia.com'].profile == '{profile}'"))
}

pub(crate) fn one(expression: &str) -> Value {
    json!({"requests": [request("gpu", expression)]})
}

fn one_of_profile(profile: &str) -> Value {
    json!({"requests": [of_profile("gpu", profile)]})
}

/// Index, profile, GPU instance id and placement of the instances of the node, as `nvidia-smi mig -lgi` prints them.
fn instances(arena: &Arena) -> Vec<(String, String)> {
    let list = arena.node(NODE).nvidia_smi(&["mig", "-lgi"]).unwrap_or_default();
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split_whitespace().collect();
        let at = cells.iter().position(|cell| *cell == "MIG")?;
        Some((cells[at - 1].to_owned(), format!("{} at {}", cells[at + 1], cells.last()?)))
    };
    list.lines().filter_map(row).collect()
}

/// The instances of GPUs that no administrator has divided.
fn created(arena: &Arena) -> Vec<(String, String)> {
    let theirs = dra_demo::scenes::CUT.map(|(gpu, _)| gpu);
    instances(arena).into_iter().filter(|(gpu, _)| !theirs.contains(&gpu.as_str())).collect()
}

fn until_empty(arena: &Arena) {
    arena.until("the end of all MIG devices", || created(arena).is_empty().then_some(()));
    let modes = checked(arena.node(NODE).nvidia_smi(&["--query-gpu=index,mig.mode.current", "--format=csv,noheader"]));
    let on: Vec<&str> = modes.lines().filter(|line| line.ends_with("Enabled")).collect();
    assert_eq!(on.len(), 2, "the GPUs of the administrator: {modes}");
}

fn four_containers_divide_one_gpu_in_each_of_four_replicas(arena: &Arena) {
    arena.ensure_mig();
    let wanted = [("a", "1g.10gb"), ("b", "1g.10gb"), ("c", "2g.20gb"), ("d", "3g.40gb")];
    let requests: Vec<Value> = wanted.iter().map(|(name, profile)| of_profile(name, profile)).collect();
    let constraint = json!({"requests": [], "matchAttribute": "gpu.nvidia.com/parentUUID"});
    let template = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": "quarters"},
        "spec": {"spec": {"devices": {"requests": requests, "constraints": [constraint]}}},
    });
    let container = |name: &str| {
        json!({
            "name": name, "image": "localhost/gpu-demo:latest", "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", "nvidia-smi -L && sleep infinity"],
            "resources": {"claims": [{"name": "gpus", "request": name}]},
        })
    };
    let labels = json!({"app": "quarters"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "quarters"},
        "spec": {"replicas": 4, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "resourceClaims": [{"name": "gpus", "resourceClaimTemplateName": "quarters"}],
                "containers": wanted.map(|(name, _)| container(name)),
            },
        }},
    });
    arena.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [template, deployment]}).to_string());
    let mut gpus = BTreeSet::new();
    for pod in arena.ready_pods("app=quarters", 4) {
        let name = text(&pod, "/metadata/name");
        let seen = wanted.map(|(container, _)| checked(arena.stage().saw_in("default", name, container)).seen);
        let parents: BTreeSet<String> = seen.iter().flat_map(|seen| &seen.gpus).map(|gpu| gpu.uuid.clone()).collect();
        assert_eq!(parents.len(), 1, "all containers of a pod are on one GPU: {seen:?}");
        let profiles: Vec<&str> = seen.iter().flat_map(dra_demo::Seen::migs).map(|mig| mig.profile.as_str()).collect();
        assert_eq!(profiles, wanted.map(|(_, profile)| profile));
        gpus.extend(parents);
    }
    assert_eq!(gpus.len(), 4, "seven of eight slices are in use on each of them");
    for object in ["deployment/quarters", "resourceclaimtemplate/quarters"] {
        arena.kubectl(&["delete", object, "--timeout=60s"]);
    }
    arena.until("the end of the replicas", || arena.list(&["pods", "-l", "app=quarters"]).is_empty().then_some(()));
    until_empty(arena);
}

fn a_mig_device_is_chosen_by_its_multiprocessors(arena: &Arena) {
    let at_least = "device.capacity['gpu.nvidia.com'].multiprocessors.compareTo(quantity('30')) >= 0";
    pods::start(arena, "by-size", NODE, &one(at_least));
    let saw = checked(arena.stage().saw("by-size"));
    assert_eq!(
        saw.seen.migs().map(|mig| mig.profile.as_str()).collect::<Vec<_>>(),
        ["2g.20gb"],
        "the smallest that does"
    );
    pods::remove(arena, "by-size");
}

fn mig_devices_are_spread_counted_and_chosen_in_order(arena: &Arena) {
    arena.ensure_mig();
    let small = |name: &str| of_profile(name, "1g.10gb");
    let apart = json!({"distinctAttribute": "gpu.nvidia.com/parentUUID"});
    let spread = json!({"requests": [small("a"), small("b"), small("c")], "constraints": [apart]});
    let mut ten = small("ten");
    ten["exactly"]["count"] = json!(10);
    let choice = |name: &str, profile: &str| {
        let mut exactly = of_profile(name, profile)["exactly"].take();
        exactly["name"] = json!(name);
        exactly
    };
    // An H100 has no 1g.5gb.
    let choices = [choice("smaller", "1g.5gb"), choice("small", "1g.10gb"), choice("large", "7g.80gb")];
    let chosen = json!({"requests": [{"name": "gpu", "firstAvailable": choices}]});
    let ten = json!({"requests": [ten]});
    for (name, devices) in [("spread", &spread), ("ten", &ten), ("chosen", &chosen)] {
        pods::start(arena, name, NODE, devices);
    }
    let [spread, ten, chosen] = ["spread", "ten", "chosen"].map(|name| checked(arena.stage().saw(name)).seen);
    let uuids = |seen: &dra_demo::Seen| -> BTreeSet<String> { seen.migs().map(|mig| mig.uuid.clone()).collect() };
    let parents: BTreeSet<&str> = spread.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
    assert_eq!((uuids(&spread).len(), parents.len()), (3, 3), "{spread:?}");
    assert_eq!(uuids(&ten).len(), 10, "{ten:?}");
    assert_eq!(chosen.migs().map(|mig| mig.profile.as_str()).collect::<Vec<_>>(), ["1g.10gb"]);
    for name in ["spread", "ten", "chosen"] {
        pods::remove(arena, name);
    }
    until_empty(arena);
}

fn an_old_pod_requests_a_mig_device_under_limits(arena: &Arena) {
    let saw = checked(dra_demo::scenes::old_mig_pod(&arena.stage()));
    assert_eq!(saw.seen.migs().map(|mig| mig.profile.as_str()).collect::<Vec<_>>(), ["1g.10gb"]);
}

fn a_mig_device_for_a_claim_is_shared_by_its_configuration(arena: &Arena) {
    arena.ensure_mig();
    for (pod, sharing) in [
        ("mig-sliced", json!({"strategy": "TimeSlicing"})),
        ("mig-served", json!({"strategy": "MPS", "mpsConfig": {"defaultActiveThreadPercentage": 50}})),
    ] {
        let parameters =
            json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "MigDeviceConfig", "sharing": sharing});
        let mut devices = one_of_profile("1g.20gb");
        devices["config"] = json!([{"opaque": {"driver": "gpu.nvidia.com", "parameters": parameters}}]);
        pods::start(arena, pod, NODE, &devices);
        let saw = checked(arena.stage().saw(pod));
        assert_eq!(saw.seen.migs().count(), 1, "{saw}");
        let environment = checked(arena.stage().run_in("default", pod, "env"));
        assert_eq!(environment.contains("CUDA_MPS_PIPE_DIRECTORY"), pod == "mig-served", "{environment}");
        pods::remove(arena, pod);
    }
    until_empty(arena);
}

fn the_status_and_the_events_of_a_claim_show_its_mig_device(arena: &Arena) {
    pods::start(arena, "shown", NODE, &one_of_profile("3g.40gb"));
    let saw = checked(arena.stage().saw("shown"));
    let uuid = saw.seen.migs().next().unwrap().uuid.clone();
    let claim = || arena.list(&["resourceclaims"]).into_iter().find(|one| text(one, "/metadata/name") == "shown");
    let data = arena.until("the status", || claim()?.pointer("/status/devices/0/data").cloned());
    assert_eq!((text(&data, "/uuid"), text(&data, "/profile")), (uuid.as_str(), "3g.40gb"));
    assert_eq!(data["placement"], json!({"start": 4, "size": 4}), "it breaks fewer others than 0:4");
    let note = |reason: &str| {
        let selector = format!("involvedObject.name=shown,reason={reason}");
        arena.list(&["events", "--field-selector", &selector]).first().map(|event| text(event, "/message").to_owned())
    };
    let made = arena.until("MigCreated", || note("MigCreated"));
    assert!(made.contains(&uuid) && made.ends_with(" ms"), "{made}");
    arena.kubectl(&["delete", "pod", "shown", "--timeout=60s"]);
    arena.until("MigDestroyed", || note("MigDestroyed"));
    arena.kubectl(&["delete", "resourceclaim", "shown", "--timeout=60s"]);
    arena.kubectl(&["delete", "events", "--field-selector", "involvedObject.name=shown"]);
}

fn a_process_that_stays_delays_the_end_of_its_pod_and_is_named(arena: &Arena) {
    arena.ensure_mig();
    pods::start(arena, "stays", NODE, &one_of_profile("1g.10gb"));
    checked(arena.stage().saw("stays"));
    let (gpu, _) = created(arena).first().cloned().unwrap();
    let list = checked(arena.node(NODE).nvidia_smi(&["mig", "-i", &gpu, "-lgi"]));
    let row = list.lines().find(|line| line.contains("MIG 1g.10gb")).unwrap();
    let id = row.trim_matches('|').split_whitespace().nth(4).unwrap().to_owned();
    // A process of a pod that goes on: a simulated GPU knows no other than it is given.
    pods::start(arena, "holder", NODE, &pods::gpu(""));
    checked(arena.stage().saw("holder"));
    let pod = arena.list(&["pods"]).into_iter().find(|pod| text(pod, "/metadata/name") == "holder").unwrap();
    let find = format!(
        "grep -ls pods/{}/etc-hosts /proc/[0-9]*/mountinfo | tail -1 | cut -d/ -f3",
        text(&pod, "/metadata/uid")
    );
    let pid = checked(arena.node(NODE).shell(&find)).trim().to_owned();
    checked(arena.node(NODE).gpu_sim("process", &["--gpu", &gpu, "--gi", &id, &pid]));
    arena.kubectl(&["delete", "pod", "stays", "--wait=false"]);
    arena.until("the reason in the log", || {
        let held =
            |line: &str| line.contains(&format!("held by process {pid} (")) && line.contains(" of pod default/holder)");
        arena.driver_log(NODE, "plugin").lines().any(held).then_some(())
    });
    assert_eq!(created(arena).len(), 1);
    checked(arena.node(NODE).gpu_sim("process", &["--gpu", &gpu, "--end", &pid]));
    pods::remove(arena, "stays");
    pods::remove(arena, "holder");
    until_empty(arena);
}

/// How often the containers of the driver's pod were started again.
fn restarts(arena: &Arena) -> i64 {
    let pod = arena.driver_pod(NODE);
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    statuses.into_iter().flatten().filter_map(|status| status["restartCount"].as_i64()).sum()
}

fn a_plugin_that_is_killed_while_hardware_is_slow_loses_nothing(arena: &Arena) {
    arena.ensure_mig();
    for call in ["nvmlDeviceCreateGpuInstanceWithPlacement", "nvmlGpuInstanceDestroy"] {
        checked(arena.node(NODE).gpu_sim("delay", &[call, "2000"]));
    }
    let names: Vec<String> = (0..3).map(|number| format!("slow-{number}")).collect();
    for name in &names {
        pods::start(arena, name, NODE, &one_of_profile("2g.20gb"));
    }
    for wanted in 1..=2 {
        arena.until("MIG devices", || (created(arena).len() >= wanted).then_some(()));
        let before = restarts(arena);
        checked(arena.node(NODE).shell("kill -KILL $(pgrep -f '^/usr/bin/[g]pu-kubelet-plugin')"));
        arena.until("the plugin is back", || {
            (restarts(arena) > before && is_ready(&arena.driver_pod(NODE))).then_some(())
        });
    }
    let saw: BTreeSet<String> = names
        .iter()
        .flat_map(|name| checked(arena.stage().saw(name)).seen.migs().map(|mig| mig.uuid.clone()).collect::<Vec<_>>())
        .collect();
    assert_eq!((saw.len(), created(arena).len()), (3, 3));
    let objects: Vec<String> =
        names.iter().flat_map(|name| [format!("pod/{name}"), format!("resourceclaim/{name}")]).collect();
    let arguments = ["delete", "--timeout=120s"].into_iter().chain(objects.iter().map(String::as_str));
    arena.kubectl(&arguments.collect::<Vec<_>>());
    checked(arena.node(NODE).gpu_sim("heal", &[]));
    until_empty(arena);
}

/// Asks for more than fits, in an order that differs from pod to pod, until the scheduler has answered each.
fn a_full_node_has_no_overlap_and_is_empty_afterwards(arena: &Arena) {
    arena.ensure_mig();
    let profiles = ["1g.10gb", "3g.40gb", "1g.20gb", "2g.20gb", "1g.10gb+me", "1g.10gb", "4g.40gb", "2g.20gb"];
    let names: Vec<String> = (0..48).map(|number| format!("fill-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        pods::start(arena, name, NODE, &one_of_profile(profiles[number * 5 % profiles.len()]));
    }
    let (mut running, mut waiting) = (BTreeSet::new(), BTreeSet::new());
    arena.until("an answer for every pod", || {
        let pods = arena.list(&["pods"]);
        running = pods.iter().filter(|pod| is_ready(pod)).map(|pod| text(pod, "/metadata/name").to_owned()).collect();
        let events = arena.list(&["events", "--field-selector", "reason=FailedScheduling"]);
        let about = events.iter().map(|event| text(event, "/involvedObject/name").to_owned());
        waiting = about.filter(|name| name.starts_with("fill-") && !running.contains(name)).collect();
        (running.len() + waiting.len() == names.len()).then_some(())
    });
    assert!(!waiting.is_empty() && running.len() > 20, "{} run, {} wait", running.len(), waiting.len());
    let mut uuids = BTreeSet::new();
    for name in &running {
        for mig in checked(arena.stage().saw(name)).seen.migs() {
            assert!(uuids.insert(mig.uuid.clone()), "{} is seen twice", mig.uuid);
        }
    }
    assert_eq!(uuids.len(), running.len());
    arena.kubectl(&["delete", "pods", "--all", "--timeout=120s"]);
    arena.kubectl(&["delete", "resourceclaims", "--all", "--timeout=120s"]);
    arena.kubectl(&["delete", "events", "--field-selector", "reason=FailedScheduling"]);
    until_empty(arena);
}

/// As for a MIG manager: the GPU is divided by an upgrade, a pod uses what was created, and the end of the file takes nothing away.
fn a_gpu_is_divided_by_a_file_of_mig_parted(arena: &Arena) {
    const GPU: &str = "5";
    arena.ensure_mig();
    let file = tempfile::NamedTempFile::new().unwrap();
    let entries = json!([
        {"devices": "all", "mig-enabled": false},
        {"device-filter": ["0x233010DE"], "devices": [5], "mig-enabled": true, "mig-devices": {"4g.40gb": 1, "1c.3g.40gb": 1}},
    ]);
    std::fs::write(file.path(), json!({"version": "v1", "mig-configs": {"split": entries}}).to_string()).unwrap();
    let set_file = format!("mig.static.file={}", file.path().display());
    upgrade(arena, &["--set-file", &set_file, "--set", "mig.static.config=split"]);
    let divided = || created(arena).into_iter().map(|(_, at)| at).collect::<Vec<_>>();
    assert_eq!(divided(), ["3g.40gb at 4:4", "4g.40gb at 0:4"]);
    let is_about_it =
        |event: &Value| event["reason"] == "StaticMigCreated" && text(event, "/note").contains("-mig-9-4-c0-1");
    arena.until("an Event on the Node", || arena.list(&["events.events.k8s.io"]).iter().any(is_about_it).then_some(()));

    pods::start(arena, "part", NODE, &one_of_profile("1c.3g.40gb"));
    let saw = checked(arena.stage().saw("part"));
    assert_eq!(saw.seen.migs().map(|mig| mig.profile.as_str()).collect::<Vec<_>>(), ["1c.3g.40gb"]);
    upgrade(arena, &[]);
    pods::remove(arena, "part");
    assert_eq!(divided().len(), 2, "they stay");
    for args in [["mig", "-i", GPU, "-dci"], ["mig", "-i", GPU, "-dgi"], ["-i", GPU, "-mig", "0"]] {
        checked(arena.node(NODE).nvidia_smi(&args));
    }
    until_empty(arena);
}

fn upgrade(arena: &Arena, values: &[&str]) {
    checked(dra_demo::driver::upgrade(&arena.cluster, &arena.repository, values));
    checked(dra_demo::driver::wait_for_pods(&arena.cluster));
    checked(dra_demo::driver::wait_for_pools(&arena.cluster));
}
