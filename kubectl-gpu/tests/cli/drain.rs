// SPDX-License-Identifier: Apache-2.0
//! `kubectl gpu drain` and `undrain`: what is named first, which rules are left, and the exit codes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::changes::COUNTED;
use crate::check;
use crate::server::{CLAIMS, Ran, Server, TAINT_RULES, objects, run, serve};
use crate::world::{DRIVER, alone, claim, slices};

const GPU: &str = "gpu-97722eb3";

/// One node whose first GPU is used by a pod, and by another one with a toleration.
fn server() -> Server {
    let mut objects = objects(CLAIMS);
    let mut tolerating = claim(&alone("ops/monitor", "gpu-c", GPU));
    let result = &mut tolerating["status"]["allocation"]["devices"]["results"][0];
    result["adminAccess"] = json!(true);
    result["tolerations"] = json!([{"operator": "Exists", "effect": "NoExecute"}]);
    objects.insert(CLAIMS, json!([claim(&alone("ml/train-0", "gpu-c", GPU)), tolerating]));
    serve(objects)
}

/// The rules as `device effect`; a rule of a node has no device.
fn rules(server: &Server) -> BTreeSet<String> {
    let stored = server.objects.lock().unwrap();
    let rules = stored[TAINT_RULES].as_array().unwrap();
    let text = |rule: &Value| {
        let device = rule["spec"]["deviceSelector"]["device"].as_str().unwrap_or("-");
        format!("{device} {}", rule["spec"]["taint"]["effect"].as_str().unwrap())
    };
    rules.iter().map(text).collect()
}

fn all_forms(effect: &str) -> BTreeSet<String> {
    ["", "-mps", "-ts"].iter().map(|form| format!("{GPU}{form} {effect}")).collect()
}

