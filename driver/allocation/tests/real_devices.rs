// SPDX-License-Identifier: Apache-2.0
//! Answers for the devices that this driver publishes, from the golden slices of `dra-resource`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops at the first surprise"
)]

use std::path::Path;

use dra_allocation::candidates::{Cluster, NodeView};
use dra_allocation::changes::Question;
use dra_allocation::{
    Answer, Blocked, Change, ChangeKind, ClaimSpec, Classes, NodeFacts, Pools, Rule, Selectors, SliceReader, Usage,
    changes, explain,
};
use serde_json::{Value, json};

/// Golden slices under another node name.
fn slices(file: &str, node: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resource/tests/golden").join(file);
    let text = std::fs::read_to_string(path).unwrap().replace("node-1", node);
    serde_saphyr::from_multiple(&text).unwrap()
}

struct World {
    pools: Pools,
    usage: Usage,
    classes: Classes,
    nodes: Vec<NodeFacts>,
    selectors: Selectors,
}

fn world(nodes: &[(&str, &str)], claims: Value) -> World {
    let mut reader = SliceReader::default();
    for (file, node) in nodes {
        let page = json!({"metadata": {}, "items": slices(file, node)}).to_string();
        assert_eq!(reader.add_page(page.as_bytes()).unwrap(), None);
    }
    let mut usage = Usage::default();
    usage.add_page(json!({"metadata": {}, "items": claims}).to_string().as_bytes()).unwrap();
    let nodes = nodes.iter().map(|(_, node)| NodeFacts::unread((*node).into())).collect();
    World { pools: reader.pools(), usage, classes: classes(), nodes, selectors: Selectors::default() }
}

