// SPDX-License-Identifier: Apache-2.0
//! A real Prometheus that scrapes programs under test, its promtool and its Alertmanager.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::chart::cache_dir;
use crate::wait::{WAIT_TIMEOUT, until, within};

/// A program of Debian's packages `prometheus` and `prometheus-alertmanager`.
pub fn program(name: &str) -> PathBuf {
    let path = cache_dir().join("prometheus/usr/bin").join(name);
    assert!(path.is_file(), "no {}: run `make setup` first", path.display());
    path
}

/// What promtool prints for these arguments, as an error if it fails.
pub fn promtool(arguments: &[&str]) -> Result<String, String> {
    let output = std::process::Command::new(program("promtool")).args(arguments).output().expect("promtool runs");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.success() { Ok(text) } else { Err(text) }
}

/// What a Prometheus scrapes: the address, and the labels of its series.
pub type Target = (String, Value);

/// A Prometheus on a port that the system chose. Its files are removed with it.
#[derive(Debug)]
pub struct Prometheus {
    address: String,
    // Ended before its directory is removed.
    _process: Child,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts one with the groups of rules, as the PodMonitor of the chart configures it, with a short interval.
    pub async fn start(targets: &[Target], groups: &Value) -> Self {
        Self::with_alertmanager(targets, groups, None).await
    }

    /// The same, which sends its alerts.
    pub async fn with_alertmanager(targets: &[Target], groups: &Value, to: Option<&Alertmanager>) -> Self {
        let dir = tempfile::tempdir().expect("a writable temporary directory");
        let write = |name: &str, content: &Value| {
            let path = dir.path().join(name);
            std::fs::write(&path, content.to_string()).expect("a directory of our own");
            path
        };
        let rules_path = write("rules.yaml", groups);
        let static_configs = targets.iter().map(|(address, labels)| json!({"targets": [address], "labels": labels}));
        let job = json!({
            "job_name": "gpu-dra-driver", "honor_labels": true, "static_configs": static_configs.collect::<Vec<_>>(),
        });
        let global = json!({"scrape_interval": "1s", "evaluation_interval": "1s"});
        let receivers: Vec<Value> =
            to.map(|to| json!({"static_configs": [{"targets": [to.address]}]})).into_iter().collect();
        let config = json!({
            "global": global, "rule_files": [rules_path], "scrape_configs": [job], "alerting": {"alertmanagers": receivers},
        });
        let config_path = write("prometheus.yaml", &config);
        let log_path = dir.path().join("log");
        let process = Command::new(program("prometheus"))
            .arg(format!("--config.file={}", config_path.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log_path).expect("a directory of our own"))
            .kill_on_drop(true)
            .spawn()
            .expect("prometheus is a program");
        let is_ready = |log: &str| log.contains("Server is ready to receive web requests");
        let address = until("Prometheus listens", || listen_address(&log_path, is_ready)).await;
        Self { address, _dir: dir, _process: process }
    }

    /// The samples of an expression now, or the error.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let answer = get(&self.address, &format!("/api/v1/query?query={}", percent_encoded(expression))).await;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default()),
            _ => Err(format!("{answer}")),
        }
    }

    /// Waits until an expression has samples.
    pub async fn until_data(&self, expression: &str) -> Vec<Value> {
        let what = format!("Prometheus has data for {expression}");
        until_answer(&what, async || {
            let samples = self.query(expression).await.unwrap_or_else(|error| panic!("{expression}: {error}"));
            (!samples.is_empty()).then_some(samples)
        })
        .await
    }

    /// Waits until Prometheus has all of these series, and returns the names of all that it has.
    pub async fn until_names(&self, wanted: &BTreeSet<String>) -> BTreeSet<String> {
        let missing = Mutex::new(BTreeSet::new());
        let has_all = until_answer("Prometheus has the series", async || {
            let answer = get(&self.address, "/api/v1/label/__name__/values").await;
            let names = answer["data"].as_array().into_iter().flatten().filter_map(|name| name.as_str());
            let names: BTreeSet<String> = names.map(str::to_owned).collect();
            let absent: BTreeSet<String> = wanted.difference(&names).cloned().collect();
            let has_all = absent.is_empty();
            *missing.lock().unwrap_or_else(PoisonError::into_inner) = absent;
            has_all.then_some(names)
        });
        timeout(WAIT_TIMEOUT / 2, has_all)
            .await
            .unwrap_or_else(|_elapsed| panic!("Prometheus has no series {missing:?}"))
    }
}

/// An Alertmanager without a receiver.
#[derive(Debug)]
pub struct Alertmanager {
    address: String,
    // Ended before its directory is removed.
    _process: Child,
    _dir: TempDir,
}

impl Alertmanager {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a writable temporary directory");
        let (config_path, log_path) = (dir.path().join("alertmanager.yaml"), dir.path().join("log"));
        let config = json!({"route": {"receiver": "none"}, "receivers": [{"name": "none"}]});
        std::fs::write(&config_path, config.to_string()).expect("a directory of our own");
        // Debian's program reads its templates from /usr/share.
        let share_dir = cache_dir().join("prometheus/usr/share");
        let mount = format!("mount -t overlay overlay -o lowerdir={}:/usr/share /usr/share", share_dir.display());
        let process = Command::new("unshare")
            .args(["--mount", "sh", "-c", &format!("{mount} && exec \"$0\" \"$@\"")])
            .arg(program("prometheus-alertmanager"))
            .arg(format!("--config.file={}", config_path.display()))
            .arg(format!("--storage.path={}", dir.path().join("data").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--cluster.listen-address="])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log_path).expect("a directory of our own"))
            .kill_on_drop(true)
            .spawn()
            .expect("unshare is a program");
        let address = until("Alertmanager listens", || listen_address(&log_path, |_| true)).await;
        Self { address, _process: process, _dir: dir }
    }

    /// Waits until the alerts of a name that fire are as wanted.
    pub async fn until_alerts<T>(&self, name: &str, wanted: impl Fn(&[Value]) -> Option<T>) -> T {
        let path = format!("/api/v2/alerts?filter={}", percent_encoded(&format!("alertname={name}")));
        until_answer(&format!("Alertmanager has the alerts {name} as wanted"), async || {
            let alerts = get(&self.address, &path).await;
            alerts.as_array().and_then(|alerts| wanted(alerts))
        })
        .await
    }
}

/// Waits until an answer is there.
async fn until_answer<T>(what: &str, answer: impl AsyncFn() -> Option<T>) -> T {
    let answered = async {
        // A scrape a second is the fastest that anything changes.
        let mut ticks = interval(Duration::from_millis(100));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Some(answer) = answer().await {
                return answer;
            }
        }
    };
    within(what, answered).await
}

/// `Value::Null` while it does not answer.
async fn get(address: &str, path: &str) -> Value {
    let answer = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        // HTTP/1.0, so that the answer is not cut into chunks.
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    };
    within(&format!("an answer to {path}"), answer).await.unwrap_or_default()
}

/// The address with the port that the system chose, from the log of a program that is ready.
fn listen_address(log_path: &Path, is_ready: impl Fn(&str) -> bool) -> Option<String> {
    let log = std::fs::read_to_string(log_path).unwrap_or_default();
    // Requests are answered with an error before the rules are loaded.
    is_ready(&log).then_some(())?;
    let line = log.lines().find(|line| line.contains("msg=\"Listening on\""))?;
    Some(line.split("address=").nth(1)?.trim().to_owned())
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