#[test]
fn a_dry_run_names_who_leaves_and_changes_nothing() {
    let server = server();
    let Ran(code, out, error) = run(&server, &["drain", "gpu-97722eb3-mps", "--dry-run"]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(out.contains(COUNTED), "{out}");
    check(&out, "drain.txt");
    assert_eq!(rules(&server), BTreeSet::new());
}

#[test]
fn without_a_confirmation_nothing_is_changed() {
    let server = server();
    let Ran(code, out, error) = run(&server, &["drain", GPU]);
    let expect = "error: failed to take GPUs out of service: no confirmation was given, so nothing is changed; run it again with --yes\n";
    assert_eq!((code, error.as_str()), (3, expect));
    assert!(out.contains("1 pod is evicted") && rules(&server).is_empty(), "{out}");
}

#[test]
fn every_form_is_drained_once_and_returned() {
    let server = server();
    assert_eq!(run(&server, &["drain", GPU, "--yes", "--reason", "fan"]).0, 0);
    assert_eq!(rules(&server), all_forms("NoExecute"));
    let Ran(code, out, _) = run(&server, &["drain", GPU, "--yes"]);
    assert!(code == 0 && out.contains("exist already"), "{out}");
    assert_eq!(server.objects.lock().unwrap()[TAINT_RULES].as_array().unwrap().len(), 3);

    assert_eq!(run(&server, &["drain", GPU, "--no-evict", "--yes"]).0, 0);
    assert_eq!(rules(&server), all_forms("NoSchedule"));

    let Ran(code, out, _) = run(&server, &["undrain", GPU]);
    assert!(
        code == 0 && out.contains("3 DeviceTaintRules removed") && out.contains("New claims get it again"),
        "{out}"
    );
    assert_eq!(rules(&server), BTreeSet::new());
    let Ran(code, out, _) = run(&server, &["undrain", GPU]);
    assert!(code == 0 && out.contains("made no DeviceTaintRule for it"), "{out}");
}

#[test]
fn a_node_has_one_rule_and_its_gpus_do_not_lose_it() {
    let server = server();
    let Ran(code, out, _) = run(&server, &["drain", "--node", "gpu-c", "--all", "--yes"]);
    assert_eq!(code, 0, "{out}");
    assert_eq!(rules(&server), ["- NoExecute".to_owned()].into());
    let Ran(code, out, _) = run(&server, &["drain", GPU, "--yes"]);
    assert!(code == 0 && out.contains("exist already"), "{out}");
    let Ran(code, out, _) = run(&server, &["undrain", GPU]);
    assert!(code == 1 && out.contains("`kubectl gpu undrain --node gpu-c --all`"), "{out}");
    assert_eq!(run(&server, &["undrain", "--node", "gpu-c", "--all"]).0, 0);
    assert_eq!(rules(&server), BTreeSet::new());
}

#[test]
fn rules_of_administrators_and_taints_of_the_driver_stay() {
    let mut objects = objects(CLAIMS);
    let selector = json!({"driver": DRIVER, "pool": "gpu-c", "device": "gpu-97722eb3-ts"});
    let taint = json!({"key": "example.com/test", "effect": "NoSchedule"});
    let rule = json!({"metadata": {"name": "test"}, "spec": {"deviceSelector": selector, "taint": taint}});
    objects.insert(TAINT_RULES, json!([rule]));
    let server = serve(objects);
    assert_eq!(run(&server, &["drain", GPU, "--yes"]).0, 0);
    let Ran(code, out, _) = run(&server, &["undrain", GPU]);
    assert!(code == 1 && out.contains("`kubectl delete devicetaintrule test`"), "{out}");
    assert_eq!(rules(&server), ["gpu-97722eb3-ts NoSchedule".to_owned()].into());
}

#[test]
fn rules_of_a_gpu_that_is_gone_can_be_removed() {
    let server = server();
    assert_eq!(run(&server, &["drain", GPU, "--yes"]).0, 0);
    let slices = slices("no-driver.yaml", "gpu-c");
    server.objects.lock().unwrap().insert("/apis/resource.k8s.io/v1/resourceslices".to_owned(), json!(slices));
    let Ran(code, out, error) = run(&server, &["undrain", GPU]);
    assert!(code == 0 && rules(&server).is_empty(), "{out}{error}");
    let Ran(code, _, error) = run(&server, &["undrain", GPU]);
    assert!(code == 3 && error.contains("no device of the driver gpu.nvidia.com has the name or the UUID"), "{error}");
}

#[test]
fn a_wait_ends_when_no_claim_holds_the_gpu() {
    let server = server();
    let of_namespace = |namespace: &str| format!("/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims");
    let store = |namespace: &str, claims: Value| server.objects.lock().unwrap().insert(of_namespace(namespace), claims);
    let waiting = json!({"metadata": {"namespace": "ops", "name": "monitor"}, "spec": {}});
    store("ops", json!([waiting]));
    store("ml", json!([claim(&alone("ml/train-0", "gpu-c", GPU))]));
    let Ran(code, out, _) = run(&server, &["drain", GPU, "--yes", "--wait=0s"]);
    assert!(code == 1 && out.ends_with("Claims that still hold it: ml/train-0\n"), "{out}");
    store("ml", json!([]));
    let Ran(code, out, error) = run(&server, &["drain", GPU, "--yes", "--wait"]);
    assert!(code == 0 && out.ends_with("No claim holds it.\n"), "{out}{error}");
}

#[test]
fn a_name_on_several_nodes_and_missing_rights_are_refused() {
    let mut objects = objects(CLAIMS);
    let both = [slices("models/t4.yaml", "gpu-c"), slices("models/t4.yaml", "gpu-d")].concat();
    objects.insert("/apis/resource.k8s.io/v1/resourceslices", json!(both));
    let server = serve(objects);
    let Ran(code, _, error) = run(&server, &["drain", GPU, "--yes"]);
    let expect = "error: failed to take GPUs out of service: failed to find the GPU: gpu-97722eb3 is on the nodes gpu-c, gpu-d; choose one of the nodes with --node, or use the UUID of the GPU\n";
    assert_eq!((code, error.as_str()), (3, expect));
    let Ran(code, _, error) = run(&server, &["drain", "--all", "--yes"]);
    assert!(code == 3 && error.contains("--node"), "{error}");
    server.objects.lock().unwrap().remove(CLAIMS);
    let Ran(code, _, error) = run(&server, &["drain", GPU, "--node", "gpu-d", "--yes"]);
    assert!(
        code == 3 && error.contains("the right to list resourceclaims.resource.k8s.io in the cluster is missing"),
        "{error}"
    );
    assert_eq!(rules(&server), BTreeSet::new());
}
