// SPDX-License-Identifier: Apache-2.0
//! The program against an API server on this machine: pages, rights and exit codes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::changes::{self, Stored, json_body};
use crate::world::{alone, claim, slices};

/// Objects by the path of their list or of themselves. What is absent is forbidden.
pub(crate) type Objects = BTreeMap<&'static str, Value>;

pub(crate) struct Server {
    pub(crate) dir: TempDir,
    /// Paths with queries; those of changes after their verb.
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
    pub(crate) objects: Arc<Mutex<Stored>>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
struct Shared {
    objects: Arc<Mutex<Stored>>,
    requests: Arc<Mutex<Vec<String>>>,
}

/// One object of a list for each page.
async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let uri = request.uri().clone();
    if *request.method() != Method::GET {
        shared.requests.lock().unwrap().push(format!("{} {uri}", request.method()));
        return changes::change(&shared.objects, request).await;
    }
    shared.requests.lock().unwrap().push(uri.to_string());
    if uri.path() == "/version" {
        let version = json!({"major": "1", "minor": "37", "gitVersion": "v1.37.0", "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
        return json_body(&version).into_response();
    }
    if request.headers().get("authorization").is_none_or(|token| token != "Bearer t") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Some(found) = changes::find(&shared.objects.lock().unwrap(), uri.path()) else {
        return changes::refused(&shared.objects.lock().unwrap(), uri.path());
    };
    if let Some(text) = found.as_str() {
        return text.to_owned().into_response();
    }
    let Some(items) = found.as_array() else { return json_body(&found).into_response() };
    let query = uri.query().unwrap_or_default();
    let at = query.split('&').find_map(|pair| pair.strip_prefix("continue=page-"));
    let at: usize = at.map_or(0, |at| at.parse().unwrap());
    let next = if at + 1 < items.len() { format!("page-{}", at + 1) } else { String::new() };
    let page: Vec<&Value> = items.iter().skip(at).take(1).collect();
    json_body(&json!({"metadata": {"continue": next}, "items": page})).into_response()
}

pub(crate) fn serve(objects: Objects) -> Server {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let requests = Arc::<Mutex<Vec<String>>>::default();
    let stored: Stored = objects.into_iter().map(|(path, found)| (path.to_owned(), found)).collect();
    let objects = Arc::new(Mutex::new(stored));
    let shared = Shared { objects: Arc::clone(&objects), requests: Arc::clone(&requests) };
    let listener = runtime.block_on(tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move { axum::serve(listener, Router::new().fallback(answer).with_state(shared)).await });
    let dir = tempfile::tempdir().unwrap();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "test", "user": {"token": "t"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "ml"}}],
    });
    std::fs::write(dir.path().join("config"), config.to_string()).unwrap();
    Server { dir, requests, objects, _runtime: runtime }
}

/// Exit code, standard output and standard error.
pub(crate) struct Ran(pub(crate) i32, pub(crate) String, pub(crate) String);

