// SPDX-License-Identifier: Apache-2.0
//! Kueue with the configuration and the queues of the chart for tenants: which jobs it admits and which it holds, for whole GPUs by
//! number, MIG devices by the memory counter and MPS shares by their memory.

use crate::{
    arena::{Arena, checked},
    case_studies, paper,
    tenants::{Tenants, template},
};
use dra_cluster::build_kueue;
use dra_demo::text;
use dra_tests::source::root_dir;
use serde_json::{Value, json};
use std::fs;

crate::case::cases![
    kueue_holds_the_job_that_exceeds_its_quota_and_admits_it_later,
    kueue_lends_the_gpus_between_requests_and_limits_at_full_size,
];

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

/// A job in the queue of a tenant whose pod has a claim with this request, and further fields.
fn start_job(arena: &Arena, tenant: &str, name: &str, request: &Value, fields: &[(&str, Value)]) {
    let template = template(name, tenant, &json!({"requests": [{"name": "gpu", "exactly": request}]}));
    let mut spec = json!({
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": name}],
        "containers": [{
            "name": "main", "image": "localhost/gpu-demo:latest", "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", "nvidia-smi -L && sleep infinity"], "resources": {"claims": [{"name": "gpu"}]},
        }],
    });
    for (field, value) in fields {
        spec[field] = value.clone();
    }
    let metadata = json!({"name": name, "namespace": tenant, "labels": {QUEUE_LABEL: "gpus"}});
    let job =
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": {"spec": spec}}});
    arena.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [template, job]}).to_string());
}

/// The message of a condition of the Workload of a job.
fn condition(arena: &Arena, tenant: &str, job: &str, kind: &str, status: &str) -> Option<String> {
    let workloads = arena.list(&["workloads.kueue.x-k8s.io", "-n", tenant]);
    let workload = workloads.iter().find(|one| text(one, "/metadata/ownerReferences/0/name") == job)?;
    let conditions = workload.pointer("/status/conditions").and_then(Value::as_array)?;
    let found = conditions.iter().find(|one| text(one, "/type") == kind && text(one, "/status") == status)?;
    Some(text(found, "/message").to_owned())
}

fn until_admitted(arena: &Arena, job: &str) {
    arena.until(&format!("the admission of {job}"), || condition(arena, TENANT, job, "Admitted", "True"));
    arena.until(&format!("a running pod of {job}"), || {
        let pods = arena.list(&["pods", "-n", TENANT, "-l", &format!("batch.kubernetes.io/job-name={job}")]);
        pods.iter().any(|pod| text(pod, "/status/phase") == "Running").then_some(())
    });
}

fn check_held(arena: &Arena, tenant: &str, job: &str, reason: &str) {
    let held = arena.until(&format!("a reason for {job}"), || condition(arena, tenant, job, "QuotaReserved", "False"));
    assert_eq!(held, format!("couldn't assign flavors to pod set main: insufficient unused quota for {reason}"));
}

/// Two jobs with a request are admitted, the third is held with the reason until one of them ends.
fn check(arena: &Arena, name: &str, request: &Value, reason: &str) {
    let jobs = ["1", "2", "3"].map(|number| format!("{name}-{number}"));
    let [first, second, third] = &jobs;
    for job in [first, second] {
        start_job(arena, TENANT, job, request, &[]);
        until_admitted(arena, job);
    }
    start_job(arena, TENANT, third, request, &[]);
    check_held(arena, TENANT, third, reason);
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

/// What a tenant has and may borrow, in jobs of equal size.
struct Queue {
    tenant: &'static str,
    class: &'static str,
    resource: &'static str,
    devices_per_job: u32,
    jobs: u32,
    borrowed: u32,
}

/// Fills a queue with jobs on paper, and has one more held.
fn fill(arena: &Arena, queue: &Queue) {
    let Queue { tenant, class, resource, devices_per_job, jobs, borrowed } = queue;
    let request = json!({"deviceClassName": class, "count": devices_per_job});
    let on_paper = [("nodeSelector", json!({"paper": "true"})), ("tolerations", json!([{"operator": "Exists"}]))];
    for number in 1..=*jobs {
        start_job(arena, tenant, &format!("job-{number}"), &request, &on_paper);
    }
    arena.until(&format!("{jobs} pods of {tenant} with a node"), || {
        let pods = arena.list(&["pods", "-n", tenant]);
        let placed = pods.iter().filter(|pod| !text(pod, "/spec/nodeName").is_empty()).count();
        (u32::try_from(placed).unwrap() == *jobs).then_some(())
    });
    start_job(arena, tenant, "one-too-many", &request, &on_paper);
    check_held(arena, tenant, "one-too-many", &format!("{resource} in flavor gpus, {devices_per_job} more needed"));
    let total = devices_per_job * jobs;
    let usage = json!({"name": resource, "total": total.to_string(), "borrowed": borrowed.to_string()});
    arena.until(&format!("the usage of {tenant}"), || {
        let queues = arena.list(&["clusterqueues.kueue.x-k8s.io"]);
        let queue = queues.iter().find(|queue| text(queue, "/metadata/name") == *tenant)?;
        (queue.pointer("/status/flavorsUsage/0/resources/0") == Some(&usage)).then_some(())
    });
}

fn kueue_lends_the_gpus_between_requests_and_limits_at_full_size(arena: &Arena) {
    case_studies::create_training_and_inference(arena);
    let _kueue = Kueue::install(arena);
    let files = ["training-and-inference.yaml", "training-and-inference-kueue.yaml"];
    let _tenants = Tenants::with_examples(arena, &files);
    let training = Queue {
        tenant: "training",
        class: "gpu-training",
        resource: "training-gpus",
        devices_per_job: 8,
        jobs: 8,
        borrowed: 16,
    };
    let inference = Queue {
        tenant: "inference",
        class: "gpu-inference",
        resource: "inference-gpus",
        devices_per_job: 1,
        jobs: 16,
        borrowed: 4,
    };
    for queue in [&training, &inference] {
        fill(arena, queue);
    }
    for Queue { tenant, .. } in [training, inference] {
        arena.kubectl(&["delete", "jobs", "--all", "-n", tenant, "--wait=false"]);
        // No kubelet ends them.
        arena.until(&format!("the end of the pods of {tenant}"), || {
            arena.cluster.kubectl(&["delete", "pods", "--all", "-n", tenant, "--grace-period=0", "--force"]).ok();
            arena.list(&["pods", "-n", tenant]).is_empty().then_some(())
        });
    }
    paper::delete_nodes(arena);
}
