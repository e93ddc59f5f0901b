// SPDX-License-Identifier: Apache-2.0
//! The archive of `doctor` for a bug report: what was found, the objects of the driver and its logs, without secrets.
//!
//! Secrets are never read. What may hold one all the same is removed: values of environment variables, annotations, and what has the
//! form of a token in logs.

mod redact;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dra_model::Advice;
use flate2::Compression;
use flate2::write::GzEncoder;
use kube::Client;

use crate::age::Clock;
use crate::doctor_reading::{log, text};
use crate::driver_pods::{DriverPod, Found};

/// More than a day of a plugin that works.
const LOG_LINES: usize = 2000;
const CONTAINERS: [&str; 2] = ["plugin", "controller"];

/// The archive is not written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write {}", path.display())]
pub struct ReportError {
    path: PathBuf,
    source: io::Error,
}

impl Advice for ReportError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        (self.source.kind() == io::ErrorKind::AlreadyExists).then(|| "name a new file: no file is replaced".into())
    }
}

/// The content of the archive by the names of its files. What cannot be read is a file with the reason.
pub async fn files(client: &Client, pods: &Found, node: Option<&str>) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for (name, path, right) in objects(pods, node) {
        let content = match text(client, &path, &right).await {
            Ok(found) => redact::json(&found),
            Err(why) => why + "\n",
        };
        files.insert(name, content);
    }
    let on_node = |pod: &&DriverPod| node.is_none() || pod.node.as_deref() == node;
    for pod in pods.pods.iter().filter(on_node) {
        for container in CONTAINERS {
            for (is_previous, suffix) in [(false, ""), (true, ".previous")] {
                // Most containers have no earlier run.
                if let Ok(found) = log(client, pod, container, LOG_LINES, is_previous).await {
                    files.insert(format!("logs/{}/{container}{suffix}.log", pod.name), redact::text(&found));
                }
            }
        }
    }
    files
}

/// Name in the archive, path at the API server, and the right to read it.
fn objects(pods: &Found, node: Option<&str>) -> Vec<(String, String, String)> {
    let fields = node.map(|node| format!("?fieldSelector=spec.nodeName%3D{node}")).unwrap_or_default();
    let dra = "/apis/resource.k8s.io/v1";
    let object = |name: &str, path: String, right: &str| (name.to_owned(), path, right.to_owned());
    let mut objects = vec![
        object("version.json", "/version".to_owned(), "get /version"),
        object("resourceslices.json", format!("{dra}/resourceslices{fields}"), "list resourceslices"),
        object("deviceclasses.json", format!("{dra}/deviceclasses"), "list deviceclasses"),
        object("devicetaintrules.json", format!("{dra}/devicetaintrules"), "list devicetaintrules"),
        object("nodes.json", "/api/v1/nodes".to_owned(), "list nodes"),
        object("node-events.json", "/api/v1/events?fieldSelector=involvedObject.kind%3DNode".to_owned(), "list events"),
    ];
    let namespaces: std::collections::BTreeSet<&str> = pods.pods.iter().map(|pod| pod.namespace.as_str()).collect();
    for namespace in namespaces {
        for (plural, base) in [("pods", "/api/v1"), ("events", "/api/v1"), ("daemonsets", "/apis/apps/v1")] {
            let path = format!("{base}/namespaces/{namespace}/{plural}");
            objects.push(object(&format!("{namespace}/{plural}.json"), path, &format!("list {plural} in {namespace}")));
        }
    }
    objects
}

/// Writes a new file that only its owner may read.
pub fn write(path: &Path, files: &BTreeMap<String, String>) -> Result<(), ReportError> {
    let failed = |source| ReportError { path: path.to_owned(), source };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let seconds = u64::try_from(Clock::now_ms() / 1000).unwrap_or_default();
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len()).unwrap_or_default());
        header.set_mode(0o644);
        header.set_mtime(seconds);
        archive.append_data(&mut header, format!("kubectl-gpu-doctor/{name}"), content.as_bytes()).map_err(failed)?;
    }
    let finished = archive.into_inner().and_then(GzEncoder::finish).and_then(|mut file| file.flush());
    finished.map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn an_archive_has_its_files_and_replaces_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        let files = BTreeMap::from([("a/b.txt".to_owned(), "content".to_owned())]);
        write(&path, &files).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((entry.path().unwrap().display().to_string(), text));
        }
        assert_eq!(found, [("kubectl-gpu-doctor/a/b.txt".to_owned(), "content".to_owned())]);
        let error = write(&path, &files).unwrap_err();
        assert!(dra_model::explain(&error).ends_with("; name a new file: no file is replaced"), "{error}");
    }
}
