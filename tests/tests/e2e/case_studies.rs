// SPDX-License-Identifier: Apache-2.0
//! The two clusters of `docs/tenants.md` at their real size, on nodes that exist on paper only: the examples of the chart are
//! installed, every quota is filled, and the next pod of each tenant is refused.

use crate::{
    arena::Arena,
    paper,
    tenants::{Tenants, claim, event, template},
};
use dra_demo::text;
use serde_json::{Value, json};
use std::collections::BTreeSet;

crate::case::cases![
    training_and_inference_run_beside_each_other_at_full_size,
    three_teams_share_a_cluster_with_a_buffer_at_full_size,
];

/// A tenant, what its pods ask for, and how many of them its quota admits.
struct Tenant {
    namespace: &'static str,
    class: &'static str,
    devices_per_pod: u32,
    pods: u32,
    /// What the quota counts.
    key: &'static str,
    /// In the product name of every GPU that it gets.
    product: &'static str,
}

impl Tenant {
    fn devices(&self) -> u32 {
        self.devices_per_pod * self.pods
    }

    fn request(&self, count: u32) -> Value {
        json!({"requests": [{"name": "gpu", "exactly": {"deviceClassName": self.class, "count": count}}]})
    }
}

/// The chart with an example, once its limits are active.
fn install<'a>(arena: &'a Arena, example: &str, tenants: &[Tenant]) -> Tenants<'a> {
    let chart = Tenants::with_examples(arena, &[example]);
    for tenant in tenants {
        chart.until_active(&claim("probe", tenant.namespace, &tenant.request(9)));
    }
    chart.until_active(&claim("probe", "default", &tenants[0].request(1)));
    chart
}

/// Fills the quota of a tenant and has one pod more refused.
fn fill(arena: &Arena, tenant: &Tenant) {
    let template = template("gpus", tenant.namespace, &tenant.request(tenant.devices_per_pod));
    let pods: Vec<Value> = (0..tenant.pods).map(|at| pod(tenant.namespace, &format!("pod-{at}"))).collect();
    let items = [vec![template], pods].concat();
    arena.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
    arena.until(&format!("{} pods of {} with a node", tenant.pods, tenant.namespace), || {
        let pods = arena.list(&["pods", "-n", tenant.namespace]);
        let placed = pods.iter().filter(|pod| !text(pod, "/spec/nodeName").is_empty()).count();
        (u32::try_from(placed).unwrap() == tenant.pods).then_some(())
    });
    arena.apply(&pod(tenant.namespace, "one-too-many").to_string());
    let refused = event(arena, tenant.namespace, "FailedResourceClaimCreation");
    let Tenant { devices_per_pod, key, .. } = tenant;
    let used = tenant.devices();
    let by_quota = format!(
        "is forbidden: exceeded quota: gpu-tenants, requested: {key}={devices_per_pod}, used: {key}={used}, limited: {key}={used}"
    );
    assert!(refused.contains(&by_quota), "{refused}");
}

fn pod(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "nodeSelector": {"paper": "true"}, "tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 0,
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "gpus"}],
            "containers": [{"name": "main", "image": "localhost/never-started", "resources": {"claims": [{"name": "gpu"}]}}],
        },
    })
}

/// The GPUs of a tenant as pool and name, after a check that all are of its product.
fn allocated(arena: &Arena, tenant: &Tenant) -> BTreeSet<(String, String)> {
    let pools = arena.pools();
    let claims = arena.list(&["resourceclaims", "-n", tenant.namespace]);
    let results =
        claims.iter().filter_map(|claim| claim.pointer("/status/allocation/devices/results").and_then(Value::as_array));
    let found: Vec<_> = results
        .flatten()
        .map(|result| (text(result, "/pool").to_owned(), text(result, "/device").to_owned()))
        .collect();
    for (pool, name) in &found {
        let device = pools[pool].devices.iter().find(|device| device.name == *name).unwrap();
        assert!(device.kind == "gpu" && device.product_name.contains(tenant.product), "{pool}/{name}: {device:?}");
    }
    assert_eq!(found.len(), usize::try_from(tenant.devices()).unwrap(), "{}", tenant.namespace);
    found.into_iter().collect()
}

/// Removes the pods of tenants at once: no kubelet does.
fn delete_pods(arena: &Arena, tenants: &[Tenant]) {
    for tenant in tenants {
        arena.kubectl(&["delete", "pods", "--all", "-n", tenant.namespace, "--grace-period=0", "--force"]);
    }
}

/// Installs an example, fills all quotas, and returns how many different GPUs are allocated.
fn play(arena: &Arena, example: &str, tenants: &[Tenant]) -> usize {
    let _chart = install(arena, example, tenants);
    let mut all = BTreeSet::new();
    for tenant in tenants {
        fill(arena, tenant);
        all.extend(allocated(arena, tenant));
    }
    delete_pods(arena, tenants);
    all.len()
}

/// How many whole GPUs the nodes of this test publish.
fn gpus_on_paper(arena: &Arena) -> usize {
    let pools = arena.pools();
    pools.iter().filter(|(name, _)| name.starts_with("paper-")).map(|(_, pool)| pool.of_kind("gpu").count()).sum()
}

/// Eight nodes with 8 A100 and four with 4 T4.
pub(crate) fn create_training_and_inference(arena: &Arena) {
    for node in 1..=8 {
        paper::create_node_with_gpus(arena, &format!("paper-a100-{node}"), "a100-40", 8);
    }
    for node in 1..=4 {
        paper::create_node_with_gpus(arena, &format!("paper-t4-{node}"), "t4", 4);
    }
    assert_eq!(gpus_on_paper(arena), 64 + 16);
}

fn training_and_inference_run_beside_each_other_at_full_size(arena: &Arena) {
    create_training_and_inference(arena);
    let training = Tenant {
        namespace: "training",
        class: "gpu-training",
        devices_per_pod: 8,
        pods: 6,
        key: "gpu-training.deviceclass.resource.k8s.io/devices",
        product: "A100",
    };
    let inference = Tenant {
        namespace: "inference",
        class: "gpu-inference",
        devices_per_pod: 1,
        pods: 12,
        key: "gpu-inference.deviceclass.resource.k8s.io/devices",
        product: "T4",
    };
    assert_eq!(play(arena, "training-and-inference.yaml", &[training, inference]), 48 + 12);
    paper::delete_nodes(arena);
}

fn three_teams_share_a_cluster_with_a_buffer_at_full_size(arena: &Arena) {
    for node in 1..=12 {
        paper::create_node_with_gpus(arena, &format!("paper-a100-{node}"), "a100-40", 8);
    }
    assert_eq!(gpus_on_paper(arena), 96);
    let of = |namespace, devices_per_pod, pods| Tenant {
        namespace,
        class: "gpu-a100",
        devices_per_pod,
        pods,
        key: "requests.example.com/a100",
        product: "A100",
    };
    let tenants = [of("team-language", 8, 4), of("team-vision", 4, 6), of("team-speech", 1, 16), of("buffer", 2, 4)];
    assert_eq!(play(arena, "shared-cluster.yaml", &tenants), 32 + 24 + 16 + 8);
    paper::delete_nodes(arena);
}
