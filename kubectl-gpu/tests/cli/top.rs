// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu top`: measured values of the driver's pods, joined with claims and pods.

use serde_json::{Value, json};

use crate::check;
use crate::server::{CLAIMS, Objects, Ran, objects, run, serve};
use crate::world::{alone, claim, share, slices};

const DRIVER_PODS: &str = "/api/v1/namespaces/gpu-dra-driver/pods";
const METRICS: &str = "/api/v1/namespaces/gpu-dra-driver/pods/plugin-c:8080/proxy/metrics";

/// What the plugin of a node with two T4 measures, of which the first is shared.
const MEASURED: &str = r#"# TYPE gpu_dra_gpu_utilization_ratio gauge
gpu_dra_gpu_utilization_ratio{device="gpu-97722eb3"} 0.97
gpu_dra_gpu_utilization_ratio{device="gpu-195655dd"} 0
gpu_dra_gpu_memory_total_bytes{device="gpu-97722eb3"} 16106127360
gpu_dra_gpu_memory_used_bytes{device="gpu-97722eb3"} 5368709120
gpu_dra_gpu_temperature_celsius{device="gpu-97722eb3"} 61
gpu_dra_gpu_power_watts{device="gpu-97722eb3"} 65.5
gpu_dra_gpu_power_limit_watts{device="gpu-97722eb3"} 70
gpu_dra_claim_memory_limit_bytes{namespace="web",claim="infer-0",request="gpu",device="gpu-97722eb3-mps",share_id="s",gpu="gpu-97722eb3"} 6442450944
gpu_dra_pod_memory_used_bytes{namespace="web",pod="infer-0-pod",gpu="gpu-97722eb3"} 3221225472
process_start_time_seconds 1
# EOF
"#;

fn plugin(name: &str, node: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app.kubernetes.io/component": "kubelet-plugin"}},
        "spec": {"nodeName": node, "containers": [{"ports": [{"name": "plugin-http", "containerPort": 8080}]}]},
        "status": {"phase": "Running"},
    })
}

fn measured() -> Objects {
    let mut objects = objects(CLAIMS);
    let shares = ["web/infer-0", "ml/infer-1"]
        .map(|name| claim(&share(name, "gpu-c", "gpu-97722eb3-mps", json!({"memory": "6Gi"}))));
    objects.insert(CLAIMS, json!(shares));
    let host = json!({"metadata": {"name": "mps", "labels": {"app.kubernetes.io/component": "mps-host"}}, "spec": {"nodeName": "gpu-c", "containers": []}});
    objects.insert(DRIVER_PODS, json!([host, plugin("plugin-c", "gpu-c")]));
    objects.insert(METRICS, json!(MEASURED));
    objects
}

#[test]
fn gpus_and_pods_have_what_they_use() {
    let server = serve(measured());
    let Ran(code, out, error) = run(&server, &["top", "-A"]);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    check(&out, "top.txt");
    let Ran(_, out, _) = run(&server, &["top"]);
    assert!(out.contains("infer-1") && !out.contains("infer-0"), "only the namespace: {out}");
    let Ran(_, out, _) = run(&server, &["top", "gpu-c", "-o", "json"]);
    let top: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&top["gpus"][1]["utilization"], &top["pods"].as_array().unwrap().len()), (&json!(0.97), &2));
}

#[test]
fn a_mig_device_has_its_own_memory() {
    let mut objects = measured();
    objects.insert("/apis/resource.k8s.io/v1/resourceslices", Value::Array(slices("models/h100-80.yaml", "gpu-c")));
    objects.insert(CLAIMS, json!([claim(&alone("ml/notebook", "gpu-c", "gpu-97722eb3-mig-19-0"))]));
    let series = "gpu_dra_mig_memory_used_bytes{device=\"gpu-97722eb3-mig-19-0\",gpu=\"gpu-97722eb3\"} 1073741824\n";
    objects.insert(METRICS, json!(series));
    let Ran(code, out, _) = run(&serve(objects), &["top", "-o", "json"]);
    let top: Value = serde_json::from_str(&out).unwrap();
    let pod = &top["pods"][0];
    assert_eq!((code, &pod["memoryUsedBytes"], &pod["gpuUtilization"]), (0, &json!(1_073_741_824.0), &Value::Null));
}

#[test]
fn what_is_missing_is_named() {
    let mut objects = measured();
    objects.remove(METRICS);
    let Ran(code, _, error) = run(&serve(objects), &["top"]);
    assert!(
        code == 3 && error.contains("the right to get pods/proxy in namespace gpu-dra-driver is missing"),
        "{error}"
    );
    let mut objects = measured();
    objects.remove(DRIVER_PODS);
    let Ran(code, _, error) = run(&serve(objects), &["top"]);
    assert!(code == 3 && error.contains("the right to list pods in namespace gpu-dra-driver is missing"), "{error}");
    let mut objects = measured();
    objects.insert("/api/v1/namespaces/other/pods", json!([]));
    let Ran(code, out, _) = run(&serve(objects), &["top", "--driver-namespace", "other"]);
    assert!(code == 0 && out.contains("note: no pod of the driver runs in namespace other"), "{out}");
}

#[test]
fn a_node_with_malformed_series_has_a_note_and_the_others_values() {
    let mut objects = measured();
    objects.insert(DRIVER_PODS, json!([plugin("plugin-b", "gpu-b"), plugin("plugin-c", "gpu-c")]));
    let cut = "/api/v1/namespaces/gpu-dra-driver/pods/plugin-b:8080/proxy/metrics";
    objects.insert(cut, json!("gpu_dra_gpu_utilization_ratio{devi"));
    let Ran(code, out, _) = run(&serve(objects), &["top"]);
    assert!(code == 0 && out.contains("97%"), "{out}");
    assert!(out.contains("note: node gpu-b: pod plugin-b: line 1 of the metrics is malformed"), "{out}");
}
