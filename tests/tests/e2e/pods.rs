// SPDX-License-Identifier: Apache-2.0
//! Pods that the files of the demo do not have: on a node, with a claim that a case wants.

use crate::arena::Arena;
use dra_demo::{published, text};
use serde_json::{Value, json};

/// A request for a GPU for which this is true; empty means any.
pub(crate) fn gpu(expression: &str) -> Value {
    let selectors = if expression.is_empty() { json!([]) } else { json!([{"cel": {"expression": expression}}]) };
    json!({"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com", "selectors": selectors}}]})
}

/// A share of the GPU with this UUID by the class, with these amounts.
pub(crate) fn share(class: &str, uuid: &str, amounts: &Value) -> Value {
    let mut devices = gpu(&format!("device.attributes['gpu.nvidia.com'].uuid == '{uuid}'"));
    devices["requests"][0]["exactly"]["deviceClassName"] = json!(class);
    devices["requests"][0]["exactly"]["capacity"] = json!({ "requests": amounts });
    devices
}

/// The same devices with a `sharing` stanza for GPUs.
pub(crate) fn shared_by(mut devices: Value, sharing: &Value) -> Value {
    let parameters = json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig", "sharing": sharing});
    devices["config"] = json!([{"opaque": {"driver": published::DRIVER, "parameters": parameters}}]);
    devices
}

/// Applies a pod on a node and a claim of the same name with these devices.
pub(crate) fn start(arena: &Arena, name: &str, node: &str, devices: &Value) {
    start_as(arena, ("default", 0), name, node, devices);
}

/// The same in a namespace and as a user of one's own.
pub(crate) fn start_as(arena: &Arena, owner: (&str, u32), name: &str, node: &str, devices: &Value) {
    let (namespace, user) = owner;
    let security_context = json!({ "runAsUser": user });
    start_restricted(arena, namespace, name, node, devices, &security_context);
}

/// The same in a namespace, with a security context of the container.
pub(crate) fn start_restricted(
    arena: &Arena,
    namespace: &str,
    name: &str,
    node: &str,
    devices: &Value,
    security_context: &Value,
) {
    let metadata = json!({"namespace": namespace, "name": name});
    let mut spec = pod_spec(&json!({"name": "gpu", "resourceClaimName": name}));
    spec["containers"][0]["securityContext"] = security_context.clone();
    apply_with_claim(arena, &metadata, node, devices, spec);
}

/// The same in a user namespace.
pub(crate) fn start_in_user_namespace(arena: &Arena, name: &str, node: &str, devices: &Value) {
    let metadata = json!({"namespace": "default", "name": name});
    let mut spec = pod_spec(&json!({"name": "gpu", "resourceClaimName": name}));
    spec["hostUsers"] = json!(false);
    apply_with_claim(arena, &metadata, node, devices, spec);
}

fn apply_with_claim(arena: &Arena, metadata: &Value, node: &str, devices: &Value, spec: Value) {
    let claim = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": metadata,
        "spec": {"devices": devices},
    });
    let pod = pod(metadata, node, spec);
    arena.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [claim, pod]}).to_string());
}

/// Removes what `start` made, and the events about it.
pub(crate) fn remove(arena: &Arena, name: &str) {
    remove_in(arena, "default", name);
}

/// Removes what `start_as` made, and the events about it.
pub(crate) fn remove_in(arena: &Arena, namespace: &str, name: &str) {
    for kind in ["pod", "resourceclaim"] {
        arena.kubectl(&["-n", namespace, "delete", kind, name, "--timeout=60s"]);
    }
    let about = format!("involvedObject.name={name}");
    arena.kubectl(&["-n", namespace, "delete", "events", "--field-selector", &about]);
}

/// Plays while a deployment of this many pods runs, each with a claim of its own for these devices.
pub(crate) fn with_deployment(
    arena: &Arena,
    name: &str,
    replicas: usize,
    devices: &Value,
    play: impl FnOnce(&[Value]),
) {
    let template = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": name},
        "spec": {"spec": {"devices": devices}},
    });
    let labels = json!({ "app": name });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": pod_spec(&json!({"name": "gpu", "resourceClaimTemplateName": name})),
        }},
    });
    arena.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [template, deployment]}).to_string());
    let label = format!("app={name}");
    play(&arena.ready_pods(&label, replicas));
    let both = [format!("deployment/{name}"), format!("resourceclaimtemplate/{name}")];
    arena.kubectl(&["delete", &both[0], &both[1], "--timeout=60s"]);
    arena.until(&format!("the end of {name}"), || arena.list(&["pods", "-l", &label]).is_empty().then_some(()));
}

/// The newest text of a failed prepare in the events of a pod.
pub(crate) fn failure_of(arena: &Arena, pod: &str) -> String {
    arena.until(&format!("an event that says why {pod} does not start"), || failures_of(arena, pod).pop())
}

/// The texts of failed prepares in the events of a pod, oldest first.
pub(crate) fn failures_of(arena: &Arena, pod: &str) -> Vec<String> {
    let selector = format!("involvedObject.name={pod},reason=FailedPrepareDynamicResources");
    let mut events = arena.list(&["events", "--field-selector", &selector]);
    events.sort_by_key(|event| text(event, "/lastTimestamp").to_owned());
    events.iter().map(|event| text(event, "/message").to_owned()).collect()
}

/// Applies a pod of the namespace `default` on a node with a claim from this template.
pub(crate) fn start_from(arena: &Arena, name: &str, node: &str, template: &str) {
    let spec = pod_spec(&json!({"name": "gpu", "resourceClaimTemplateName": template}));
    arena.apply(&pod(&json!({"namespace": "default", "name": name}), node, spec).to_string());
}

/// Applies a pod of the namespace `default` on a node whose container uses claims which exist.
pub(crate) fn start_using(arena: &Arena, name: &str, node: &str, claims: &[&str]) {
    let mut spec = pod_spec(&Value::Null);
    spec["resourceClaims"] = claims.iter().map(|claim| json!({"name": claim, "resourceClaimName": claim})).collect();
    let names: Vec<Value> = claims.iter().map(|claim| json!({"name": claim})).collect();
    spec["containers"][0]["resources"] = json!({ "claims": names });
    arena.apply(&pod(&json!({"namespace": "default", "name": name}), node, spec).to_string());
}

/// Applies a pod of the namespace `default` on a node that asks for an extended resource and has no claim of its own.
pub(crate) fn start_requesting(arena: &Arena, name: &str, node: &str, resource: &str) {
    let mut spec = pod_spec(&Value::Null);
    spec["resourceClaims"] = Value::Null;
    spec["containers"][0]["resources"] = json!({"limits": {resource: 1}});
    arena.apply(&pod(&json!({"namespace": "default", "name": name}), node, spec).to_string());
}

fn pod(metadata: &Value, node: &str, mut spec: Value) -> Value {
    spec["restartPolicy"] = json!("Never");
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// Of a pod that lists its GPUs and stays.
pub(crate) fn pod_spec(claim: &Value) -> Value {
    json!({
        "terminationGracePeriodSeconds": 1,
        "resourceClaims": [claim],
        "containers": [{
            "name": "main", "image": "localhost/gpu-demo:latest", "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", "nvidia-smi -L && sleep infinity"],
            "resources": {"claims": [{"name": "gpu"}]},
        }],
    })
}