impl Server {
    /// Paths with queries, of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// The program with the kubeconfig of the server.
pub(crate) fn program(server: &Server, args: &[&str]) -> Command {
    let kubeconfig: PathBuf = server.dir.path().join("config");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-gpu"));
    command.args(args).env("KUBECONFIG", kubeconfig);
    command
}

pub(crate) fn run(server: &Server, args: &[&str]) -> Ran {
    let output = program(server, args).output().unwrap();
    let [out, error] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    Ran(output.status.code().unwrap(), out, error)
}

const SLICES: &str = "/apis/resource.k8s.io/v1/resourceslices";
pub(crate) const CLAIMS: &str = "/apis/resource.k8s.io/v1/resourceclaims";
const CLAIMS_OF_ML: &str = "/apis/resource.k8s.io/v1/namespaces/ml/resourceclaims";
pub(crate) const TAINT_RULES: &str = "/apis/resource.k8s.io/v1/devicetaintrules";
const PODS_OF_ML: &str = "/api/v1/namespaces/ml/pods";

pub(crate) fn objects(claims: &'static str) -> Objects {
    let held = claim(&alone("ml/train-0", "gpu-c", "gpu-97722eb3"));
    let waiting =
        json!({"metadata": {"namespace": "ml", "name": "train-1"}, "spec": {"resourceClaims": [{"name": "gpu"}]}});
    let other = json!({"metadata": {"namespace": "ml", "name": "web"}, "spec": {}});
    [
        (SLICES, Value::Array(slices("models/t4.yaml", "gpu-c"))),
        (claims, json!([held])),
        (PODS_OF_ML, json!([waiting, other])),
        (TAINT_RULES, json!([])),
    ]
    .into()
}

#[test]
fn all_pages_are_read_and_nothing_is_written_to_a_pipe_in_colour() {
    let server = serve(objects(CLAIMS));
    let Ran(code, out, error) = run(&server, &["status"]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(
        out.starts_with(
            "1 node and 2 GPUs: 1 free, 1 gpu  (Kubernetes v1.37.0)\n1 pod waits for devices: ml/train-1\n"
        ),
        "{out}"
    );
    assert!(out.contains("train-0-pod") && !out.contains('\u{1b}') && !out.contains("note:"), "{out}");
    let requests = server.requests.lock().unwrap();
    assert!(requests.iter().any(|path| path.contains("/resourceslices?limit=250&continue=page-1")), "{requests:?}");
}

#[test]
fn a_user_without_rights_in_the_cluster_sees_the_namespace_and_what_is_missing() {
    let server = serve(objects(CLAIMS_OF_ML));
    let Ran(code, out, _) = run(&server, &["status"]);
    assert_eq!(code, 0);
    assert!(out.contains("train-0-pod"), "{out}");
    assert!(out.contains("note: the right to list resourceclaims.resource.k8s.io in the cluster is missing"), "{out}");
}

#[test]
fn without_slices_there_is_no_answer() {
    let server = serve(Objects::new());
    let Ran(code, out, error) = run(&server, &["status"]);
    let expect = "error: failed to read the cluster: the right to list resourceslices.resource.k8s.io in the cluster is missing; ask an administrator for it; `kubectl auth can-i list resourceslices.resource.k8s.io` tests it\n";
    assert_eq!((code, out.as_str(), error.as_str()), (3, "", expect));
}

#[test]
fn one_node_is_asked_for_by_name() {
    let server = serve(objects(CLAIMS));
    let Ran(code, out, _) = run(&server, &["status", "gpu-c", "-o", "json"]);
    let status: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &status["nodes"][0]["gpus"][0]["form"]), (0, &json!("free")));
    let requests = server.requests.lock().unwrap();
    assert!(requests.iter().any(|path| path.contains("fieldSelector=spec.nodeName%3Dgpu-c")), "{requests:?}");
}

#[test]
fn bad_arguments_and_kubeconfigs_are_no_answer() {
    let server = serve(Objects::new());
    assert_eq!(run(&server, &["stats"]).0, 3);
    assert_eq!(run(&server, &["--help"]).0, 0);
    let Ran(code, _, error) = run(&server, &["status", "--context", "other"]);
    assert_eq!(code, 3);
    assert!(error.starts_with("error: failed to connect to the cluster: failed to use the kubeconfig"), "{error}");
}

#[test]
fn credentials_that_are_not_accepted_are_no_answer() {
    let server = serve(objects(CLAIMS));
    let config = server.dir.path().join("config");
    let text = std::fs::read_to_string(&config).unwrap().replace(r#"{"token":"t"}"#, r#"{"token":"old"}"#);
    std::fs::write(&config, text).unwrap();
    let Ran(code, _, error) = run(&server, &["status"]);
    let expect = "error: failed to read the cluster: the API server does not accept the credentials of the kubeconfig; log in to the cluster again, and test it with `kubectl get pods`\n";
    assert_eq!((code, error.as_str()), (3, expect));
}

#[test]
fn kubectl_completes_by_a_link_to_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("kubectl_complete-gpu");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kubectl-gpu"), &link).unwrap();
    let output = Command::new(link).arg("wh").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.starts_with("why\tExplains why") && text.ends_with("\n:4\n"), "{text}");
}

#[test]
fn shells_get_a_completion_script() {
    let server = serve(Objects::new());
    for shell in ["bash", "zsh", "fish"] {
        let Ran(code, out, _) = run(&server, &["completion", shell]);
        assert!(code == 0 && out.contains("kubectl-gpu") && out.contains("all-namespaces"), "{shell}: {out}");
    }
}

