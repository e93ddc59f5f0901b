// SPDX-License-Identifier: Apache-2.0
//! A cluster with the driver, and the workloads to apply.

use crate::{
    error::{DemoError, Doing, Result},
    repository::Repository,
    seen::Seen,
};
use dra_cluster::{Cluster, ClusterError};
use serde_json::Value;
use std::{collections::BTreeMap, fmt, time::Duration};

/// Timeout of operations that take seconds.
const LIMIT: Duration = Duration::from_mins(1);

/// A cluster on which the driver is installed.
#[derive(Debug, Clone, Copy)]
pub struct Stage<'a> {
    pub cluster: &'a Cluster,
    /// Repository with the workloads.
    pub repository: &'a Repository,
}

/// The GPUs of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSaw {
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// Name of the node.
    pub node: String,
    /// Output of `nvidia-smi -L` in the container.
    pub seen: Seen,
}

impl fmt::Display for PodSaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pod, container, node, seen } = self;
        let seen = seen.to_string().replace('\n', "\n  ");
        match container.as_str() {
            "main" => write!(f, "{pod} on {node} sees\n  {seen}"),
            _ => write!(f, "{pod}, container {container}, on {node} sees\n  {seen}"),
        }
    }
}

impl Stage<'_> {
    /// Applies a workload, runs a scene and deletes the workload, also after an error.
    pub fn with<T>(&self, file_name: &str, play: impl FnOnce() -> Result<T>) -> Result<T> {
        self.apply(file_name)?;
        let played = play();
        let deleted = self.delete(file_name);
        let played = played?;
        deleted.map(|()| played)
    }

    pub fn apply(&self, file_name: &str) -> Result<()> {
        let path = self.repository.workload_path(file_name).display().to_string();
        self.cluster.kubectl(&["apply", "-f", &path]).map(drop).doing(format!("apply {file_name}"))
    }

    /// Tries to apply a workload that an admission policy refuses; the error messages by name of the object.
    pub fn refused(&self, file_name: &str) -> Result<BTreeMap<String, String>> {
        let path = self.repository.workload_path(file_name).display().to_string();
        // A dry run creates no objects that must be deleted.
        match self.cluster.kubectl(&["apply", "--dry-run=server", "-f", &path]) {
            Err(ClusterError::Failed { message, .. }) => Ok(refusals(&message)),
            answer => answer.map(|_taken| BTreeMap::new()).doing(format!("try {file_name}")),
        }
    }

    /// Deletes a workload and waits until it is deleted.
    pub fn delete(&self, file_name: &str) -> Result<()> {
        let path = self.repository.workload_path(file_name).display().to_string();
        let args = ["delete", "-f", &path, "--ignore-not-found", "--timeout=90s"];
        self.cluster.kubectl(&args).map(drop).doing(format!("delete {file_name}"))
    }

    /// The GPUs of the container `main` of a running pod in `default`.
    pub fn saw(&self, pod: &str) -> Result<PodSaw> {
        self.saw_in("default", pod, "main")
    }

    /// The GPUs of a container, after the pod runs.
    pub fn saw_in(&self, namespace: &str, pod: &str, container: &str) -> Result<PodSaw> {
        self.wait_for_pod(namespace, pod)?;
        let node = self.cluster.kubectl(&["-n", namespace, "get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"]);
        let node = node.doing(format!("find the node of {pod}"))?;
        let list = || {
            let log = self.cluster.kubectl(&["-n", namespace, "logs", pod, "-c", container])?;
            let seen = Seen::parse(&log);
            Ok((!seen.gpus.is_empty()).then_some(seen))
        };
        let what = format!("a list of GPUs in the log of {pod}");
        let seen = self.cluster.wait_until(&what, LIMIT, list).doing(format!("read the log of {pod}"))?;
        Ok(PodSaw { pod: pod.to_owned(), container: container.to_owned(), node, seen })
    }

    /// Output of a shell script in the container `main` of a running pod.
    pub fn run_in(&self, namespace: &str, pod: &str, script: &str) -> Result<String> {
        let args = ["-n", namespace, "exec", pod, "-c", "main", "--", "sh", "-c", script];
        self.cluster.kubectl(&args).doing(format!("run a script in {namespace}/{pod}"))
    }

    /// The GPUs of all pods with this `app` label.
    pub fn all_saw(&self, app: &str) -> Result<Vec<PodSaw>> {
        let pods =
            list(self.cluster, &["pods", "-l", &format!("app={app}")]).doing(format!("list the pods of {app}"))?;
        pods.iter().map(|pod| self.saw(text(pod, "/metadata/name"))).collect()
    }

    /// The name of the pod with this `app` label.
    pub fn only_pod_of(&self, app: &str) -> Result<String> {
        let pods =
            list(self.cluster, &["pods", "-l", &format!("app={app}")]).doing(format!("list the pods of {app}"))?;
        let name = pods.first().map(|pod| text(pod, "/metadata/name").to_owned());
        name.ok_or_else(|| DemoError::Incomplete { what: "the pod", object: app.to_owned() })
    }

    /// Waits until all pods of a Deployment are ready.
    pub fn wait_for_deployment(&self, name: &str) -> Result<()> {
        let args = ["rollout", "status", &format!("deployment/{name}"), "--timeout=90s"];
        let done = self.cluster.kubectl(&args).map(drop);
        done.map_err(|source| self.not_started("default", name, source))
    }

    /// The name of the claim that was created for a pod.
    pub fn claim_of(&self, pod: &str) -> Result<String> {
        let pod = self.cluster.kubectl(&["get", "pod", pod, "-o", "json"]).and_then(|json| parse(&json));
        let pod = pod.doing("read the pod of a claim")?;
        let names = [
            "/status/resourceClaimStatuses/0/resourceClaimName",
            "/status/extendedResourceClaimStatus/resourceClaimName",
        ];
        let name = names.iter().map(|name| text(&pod, name)).find(|name| !name.is_empty());
        name.map(str::to_owned).ok_or_else(|| DemoError::Incomplete {
            what: "the name of its claim",
            object: text(&pod, "/metadata/name").to_owned(),
        })
    }

    /// The Event of the scheduler about a pod of `default` that fits nowhere.
    pub fn scheduler_answer(&self, pod: &str) -> Result<String> {
        let event = || {
            let selector = format!("involvedObject.name={pod},reason=FailedScheduling");
            let args = ["get", "events", "--field-selector", &selector, "-o", "jsonpath={.items[0].message}"];
            let message = self.cluster.kubectl(&args)?;
            Ok((!message.is_empty()).then_some(message))
        };
        let message = self.cluster.wait_until("the Event of the scheduler", LIMIT, event);
        message.doing(format!("wait for the Event of the scheduler about {pod}"))
    }

    pub fn describe(&self, kind: &str, name: &str) -> Result<String> {
        self.cluster.kubectl(&["describe", kind, name]).doing(format!("describe {kind} {name}"))
    }

    fn wait_for_pod(&self, namespace: &str, pod: &str) -> Result<()> {
        let name = format!("pod/{pod}");
        let args = ["-n", namespace, "wait", "--for=condition=Ready", &name, "--timeout=60s"];
        self.cluster.kubectl(&args).map(drop).map_err(|source| self.not_started(namespace, pod, source))
    }

    fn not_started(&self, namespace: &str, pod: &str, source: ClusterError) -> DemoError {
        let args = ["-n", namespace, "get", "events", "-o", "custom-columns=:involvedObject.name,:reason,:message"];
        let events = self.cluster.kubectl(&args).unwrap_or_else(|error| error.to_string());
        let events: Vec<_> = events.lines().filter(|line| line.starts_with(pod)).collect();
        DemoError::NotStarted { pod: format!("{namespace}/{pod}"), events: events.join("\n"), source: Box::new(source) }
    }
}

