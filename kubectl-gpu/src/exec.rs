// SPDX-License-Identifier: Apache-2.0
//! Runs a program in the plugin's container of a pod, as `kubectl exec` does, and returns what it printed.

use std::borrow::Cow;
use std::time::Duration;

use dra_model::Advice;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Client;
use kube::api::{Api, AttachParams, AttachedProcess};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use crate::driver_pods::{DriverPod, PLUGIN};
use dra_explain::request::Right;

/// Longer than NVML takes for a GPU that hangs.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Far more than any of these programs prints.
const MAX_BYTES: u64 = 8 << 20;

/// A program was not run, or its end is not known.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("{0} is missing")]
    Forbidden(Right),
    #[error("failed to run a program in pod {pod}")]
    Connect { pod: String, source: Box<kube::Error> },
    #[error("the connection to the program in pod {pod} was lost")]
    Lost { pod: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the program in pod {pod} did not end within {} s", TIMEOUT.as_secs())]
    Timeout { pod: String },
    #[error("the program in pod {pod} printed more than {} MiB", MAX_BYTES >> 20)]
    TooLong { pod: String },
    #[error("`{program}` in pod {pod} failed: {why}")]
    Failed { program: String, pod: String, why: String },
    #[error("the plugin in pod {pod} does not know `{program}`")]
    Unknown { program: String, pod: String },
}

impl Advice for ExecError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Forbidden(right) => Some(right.advice().into()),
            Self::Connect { pod, .. } | Self::Lost { pod, .. } => {
                let (namespace, name) = pod.split_once('/').unwrap_or_default();
                Some(format!("test it with `kubectl exec -n {namespace} {name} -c {PLUGIN} -- true`").into())
            }
            Self::Unknown { .. } => Some("upgrade the driver to the version of this program".into()),
            Self::Timeout { .. } | Self::TooLong { .. } | Self::Failed { .. } => None,
        }
    }
}

/// Runs a program of the plugin's image and returns its standard output. Its standard error is in the error if it fails.
pub async fn run(client: &Client, pod: &DriverPod, program: &[&str]) -> Result<Vec<u8>, ExecError> {
    let label = pod.label();
    match timeout(TIMEOUT, run_to_end(client, pod, program)).await {
        Ok(ended) => ended,
        Err(_) => Err(ExecError::Timeout { pod: label }),
    }
}

async fn run_to_end(client: &Client, pod: &DriverPod, program: &[&str]) -> Result<Vec<u8>, ExecError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let params = AttachParams::default().container(PLUGIN).max_stdout_buf_size(1 << 16);
    let started = pods.exec(&pod.name, program.iter().copied(), &params).await;
    let mut process = started.map_err(|error| refused(pod, error))?;
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let status = process.take_status();
    let status = async {
        match status {
            Some(status) => Ok(status.await),
            None => Ok(None),
        }
    };
    let (stdout, stderr, status) = futures::try_join!(text_of(pod, stdout), text_of(pod, stderr), status)?;
    ended(pod, process).await?;
    match status.and_then(failure) {
        None => Ok(stdout),
        Some(why) => Err(failed(pod, program, &why, &String::from_utf8_lossy(&stderr))),
    }
}

/// The connection closes with the program.
async fn ended(pod: &DriverPod, process: AttachedProcess) -> Result<(), ExecError> {
    let ended = process.join().await;
    ended.map_err(|source| ExecError::Lost { pod: pod.label(), source: Box::new(source) })
}

/// All that is printed.
async fn text_of(pod: &DriverPod, stream: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, ExecError> {
    let Some(stream) = stream else { return Ok(Vec::new()) };
    let mut text = Vec::new();
    let read = stream.take(MAX_BYTES).read_to_end(&mut text).await;
    let length = read.map_err(|source| ExecError::Lost { pod: pod.label(), source: Box::new(source) })?;
    // The program is not read to its end: there may be more.
    if u64::try_from(length).is_ok_and(|length| length >= MAX_BYTES) {
        return Err(ExecError::TooLong { pod: pod.label() });
    }
    Ok(text)
}

/// Kubernetes 1.34 and earlier ask for the right to get `pods/exec`, later versions for the right to create it.
fn refused(pod: &DriverPod, error: kube::Error) -> ExecError {
    if let kube::Error::Api(answer) = &error
        && answer.code == 403
    {
        let is_older = answer.message.contains("cannot get resource");
        let (verb, resource) = (if is_older { "get" } else { "create" }, "pods/exec".to_owned());
        return ExecError::Forbidden(Right { verb, resource, namespace: Some(pod.namespace.clone()) });
    }
    ExecError::Connect { pod: pod.label(), source: Box::new(error) }
}

/// Why a program failed, by the status that the kubelet sends at its end.
fn failure(status: Status) -> Option<String> {
    (status.status.as_deref() == Some("Failure")).then(|| status.message.unwrap_or_default())
}

fn failed(pod: &DriverPod, program: &[&str], why: &str, stderr: &str) -> ExecError {
    let (program, pod) = (program.join(" "), pod.label());
    let last = stderr.lines().rfind(|line| !line.trim().is_empty());
    if stderr.contains("unexpected argument") || stderr.contains("unrecognized subcommand") {
        return ExecError::Unknown { program, pod };
    }
    let why = last.map_or_else(|| why.to_owned(), |line| line.trim_start_matches("error: ").to_owned());
    ExecError::Failed { program, pod, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> DriverPod {
        DriverPod { namespace: "gpu".to_owned(), name: "p".to_owned(), ..DriverPod::default() }
    }

    #[test]
    fn the_missing_right_is_that_of_the_version_of_kubernetes() {
        for (message, expect) in [
            (r#"cannot create resource "pods/exec" in API group """#, "the right to create pods/exec in namespace gpu"),
            (r#"cannot get resource "pods/exec" in API group """#, "the right to get pods/exec in namespace gpu"),
        ] {
            let answer = kube::core::Status { code: 403, message: message.to_owned(), ..kube::core::Status::default() };
            let error = refused(&pod(), kube::Error::Api(Box::new(answer)));
            assert_eq!(error.to_string(), format!("{expect} is missing"));
        }
    }

    #[test]
    fn a_program_that_fails_has_a_reason_and_one_that_is_unknown_is_of_another_version() {
        let error = |stderr| failed(&pod(), &["gpu-kubelet-plugin", "doctor"], "exit code 1", stderr).to_string();
        assert_eq!(error("error: no disk\n\n"), "`gpu-kubelet-plugin doctor` in pod gpu/p failed: no disk");
        assert_eq!(error(""), "`gpu-kubelet-plugin doctor` in pod gpu/p failed: exit code 1");
        let unknown = "error: unexpected argument 'doctor' found\n\nUsage: …";
        assert_eq!(error(unknown), "the plugin in pod gpu/p does not know `gpu-kubelet-plugin doctor`");
    }
}
