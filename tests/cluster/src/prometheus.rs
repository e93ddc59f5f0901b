// SPDX-License-Identifier: Apache-2.0
//! A Prometheus beside the control plane, which scrapes the pods of a release.
//!
//! Input: groups of rules, as the chart renders them. Output: an address that the host reaches.

use crate::{
    cache,
    cluster::Cluster,
    command,
    error::{ClusterError, Result},
    files,
};
use serde_json::{Value, json};
use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

/// Port of its interface.
const PORT: u16 = 9090;

/// Writes the file of targets.
const TARGETS: &str = include_str!("scripts/targets.sh");

/// Longer than any answer takes.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A running Prometheus. It ends with its cluster.
#[derive(Debug)]
pub struct Prometheus {
    address: String,
}

impl Prometheus {
    /// The address of its interface, for a browser on this machine.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The body of its answer to the GET of a path.
    pub fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        // HTTP/1.0, so that the answer is not cut into chunks.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
            Some(_) | None => Err(io::Error::other(answer)),
        }
    }
}

impl Cluster {
    /// Starts a Prometheus with these rules, a YAML file, that scrapes the pods of a release, and waits until it is ready.
    pub fn start_prometheus(&self, rules: &str, release: &str) -> Result<Prometheus> {
        let program = cache::dir().join("prometheus/usr/bin/prometheus");
        if !program.is_file() {
            return Err(ClusterError::NoPrometheus { path: program });
        }
        let dir = self.dir().join("prometheus");
        files::make_dir(&dir)?;
        let [rules_path, targets_path, config_path] =
            ["rules.yaml", "targets.json", "prometheus.json"].map(|name| dir.join(name));
        files::write(&rules_path, rules)?;
        files::write(&config_path, config(&rules_path, &targets_path, release).to_string())?;

        let namespaces = self.namespaces()?;
        let mut discover = namespaces.command("sh");
        discover.args(["-c", TARGETS, "targets"]).arg(self.programs().path("kubectl"));
        discover.arg(self.kubeconfig_path()).arg(release).arg(targets_path);
        command::start(&discover, &self.logs_dir().join("prometheus-targets.log"))?;

        let address = format!("{}:{PORT}", self.control_plane_address()?);
        let mut prometheus = namespaces.command(program);
        prometheus.arg(format!("--config.file={}", config_path.display()));
        prometheus.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
        prometheus.arg(format!("--web.listen-address={address}"));
        command::start(&prometheus, &self.logs_dir().join("prometheus.log"))?;

        let prometheus = Prometheus { address };
        let ready = || Ok(prometheus.get("/-/ready").ok().map(drop));
        self.wait_until("a ready Prometheus", Duration::from_mins(1), ready)?;
        Ok(prometheus)
    }
}

/// A job as the PodMonitor of the chart describes it, and one for the scheduler, which knows the pods that fit nowhere.
fn config(rules_path: &Path, targets_path: &Path, release: &str) -> Value {
    let targets = json!({"files": [targets_path], "refresh_interval": "5s"});
    let job = json!({"job_name": release, "honor_labels": true, "file_sd_configs": [targets]});
    let scheduler = json!({
        "job_name": "kube-scheduler", "scheme": "https", "tls_config": {"insecure_skip_verify": true},
        "static_configs": [{"targets": ["127.0.0.1:10259"]}],
    });
    let global = json!({"scrape_interval": "5s", "evaluation_interval": "5s"});
    json!({"global": global, "rule_files": [rules_path], "scrape_configs": [job, scheduler]})
}
