// SPDX-License-Identifier: Apache-2.0
//! Kueue with the configuration and the queues of the chart for tenants: which jobs it admits and which it holds, for whole GPUs by
//! number, MIG devices by the memory counter and MPS shares by their memory.

use crate::{
    arena::{Arena, checked},
    tenants::{Tenants, template},
};
use dra_cluster::build_kueue;
use dra_demo::text;
use dra_tests::source::root_dir;
use serde_json::{Value, json};
use std::fs;

crate::case::cases![kueue_holds_the_job_that_exceeds_its_quota_and_admits_it_later];

const NAMESPACE: &str = "kueue-system";
const TENANT: &str = "team-k";
/// Of the label by which a job names its LocalQueue.
const QUEUE_LABEL: &str = "kueue.x-k8s.io/queue-name";

/// Kueue, installed by its own chart; it is removed with its kinds, also after a failure.
struct Kueue<'a> {
    arena: &'a Arena,
}

impl<'a> Kueue<'a> {
    fn install(arena: &'a Arena) -> Self {
        let built = checked(build_kueue(&arena.cluster.dir().join("kueue")));
        checked(arena.cluster.load_image(&built.image));
        let kueue = Self { arena };
        let path = arena.cluster.dir().join("kueue.json");
        fs::write(&path, values(&built.image.name).to_string()).unwrap();
        let (chart, path) = (built.chart_dir.display().to_string(), path.display().to_string());
        let args = ["install", "kueue", &chart, "--namespace", NAMESPACE, "--create-namespace", "--values", &path];
        checked(arena.cluster.helm(&args));
        let args = ["rollout", "status", "deployment", "--namespace", NAMESPACE, "--timeout=60s"];
        arena.kubectl(&args);
        // The API server of the test cluster has no certificate to call other API servers with, and while one of them does not answer
        // no namespace is deleted.
        let services = ["v1beta1", "v1beta2"].map(|version| format!("apiservice/{version}.visibility.kueue.x-k8s.io"));
        arena.kubectl(&["delete", &services[0], &services[1]]);
        kueue
    }
}

impl Drop for Kueue<'_> {
    fn drop(&mut self) {
        self.arena.cluster.helm(&["uninstall", "kueue", "--namespace", NAMESPACE, "--wait"]).ok();
        self.arena.cluster.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=60s"]).ok();
    }
}

/// Of Kueue's chart, with the configuration that users are given.
fn values(image: &str) -> Value {
    let (repository, tag) = image.split_once(':').unwrap();
    let configuration = fs::read_to_string(root_dir().join("deploy/tenants-chart/kueue/configuration.yaml")).unwrap();
    json!({
        "controllerManager": {
            "manager": {
                "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
                "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
            },
            "readinessProbe": {"initialDelaySeconds": 1, "periodSeconds": 1},
        },
        "managerConfig": {"controllerManagerConfigYaml": configuration},
    })
}

/// A job in the queue of the tenant whose pod has a claim with this request.
fn start_job(arena: &Arena, name: &str, request: &Value) {
    let template = template(name, TENANT, &json!({"requests": [{"name": "gpu", "exactly": request}]}));
    let spec = json!({
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": name}],
        "containers": [{
            "name": "main", "image": "localhost/gpu-demo:latest", "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", "nvidia-smi -L && sleep infinity"], "resources": {"claims": [{"name": "gpu"}]},
        }],
    });
    let metadata = json!({"name": name, "namespace": TENANT, "labels": {QUEUE_LABEL: "gpus"}});
    let job =
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": {"spec": spec}}});
    arena.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [template, job]}).to_string());
}

/// The message of a condition of the Workload of a job.
fn condition(arena: &Arena, job: &str, kind: &str, status: &str) -> Option<String> {
    let workloads = arena.list(&["workloads.kueue.x-k8s.io", "-n", TENANT]);
    let workload = workloads.iter().find(|one| text(one, "/metadata/ownerReferences/0/name") == job)?;
    let conditions = workload.pointer("/status/conditions").and_then(Value::as_array)?;
    let found = conditions.iter().find(|one| text(one, "/type") == kind && text(one, "/status") == status)?;
    Some(text(found, "/message").to_owned())
}

fn until_admitted(arena: &Arena, job: &str) {
    arena.until(&format!("the admission of {job}"), || condition(arena, job, "Admitted", "True"));
    arena.until(&format!("a running pod of {job}"), || {
        let pods = arena.list(&["pods", "-n", TENANT, "-l", &format!("batch.kubernetes.io/job-name={job}")]);
        pods.iter().any(|pod| text(pod, "/status/phase") == "Running").then_some(())
    });
}

/// Two jobs with a request are admitted, the third is held with the reason until one of them ends.
fn check(arena: &Arena, name: &str, request: &Value, reason: &str) {
    let jobs = ["1", "2", "3"].map(|number| format!("{name}-{number}"));
    let [first, second, third] = &jobs;
    for job in [first, second] {
        start_job(arena, job, request);
        until_admitted(arena, job);
    }
    start_job(arena, third, request);
    let held = arena.until(&format!("a reason for {third}"), || condition(arena, third, "QuotaReserved", "False"));
    assert_eq!(held, format!("couldn't assign flavors to pod set main: insufficient unused quota for {reason}"));
    let pods = arena.list(&["pods", "-n", TENANT, "-l", &format!("batch.kubernetes.io/job-name={third}")]);
    assert!(pods.is_empty(), "a job that is held has no pod: {pods:?}");
    arena.kubectl(&["delete", "job", first, "-n", TENANT, "--timeout=60s"]);
    until_admitted(arena, third);
    arena.kubectl(&["delete", "jobs", "--all", "-n", TENANT, "--timeout=60s"]);
}

fn kueue_holds_the_job_that_exceeds_its_quota_and_admits_it_later(arena: &Arena) {
    let _kueue = Kueue::install(arena);
    let queue = json!({
        "gpus": {"quota": 1, "borrow": 1}, "mig-memory": {"quota": "20Gi"}, "share-memory": {"quota": "20Gi"},
    });
    let values = json!({
        "kueue": {"enabled": true, "spare": {"gpus": 4}},
        "tenants": {TENANT: {"createNamespace": true, "queue": queue}},
    });
    let _tenants = Tenants::with_values(arena, &values);
    // The second job borrows; more than one may not be borrowed.
    check(arena, "whole", &json!({"deviceClassName": "gpu.nvidia.com"}), "gpus in flavor gpus, 1 more needed");
    let profile = json!([{"cel": {"expression": "device.attributes['gpu.nvidia.com'].profile == '1g.10gb'"}}]);
    let mig = json!({"deviceClassName": "mig.nvidia.com", "selectors": profile});
    check(arena, "mig", &mig, "mig-memory in flavor gpus, 9472Mi more needed");
    let amounts = json!({"requests": {"memory": "10Gi"}});
    let share = json!({"deviceClassName": "mps.gpu.nvidia.com", "capacity": amounts});
    check(arena, "share", &share, "share-memory in flavor gpus, 10Gi more needed");
}