/// The classes of the chart.
fn classes() -> Classes {
    let class = |name: &str, condition: &str| {
        let expression = format!(r#"device.driver == "gpu.nvidia.com" && {condition}"#);
        json!({"metadata": {"name": name}, "spec": {"selectors": [{"cel": {"expression": expression}}]}})
    };
    let of_type = |kind: &str| format!(r#"device.attributes["gpu.nvidia.com"].type == "{kind}""#);
    let strategy = |name: &str| {
        format!(r#"{} && device.attributes["gpu.nvidia.com"].sharingStrategy == "{name}""#, of_type("shared-gpu"))
    };
    let items = [
        class("gpu.nvidia.com", &of_type("gpu")),
        class("mig.nvidia.com", &of_type("mig")),
        class("mps.gpu.nvidia.com", &strategy("MPS")),
        class("timeslicing.gpu.nvidia.com", &strategy("TimeSlicing")),
    ];
    let mut classes = Classes::default();
    classes.add_page(json!({"items": items}).to_string().as_bytes()).unwrap();
    classes
}

/// A claim that holds a device of node-1.
fn held(name: &str, device: &str, share: Option<Value>) -> Value {
    let mut result = json!({"request": "gpu", "driver": "gpu.nvidia.com", "pool": "node-1", "device": device});
    if let Some(consumed) = share {
        result["shareID"] = json!("00000000-0000-0000-0000-000000000001");
        result["consumedCapacity"] = consumed;
    }
    json!({
        "metadata": {"namespace": "ml", "name": name},
        "status": {
            "allocation": {"devices": {"results": [result]}, "allocationTimestamp": "2026-11-30T10:00:00Z"},
            "reservedFor": [{"resource": "pods", "name": format!("{name}-pod"), "uid": "u"}],
        },
    })
}

fn claim(requests: Value, constraints: Value) -> ClaimSpec {
    ClaimSpec::read("ml/new", json!({"requests": requests, "constraints": constraints})).unwrap()
}

fn request(class: &str, more: Value) -> Value {
    let mut exactly = json!({"deviceClassName": class});
    exactly.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"name": "gpu", "exactly": exactly})
}

impl World {
    fn answers(&self, claim: &ClaimSpec) -> Vec<Answer> {
        let cluster = self.cluster();
        let answer =
            |node| explain(&cluster, &NodeView::new(node, &self.pools, &self.usage), std::slice::from_ref(claim));
        self.nodes.iter().map(answer).collect()
    }

    fn cluster(&self) -> Cluster<'_> {
        Cluster { pools: &self.pools, classes: &self.classes, selectors: &self.selectors }
    }

    fn devices(&self, claim: &ClaimSpec) -> Vec<String> {
        match self.answers(claim).swap_remove(0) {
            Answer::Fits(devices) => devices.iter().map(|found| found.device.device.to_string()).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn blocked(&self, claim: &ClaimSpec) -> Blocked {
        match self.answers(claim).swap_remove(0) {
            Answer::Blocked(blocked) => *blocked,
            other => panic!("{other:?}"),
        }
    }

    fn changes(&self, claim: &ClaimSpec) -> Vec<ChangeKind> {
        let nodes: Vec<(&NodeFacts, Answer)> = self.nodes.iter().zip(self.answers(claim)).collect();
        let (cluster, claims) = (self.cluster(), std::slice::from_ref(claim));
        let question = Question { cluster: &cluster, usage: &self.usage, claims, nodes: &nodes };
        changes(&question).into_iter().map(|Change { kind, .. }| kind).collect()
    }
}

const H100: (&str, &str) = ("models/h100-80.yaml", "node-1");
const T4: (&str, &str) = ("models/t4.yaml", "node-1");

#[test]
fn the_first_free_device_is_taken() {
    let world = world(&[T4], json!([]));
    assert_eq!(world.devices(&claim(json!([request("gpu.nvidia.com", json!({}))]), json!([]))), ["gpu-97722eb3"]);
    let two = claim(json!([request("gpu.nvidia.com", json!({"count": 2}))]), json!([]));
    assert_eq!(world.devices(&two), ["gpu-97722eb3", "gpu-195655dd"]);
    let all = claim(json!([request("gpu.nvidia.com", json!({"allocationMode": "All"}))]), json!([]));
    assert_eq!(world.devices(&all), ["gpu-97722eb3", "gpu-195655dd"]);
}

#[test]
fn another_form_of_a_gpu_is_in_use() {
    let claims = json!([
        held("share", "gpu-97722eb3-mps", Some(json!({"memory": "2Gi", "activeThreadPercentage": "10"}))),
        held("alone", "gpu-195655dd", None)
    ]);
    let world = world(&[T4], claims);
    let blocked = world.blocked(&claim(json!([request("gpu.nvidia.com", json!({}))]), json!([])));
    assert_eq!((blocked.usable, blocked.device.unwrap().device.to_string()), (0, "gpu-97722eb3".to_owned()));
    let Rule::Counters { shortage, holders } = blocked.rule else { panic!("{:?}", blocked.rule) };
    assert_eq!((shortage.counter.as_ref(), holders.as_slice()), ("memory", &[0][..]));
    // A share of the GPU that is shared is still free, and its counters are not taken twice.
    assert_eq!(
        world.devices(&claim(json!([request("mps.gpu.nvidia.com", json!({}))]), json!([]))),
        ["gpu-97722eb3-mps"]
    );
    let found = world.changes(&claim(json!([request("gpu.nvidia.com", json!({}))]), json!([])));
    let class = ChangeKind::Class { request: "gpu".to_owned(), class: "mps.gpu.nvidia.com".to_owned() };
    assert_eq!(found, [ChangeKind::Wait { claims: vec![0] }, class]);
}

#[test]
fn the_memory_of_shares_is_counted() {
    let share = |name, memory: &str| {
        held(name, "gpu-97722eb3-mps", Some(json!({"memory": memory, "activeThreadPercentage": "10"})))
    };
    let world = world(&[T4], json!([share("a", "6Gi"), share("b", "4Gi"), held("alone", "gpu-195655dd", None)]));
    let asks = |memory: &str| {
        claim(json!([request("mps.gpu.nvidia.com", json!({"capacity": {"requests": {"memory": memory}}}))]), json!([]))
    };
    assert_eq!(world.devices(&asks("4Gi")), ["gpu-97722eb3-mps"]);
    let found = world.changes(&asks("8Gi"));
    let less = ChangeKind::Capacity {
        request: "gpu".to_owned(),
        name: "memory".to_owned(),
        amount: "4608Mi".parse().unwrap(),
    };
    // Either the claim of the other GPU ends, or the request is satisfied with what the shared one has left.
    assert_eq!(found, [ChangeKind::Wait { claims: vec![2] }, less]);
    let too_large = world.blocked(&asks("20Gi"));
    assert!(
        matches!(too_large.rule, Rule::Capacity { .. } | Rule::Counters { .. } | Rule::InUse { .. }),
        "{too_large:?}"
    );
}

#[test]
fn partitions_fit_beside_each_other_until_the_counters_are_used_up() {
    let mig = |profile: &str, count: usize| {
        let expression = format!(r#"device.attributes["gpu.nvidia.com"].profile == "{profile}""#);
        let more = json!({"count": count, "selectors": [{"cel": {"expression": expression}}]});
        claim(json!([request("mig.nvidia.com", more)]), json!([]))
    };
    let world = world(&[H100], json!([held("small", "gpu-97722eb3-mig-19-1", None)]));
    assert_eq!(world.devices(&mig("3g.40gb", 1)), ["gpu-97722eb3-mig-9-4"]);
    let blocked = world.blocked(&mig("7g.80gb", 1));
    assert!(matches!(&blocked.rule, Rule::Counters { holders, .. } if holders == &[0]), "{blocked:?}");
    assert_eq!(world.devices(&mig("1g.10gb", 6)).len(), 6);
    let found = world.changes(&mig("3g.40gb", 2));
    let fewer = ChangeKind::Count { request: "gpu".to_owned(), count: 1 };
    assert!(found.contains(&ChangeKind::Wait { claims: vec![0] }) && found.contains(&fewer), "{found:?}");
}

#[test]
fn what_no_device_has_is_named() {
    let world = world(&[T4], json!([]));
    let expression = r#"device.attributes["gpu.nvidia.com"].productName == "NVIDIA Z9000""#;
    let selecting = request("gpu.nvidia.com", json!({"selectors": [{"cel": {"expression": expression}}]}));
    let blocked = world.blocked(&claim(json!([selecting]), json!([])));
    assert_eq!(blocked.rule, Rule::Selector { at: 0, expression: expression.to_owned() });
    let blocked = world.blocked(&claim(json!([request("mig.nvidia.com", json!({}))]), json!([])));
    assert!(matches!(blocked.rule, Rule::Class { .. }), "{blocked:?}");
    let blocked = world.blocked(&claim(json!([request("typo.nvidia.com", json!({}))]), json!([])));
    assert_eq!(blocked.rule, Rule::NoClass);
}

#[test]
fn an_expression_without_a_guard_ends_the_attempt() {
    let world = world(&[T4], json!([]));
    let expression = r#"device.attributes["gpu.nvidia.com"].profile == "1g.10gb""#;
    let selecting = request("gpu.nvidia.com", json!({"selectors": [{"cel": {"expression": expression}}]}));
    let answer = world.answers(&claim(json!([selecting]), json!([]))).swap_remove(0);
    let Answer::Aborted(fault) = answer else { panic!("{answer:?}") };
    assert_eq!((fault.class, fault.device.device.as_ref()), (None, "gpu-97722eb3"));
}

#[test]
fn constraints_choose_devices_that_belong_together() {
    let world = world(&[T4], json!([]));
    let distinct = json!([{"distinctAttribute": "gpu.nvidia.com/gpuUUID"}]);
    let same = json!([{"matchAttribute": "gpu.nvidia.com/gpuUUID"}]);
    let named = |name: &str, class: &str| json!({"name": name, "exactly": {"deviceClassName": class}});
    let two = json!([named("a", "mps.gpu.nvidia.com"), named("b", "mps.gpu.nvidia.com")]);
    assert_eq!(world.devices(&claim(two.clone(), json!([]))), ["gpu-97722eb3-mps", "gpu-97722eb3-mps"]);
    assert_eq!(world.devices(&claim(two, distinct)), ["gpu-97722eb3-mps", "gpu-195655dd-mps"]);
    let forms = json!([named("a", "mps.gpu.nvidia.com"), named("b", "timeslicing.gpu.nvidia.com")]);
    let blocked = world.blocked(&claim(forms, same));
    assert!(matches!(blocked.rule, Rule::Constraint(_)), "{blocked:?}");
}

#[test]
fn alternatives_are_tried_in_their_order() {
    let ask = |name: &str, class: &str| json!({"name": name, "deviceClassName": class});
    let list = json!([{"name": "gpu", "firstAvailable": [ask("whole", "gpu.nvidia.com"), ask("share", "mps.gpu.nvidia.com")]}]);
    let free = world(&[T4], json!([]));
    assert_eq!(free.devices(&claim(list.clone(), json!([]))), ["gpu-97722eb3"]);
    let share = Some(json!({"memory": "2Gi", "activeThreadPercentage": "10"}));
    let used = world(&[T4], json!([held("a", "gpu-97722eb3-mps", share), held("b", "gpu-195655dd", None)]));
    assert_eq!(used.devices(&claim(list, json!([]))), ["gpu-97722eb3-mps"]);
}

#[test]
fn admin_access_takes_nothing_but_needs_free_counters() {
    let admin = || claim(json!([request("gpu.nvidia.com", json!({"adminAccess": true}))]), json!([]));
    let held = json!([held("a", "gpu-97722eb3", None), held("b", "gpu-195655dd", None)]);
    // As the scheduler of Kubernetes 1.37: the counters of a device in use are asked for once more.
    let blocked = world(&[T4], held.clone()).blocked(&admin());
    assert!(matches!(blocked.rule, Rule::Counters { .. }), "{blocked:?}");
    let without = world(&[("h100-8-without-counters.yaml", "node-1")], json!([]));
    let name = without.devices(&admin()).swap_remove(0);
    let used = world(&[("h100-8-without-counters.yaml", "node-1")], json!([self::held("a", &name, None)]));
    assert_eq!(used.devices(&admin()), std::slice::from_ref(&name));
    assert_ne!(used.devices(&claim(json!([request("gpu.nvidia.com", json!({}))]), json!([]))), [name]);
}

#[test]
fn a_tainted_device_goes_to_those_who_tolerate_it() {
    let mut slices = slices("models/t4.yaml", "node-1");
    for device in slices[1]["spec"]["devices"].as_array_mut().unwrap() {
        device["taints"] = json!([{"key": "gpu.nvidia.com/xid", "value": "79", "effect": "NoExecute"}]);
    }
    let mut reader = SliceReader::default();
    reader.add_page(json!({"items": slices}).to_string().as_bytes()).unwrap();
    let world = World { pools: reader.pools(), ..world(&[T4], json!([])) };
    let plain = claim(json!([request("gpu.nvidia.com", json!({}))]), json!([]));
    let blocked = world.blocked(&plain);
    assert_eq!(blocked.rule.taint().map(ToString::to_string).as_deref(), Some("gpu.nvidia.com/xid=79:NoExecute"));
    assert!(matches!(world.changes(&plain).as_slice(), [ChangeKind::Tolerate(_)]), "{:?}", world.changes(&plain));
    let tolerating = json!({"tolerations": [{"key": "gpu.nvidia.com/xid", "operator": "Exists"}]});
    let tolerating = claim(json!([request("gpu.nvidia.com", tolerating)]), json!([]));
    assert_eq!(world.devices(&tolerating), ["gpu-97722eb3"]);
}

/// A node with eight GPUs of which each can have seven partitions: a search without a bound would try all combinations.
#[test]
fn one_partition_more_than_fits_is_refused_at_once() {
    let template = serde_json::to_string(&slices("models/h100-80.yaml", "node-1")).unwrap();
    let [sets, devices] = [(0, "sharedCounters"), (1, "devices")].map(|(at, field)| {
        let read = |gpu: usize| -> Vec<Value> {
            let text = template.replace("97722eb3", &format!("{gpu:08x}"));
            let found: Vec<Value> = serde_json::from_str(&text).unwrap();
            let found = found[at]["spec"][field].as_array().unwrap().clone();
            found.into_iter().filter(|found| found["name"].as_str().unwrap().contains(&format!("{gpu:08x}"))).collect()
        };
        (0..8).flat_map(read).collect::<Vec<Value>>()
    });
    let slice = |name: &str, field: &str, content: &[Value]| {
        let pool = json!({"name": "node-1", "generation": 1, "resourceSliceCount": 2});
        let spec = json!({"driver": "gpu.nvidia.com", "nodeName": "node-1", "pool": pool, field: content});
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let mut reader = SliceReader::default();
    let page = json!({"items": [slice("0", "sharedCounters", &sets), slice("1", "devices", &devices)]});
    reader.add_page(page.to_string().as_bytes()).unwrap();
    // Six GPUs are in use, so two times seven partitions are left.
    let held: Vec<Value> = (0..6).map(|gpu| held(&format!("c{gpu}"), &format!("gpu-{gpu:08x}"), None)).collect();
    let world = World { pools: reader.pools(), ..world(&[H100], json!(held)) };
    let partitions = |count: usize| claim(json!([request("mig.nvidia.com", json!({"count": count}))]), json!([]));
    assert_eq!(world.devices(&partitions(14)).len(), 14);
    assert!(matches!(world.blocked(&partitions(15)).rule, Rule::Together), "{:?}", world.blocked(&partitions(15)));
}
