// SPDX-License-Identifier: Apache-2.0
//! `verify`, `doctor` and `clear` as far as the API server alone decides: what they find without a plugin that answers, and rights.

use serde_json::{Value, json};

use crate::server::{Objects, Ran, objects, run, serve};
use crate::world::{alone, claim, slices};

const CLAIMS: &str = "/apis/resource.k8s.io/v1/resourceclaims";
const PODS: &str = "/api/v1/pods";
const SLICES: &str = "/apis/resource.k8s.io/v1/resourceslices";

/// The pod of the driver on `gpu-c`.
fn driver_pod(state: &Value) -> Value {
    let is_running = state.get("running").is_some();
    json!({
        "metadata": {"namespace": "gpu", "name": "driver-1", "labels": {"app.kubernetes.io/component": "kubelet-plugin"}},
        "spec": {"nodeName": "gpu-c", "serviceAccountName": "driver", "containers": [
            {"name": "plugin", "env": [{"name": "DRIVER_NAME", "value": "gpu.nvidia.com"}]}]},
        "status": {
            "conditions": [{"type": "Ready", "status": if is_running { "True" } else { "False" }}],
            "containerStatuses": [{"name": "plugin", "ready": is_running, "restartCount": 1, "state": state}],
        },
    })
}

fn running() -> Value {
    json!({"running": {"startedAt": "2026-11-30T10:00:00Z"}})
}

fn with_claim(mut objects: Objects) -> Objects {
    let mut held = claim(&alone("ml/train-0", "gpu-c", "gpu-97722eb3"));
    held["metadata"]["uid"] = json!("u-1");
    objects.insert("/apis/resource.k8s.io/v1/namespaces/ml/resourceclaims/train-0", held);
    objects.insert(
        "/api/v1/namespaces/ml/pods/train-0",
        json!({
            "metadata": {"namespace": "ml", "name": "train-0"},
            "spec": {"nodeName": "gpu-c", "resourceClaims": [{"name": "gpu", "resourceClaimName": "train-0"}]},
        }),
    );
    objects
}

#[test]
fn verify_names_the_right_to_run_programs() {
    let mut found = with_claim(objects(CLAIMS));
    found.insert(PODS, json!([driver_pod(&running())]));
    let server = serve(found);
    let Ran(code, out, error) = run(&server, &["verify", "train-0"]);
    assert_eq!((code, out.as_str()), (3, ""), "{error}");
    assert!(
        error.contains("the right to create pods/exec in namespace gpu is missing; ask an administrator"),
        "{error}"
    );
}

#[test]
fn verify_has_a_reason_when_no_plugin_can_be_asked() {
    let mut found = with_claim(objects(CLAIMS));
    let waiting = json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}});
    found.insert(PODS, json!([driver_pod(&waiting)]));
    let server = serve(found);
    let Ran(code, _, error) = run(&server, &["verify", "train-0"]);
    let expect = "the plugin in pod gpu/driver-1 on node gpu-c does not run: ErrImagePull, no such image";
    assert!(code == 3 && error.contains(expect), "{error}");

    let mut found = with_claim(objects(CLAIMS));
    found.insert("/api/v1/namespaces/gpu-dra-driver/pods", json!([]));
    let server = serve(found);
    let Ran(code, _, error) = run(&server, &["verify", "train-0"]);
    assert!(code == 3 && error.contains("since the right to list pods in the cluster is missing"), "{error}");
    assert!(error.contains("name its namespace with --driver-namespace"), "{error}");
    let Ran(code, _, error) = run(&server, &["verify", "claim/other"]);
    assert!(code == 3 && error.contains("the right to get resourceclaims.resource.k8s.io"), "{error}");
}

#[test]
fn clear_refuses_a_gpu_that_is_well_and_asks_before_it_changes_anything() {
    let mut found = objects(CLAIMS);
    found.insert(PODS, json!([driver_pod(&running())]));
    let Ran(code, out, error) = run(&serve(found.clone()), &["clear", "gpu-97722eb3"]);
    assert!(code == 3 && out.is_empty(), "{out}");
    assert!(error.contains("GPU gpu-97722eb3 on node gpu-c has no fault that can be cleared; "), "{error}");

    let mut tainted = slices("models/t4.yaml", "gpu-c");
    for device in tainted.iter_mut().filter_map(|slice| slice["spec"]["devices"].as_array_mut()).flatten() {
        device["taints"] = json!([{"key": "gpu.nvidia.com/xid", "value": "79", "effect": "NoExecute"}]);
    }
    found.insert(SLICES, Value::Array(tainted));
    let server = serve(found);
    let Ran(code, out, error) = run(&server, &["clear", "gpu-97722eb3-mps"]);
    assert_eq!(code, 3, "{error}");
    assert!(
        out.contains("GPU gpu-97722eb3 (GPU-97722eb3-") && out.contains("gpu.nvidia.com/xid=79:NoExecute"),
        "{out}"
    );
    assert!(error.contains("no confirmation was given, so nothing is changed; run it again with --yes"), "{error}");
    assert!(!server.requests().iter().any(|path| path.contains("/exec")), "nothing was run");
    let Ran(_, _, error) = run(&server, &["clear", "gpu-97722eb3", "--yes"]);
    assert!(error.contains("the right to create pods/exec in namespace gpu is missing"), "{error}");
}

#[test]
fn doctor_finds_what_the_api_server_knows_when_no_plugin_runs() {
    let mut found = objects(CLAIMS);
    let ended =
        json!({"terminated": {"reason": "Error", "exitCode": 1, "message": "failed to open the state of the plugin"}});
    found.insert(PODS, json!([driver_pod(&ended)]));
    found.insert("/apis/resource.k8s.io/v1/deviceclasses", json!([]));
    found.insert("/apis", json!({"groups": [{"name": "resource.k8s.io", "versions": [{"version": "v1beta1"}]}]}));
    found.insert(
        "/api/v1/nodes",
        json!([{
            "metadata": {"name": "gpu-c"},
            "status": {
                "allocatable": {"nvidia.com/gpu": "2"},
                "nodeInfo": {"containerRuntimeVersion": "containerd://1.6.1", "kubeletVersion": "v1.37.0"},
            },
        }]),
    );
    let server = serve(found);
    let Ran(code, out, error) = run(&server, &["doctor"]);
    assert_eq!((code, error.as_str()), (2, ""), "{out}");
    let words = out.split_whitespace().collect::<Vec<_>>().join(" ");
    for expect in [
        "ok API server: Kubernetes v1.37.0: shares of GPUs",
        "error API resource.k8s.io: resource.k8s.io/v1 is served as v1beta1 fix: use Kubernetes 1.34 or later",
        "warn DeviceClasses: no DeviceClass selects whole GPUs",
        "error pod of the driver: container plugin of gpu/driver-1: ended with",
        "error container runtime: containerd://1.6.1 has no CDI",
        "error owner of the GPUs: a device plugin offers nvidia.com/gpu: 2 on this node",
        "note: the right to get /metrics of the API server",
        "There are errors.",
    ] {
        assert!(words.contains(expect), "{expect} in\n{out}");
    }
    let Ran(code, out, _) = run(&server, &["doctor", "gpu-x", "-o", "json"]);
    let diagnosis: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &diagnosis["nodes"][0]["checks"][0]["subject"]), (2, &json!("node")), "{out}");
}
