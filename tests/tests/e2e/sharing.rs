// SPDX-License-Identifier: Apache-2.0
//! Forms of a GPU for many claims: how the scheduler counts them, and what a GPU is set to meanwhile.

use crate::{
    arena::{Arena, checked},
    mps, pods,
};
use dra_demo::{published, scenes, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;

crate::case::cases![
    every_gpu_has_three_forms_on_one_counter_set,
    the_eleventh_share_by_time_slicing_waits_and_so_does_a_whole_gpu,
    another_interval_is_refused_with_both_claims_named,
    settings_of_an_administrator_are_restored,
    invalid_configurations_are_refused_with_the_field_and_the_reason,
    sharing_leaves_nothing_behind,
];

const NODE: &str = "node-2";
/// A T4.
const GPU: &str = "2";
pub(crate) const TIME_SLICING: &str = "timeslicing.gpu.nvidia.com";

fn every_gpu_has_three_forms_on_one_counter_set(arena: &Arena) {
    arena.ensure_mig();
    let slices = checked(published::slices(&arena.cluster));
    let devices = slices.iter().filter_map(|slice| slice["spec"]["devices"].as_array()).flatten();
    let mut forms = BTreeMap::<&str, Vec<&Value>>::new();
    for device in devices.filter(|device| text(device, "/attributes/type/string") != "mig") {
        forms.entry(text(device, "/attributes/uuid/string")).or_default().push(device);
    }
    assert_eq!(forms.len(), 10, "twelve GPUs, of which two are cut: {:?}", forms.keys());
    for (uuid, devices) in forms {
        let of = |pointer: &str| devices.iter().map(|device| text(device, pointer)).collect::<Vec<_>>();
        assert_eq!(of("/attributes/type/string"), ["gpu", "shared-gpu", "shared-gpu"], "{uuid}");
        assert_eq!(of("/attributes/sharingStrategy/string"), ["", "MPS", "TimeSlicing"], "{uuid}");
        let sets = of("/consumesCounters/0/counterSet");
        assert!(!sets[0].is_empty() && sets.iter().all(|set| *set == sets[0]), "{uuid}: {sets:?}");
        for (device, other) in devices[1..].iter().zip(["activeThreadPercentage", "shares"]) {
            assert_eq!(device["allowMultipleAllocations"], json!(true), "{device}");
            for capacity in ["memory", other] {
                let default = device["capacity"][capacity].pointer("/requestPolicy/default");
                assert!(default.is_some(), "{capacity} of {device}");
            }
        }
    }
}

/// A share of a T4 by time-slicing.
fn time_slices(arena: &Arena, amounts: &Value) -> Value {
    pods::share(TIME_SLICING, &arena.setting(NODE, GPU).uuid, amounts)
}

fn whole(arena: &Arena) -> Value {
    pods::gpu(&format!("device.attributes['gpu.nvidia.com'].uuid == '{}'", arena.setting(NODE, GPU).uuid))
}

/// Waits until the scheduler says that a pod fits nowhere.
pub(crate) fn waits(arena: &Arena, pod: &str) {
    arena.until(&format!("the scheduler's word on {pod}"), || {
        let selector = format!("involvedObject.name={pod},reason=FailedScheduling");
        let events = arena.list(&["events", "--field-selector", &selector]);
        events.iter().find(|event| text(event, "/message").contains("cannot allocate all claims")).map(drop)
    });
}

fn the_eleventh_share_by_time_slicing_waits_and_so_does_a_whole_gpu(arena: &Arena) {
    let stage = arena.stage();
    pods::start(arena, "nine", NODE, &time_slices(arena, &json!({"shares": "9"})));
    pods::start(arena, "tenth", NODE, &time_slices(arena, &json!({})));
    for pod in ["nine", "tenth"] {
        assert_eq!(checked(stage.saw(pod)).seen.uuids(), [arena.setting(NODE, GPU).uuid.as_str()]);
    }
    pods::start(arena, "eleventh", NODE, &time_slices(arena, &json!({})));
    waits(arena, "eleventh");
    pods::start(arena, "whole", NODE, &whole(arena));
    waits(arena, "whole");
    pods::remove(arena, "tenth");
    checked(stage.saw("eleventh"));
    for pod in ["nine", "eleventh"] {
        pods::remove(arena, pod);
    }
    checked(stage.saw("whole"));
    pods::remove(arena, "whole");
}

fn another_interval_is_refused_with_both_claims_named(arena: &Arena) {
    let request = |interval: &str| {
        let sharing = json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": interval}});
        pods::shared_by(time_slices(arena, &json!({})), &sharing)
    };
    pods::start(arena, "first", NODE, &request("Long"));
    checked(arena.stage().saw("first"));
    assert_eq!(arena.setting(NODE, GPU).interval, "Long");
    pods::start(arena, "second", NODE, &request("Short"));
    let message = pods::failure_of(arena, "second");
    for part in ["default/second", "default/first", "Short", "Long"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    assert_eq!(arena.setting(NODE, GPU).interval, "Long");
    pods::remove(arena, "first");
    checked(arena.stage().saw("second"));
    assert_eq!(arena.setting(NODE, GPU).interval, "Short");
    pods::remove(arena, "second");
    assert_eq!(arena.setting(NODE, GPU).interval, "Default");
}

fn settings_of_an_administrator_are_restored(arena: &Arena) {
    arena.set(NODE, GPU, "PROHIBITED", 3);
    let exclusive = pods::shared_by(whole(arena), &json!({"strategy": "Exclusive"}));
    let time_slices = json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Short"}});
    for (devices, expect) in [
        (exclusive, ("Exclusive_Process", "Long")),
        (pods::shared_by(whole(arena), &time_slices), ("Default", "Short")),
        (mps::share(arena, GPU, &json!({})), ("Exclusive_Process", "Long")),
    ] {
        pods::start(arena, "sharer", NODE, &devices);
        checked(arena.stage().saw("sharer"));
        let found = arena.setting(NODE, GPU);
        assert_eq!((found.compute_mode.as_str(), found.interval.as_str()), expect, "{devices}");
        let query = "nvidia-smi --query-gpu=compute_mode --format=csv,noheader";
        assert_eq!(checked(arena.stage().run_in("default", "sharer", query)).trim(), expect.0);
        pods::remove(arena, "sharer");
        let found = arena.setting(NODE, GPU);
        assert_eq!((found.compute_mode.as_str(), found.interval.as_str()), ("Prohibited", "Long"), "{devices}");
    }
    arena.set(NODE, GPU, "DEFAULT", 0);
}

fn invalid_configurations_are_refused_with_the_field_and_the_reason(arena: &Arena) {
    arena.ensure_mig();
    let answers = checked(scenes::invalid_config(&arena.stage())).answers;
    let expect = [
        ("wrong-amount", "cannot allocate all claims"),
        ("wrong-details", "sharing.mpsConfig is not for the strategy TimeSlicing; remove it"),
        ("wrong-exclusive-mig", "sharing.strategy cannot be Exclusive on a MIG device: it has no compute mode"),
        ("wrong-index", "defaultPerDevicePinnedMemoryLimit.1 names no device of its requests"),
        ("wrong-interval", "interval is \"medium\": expected `Default`, `Short`, `Medium` or `Long`"),
        ("wrong-limits", "set memory and activeThreadPercentage in its capacity.requests"),
        ("wrong-percentage", "defaultActiveThreadPercentage is 150: expected a whole number from 1 to 100"),
    ];
    assert_eq!(answers.keys().map(String::as_str).collect::<Vec<_>>(), expect.map(|(pod, _)| pod));
    for (pod, part) in expect {
        assert!(answers[pod].contains(part), "{part:?} is not in the answer to {pod}: {}", answers[pod]);
    }
}

fn sharing_leaves_nothing_behind(arena: &Arena) {
    for node in ["node-1", "node-2"] {
        assert_eq!(mps::daemons(arena, node), []);
        assert_eq!(checked(arena.node(node).shell("ls /run/gpu-dra/mps")), "host.lock\nhost.sock\n");
        assert_eq!(checked(arena.node(node).shell("grep -c '^gpu-dra-mps /run/gpu-dra/' /proc/mounts || :")), "0\n");
        for dir in ["claims", "gpus", "quarantine"] {
            assert_eq!(arena.files(node, &crate::arena::state_dir(dir)), Vec::<String>::new(), "{dir} of {node}");
        }
        for gpu in arena.settings(node) {
            assert_eq!((gpu.compute_mode.as_str(), gpu.interval.as_str()), ("Default", "Default"), "{gpu} of {node}");
        }
    }
}