/// A pod of the namespace with a claim for one whole GPU.
fn with_pod(mut objects: Objects) -> Objects {
    let requests = json!([{"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com"}}]);
    let claim =
        json!({"metadata": {"namespace": "ml", "name": "train-1-gpu"}, "spec": {"devices": {"requests": requests}}});
    let pod = json!({
        "metadata": {"namespace": "ml", "name": "train-1"},
        "spec": {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "gpu"}]},
        "status": {"phase": "Pending", "resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "train-1-gpu"}]},
    });
    let expression = r#"device.driver == "gpu.nvidia.com" && device.attributes["gpu.nvidia.com"].type == "gpu""#;
    let class =
        json!({"metadata": {"name": "gpu.nvidia.com"}, "spec": {"selectors": [{"cel": {"expression": expression}}]}});
    objects.insert("/apis/resource.k8s.io/v1/deviceclasses", json!([class]));
    objects.insert("/apis/resource.k8s.io/v1/namespaces/ml/resourceclaims/train-1-gpu", claim);
    objects.insert("/api/v1/namespaces/ml/pods/train-1", pod);
    objects
}

#[test]
fn a_pod_that_fits_and_one_that_waits_have_their_exit_codes() {
    let server = serve(with_pod(objects(CLAIMS)));
    let Ran(code, out, error) = run(&server, &["why", "pod/train-1"]);
    assert_eq!((code, error.as_str()), (0, ""), "{out}");
    assert!(out.contains("it gets: gpu-195655dd"), "{out}");
    assert!(out.contains("note: the right to list nodes in the cluster is missing"), "{out}");
    assert!(out.contains("note: the right to list events in namespace ml is missing"), "{out}");
    let held = ["gpu-97722eb3", "gpu-195655dd"].map(|device| claim(&alone("ml/train-0", "gpu-c", device)));
    let mut full = with_pod(objects(CLAIMS));
    full.insert(CLAIMS, json!(held));
    let server = serve(full);
    let Ran(code, out, _) = run(&server, &["why", "train-1", "-o", "json"]);
    let why: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &why["verdict"]), (1, &json!("waits")));
    let Ran(code, _, error) = run(&server, &["why", "claim/other"]);
    assert_eq!(code, 3);
    assert!(error.contains("the right to get resourceclaims.resource.k8s.io in namespace ml is missing"), "{error}");
}

#[test]
fn a_taint_of_an_administrator_keeps_a_pod_away() {
    let taint = json!({"key": "out-of-service", "effect": "NoSchedule"});
    let rule = json!({"spec": {"deviceSelector": {"pool": "gpu-c", "device": "gpu-195655dd"}, "taint": taint}});
    let mut objects = with_pod(objects(CLAIMS));
    objects.insert(TAINT_RULES, json!([rule]));
    let server = serve(objects);
    let Ran(code, out, _) = run(&server, &["why", "train-1"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("have the taint out-of-service:NoSchedule"), "{out}");
    let Ran(code, out, _) = run(&server, &["status"]);
    assert!(code == 0 && out.contains("1 GPU not well"), "{out}");
}

#[test]
fn a_manifest_uses_templates_of_the_cluster() {
    let requests = json!([{"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com"}}]);
    let template = json!({"spec": {"spec": {"devices": {"requests": requests}}}});
    let mut objects = with_pod(objects(CLAIMS));
    objects.insert("/apis/resource.k8s.io/v1/namespaces/ml/resourceclaimtemplates/gpu", template);
    let server = serve(objects);
    let file = server.dir.path().join("deployment.yaml");
    for (replicas, expect) in [("1", 0), ("2", 1), ("3", 2)] {
        let pod = "{spec: {resourceClaims: [{name: gpu, resourceClaimTemplateName: gpu}]}}";
        let yaml =
            format!("kind: Deployment\nmetadata: {{name: d}}\nspec: {{replicas: {replicas}, template: {pod}}}\n");
        std::fs::write(&file, yaml).unwrap();
        let Ran(code, out, error) = run(&server, &["fit", "-f", file.to_str().unwrap()]);
        assert_eq!((code, error.as_str()), (expect, ""), "{out}");
    }
    std::fs::write(&file, "kind: Service\n").unwrap();
    let Ran(code, _, error) = run(&server, &["fit", "-f", file.to_str().unwrap()]);
    assert_eq!(code, 3);
    assert!(error.contains("the file has no claim"), "{error}");
}