/// The items of `kubectl get` with the arguments `what`.
pub(crate) fn list(cluster: &Cluster, what: &[&str]) -> dra_cluster::Result<Vec<Value>> {
    let mut list = parse(&cluster.kubectl(&[&["get", "-o", "json"], what].concat())?)?;
    Ok(list.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default())
}

/// The messages of an admission policy in the error output of `kubectl`, by name of the object.
pub fn refusals(message: &str) -> BTreeMap<String, String> {
    let refusal = |line: &str| {
        let (object, reason) = line.split_once("\" is forbidden: ")?;
        let (_, name) = object.rsplit_once('"')?;
        let (_, sentence) = reason.split_once(" denied request: ")?;
        Some((name.to_owned(), sentence.to_owned()))
    };
    message.lines().filter_map(refusal).collect()
}

/// The text at a JSON pointer, or an empty text.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The texts of a list at a JSON pointer.
pub fn texts<'a>(value: &'a Value, pointer: &str) -> Vec<&'a str> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn parse(json: &str) -> dra_cluster::Result<Value> {
    serde_json::from_str(json).map_err(|source| ClusterError::Json { what: "the answer of kubectl".to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_found_in_the_output_of_kubectl() {
        let message = concat!(
            "Warning: something else\n",
            "Error from server (Invalid): error when creating \"a.yaml\": resourceclaims.resource.k8s.io \"train\" is forbidden: ",
            "ValidatingAdmissionPolicy 'p' with binding 'p' denied request: kind is \"X\": expected `GpuConfig`\n",
            "Error from server (NotFound): error when creating \"a.yaml\": namespaces \"red\" not found",
        );
        let expect = BTreeMap::from([("train".to_owned(), "kind is \"X\": expected `GpuConfig`".to_owned())]);
        assert_eq!(refusals(message), expect);
    }
}
