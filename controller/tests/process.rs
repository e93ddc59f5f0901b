// SPDX-License-Identifier: Apache-2.0
//! The shipped program: output, HTTP endpoints, termination.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[path = "support/api_server.rs"]
mod api_server;

use api_server::ApiServer;

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_gpu-controller"));
    program.env_clear().stderr(Stdio::piped()).stdout(Stdio::piped());
    program
}

fn resource_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../driver/resource").join(path)
}

fn api_server_flag(server: &ApiServer) -> String {
    format!("--api-server=http://{}", server.address())
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The answer to one HTTP request; nothing while the address is not served.
fn http_get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

async fn until(description: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(20), "timed out waiting until {description}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sends SIGTERM and waits until the process exits; true if it exits with 0.
async fn terminate(mut child: Child) -> bool {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let mut ended = None;
    until("the process ends", || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    })
    .await;
    ended.unwrap().success()
}

#[test]
fn a_dry_run_prints_the_slices_without_an_api_server() {
    let owner = "  ownerReferences:\n  - apiVersion: v1\n    controller: true\n    kind: Node\n    name: node-1\n    uid: 11111111-2222-3333-4444-555555555555\n";
    for (inventory, forms, golden) in [
        ("a100-mig", None, "a100-mig"),
        ("h100-8", None, "h100-8"),
        ("h100-8", Some("--forms=gpu,mig"), "h100-8-without-shares"),
    ] {
        let inventory = resource_file(&format!("testdata/{inventory}.json"));
        let mut program = program();
        program.args(["--node-name=node-1", "--once", "--dry-run", "--inventory-file"]);
        let output = program.arg(inventory).args(forms).output().unwrap();
        let golden = std::fs::read_to_string(resource_file(&format!("tests/golden/{golden}.yaml"))).unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), golden.replace(owner, ""), "{forms:?}");
    }
}

#[test]
fn without_an_api_server_it_fails_with_advice() {
    let inventory = resource_file("testdata/t4.json");
    let output = program().args(["--node-name=n", "--once", "--inventory-file"]).arg(inventory).output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        log.contains(
            "failed to configure the API server client: no API server is configured; run in a pod, or set --api-server"
        ),
        "{log}"
    );
}

/// Whether a process catches SIGTERM, which the first process of a container ignores otherwise.
fn catches_term(process: u32) -> bool {
    // proc(5): a bit for each signal that is caught, SIGTERM's being the fifteenth.
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 14) != 0
}

#[tokio::test]
async fn it_stays_without_a_node_or_an_api_server_until_a_signal() {
    let child = program().arg("--stay").spawn().unwrap();
    until("SIGTERM is caught", || catches_term(child.id())).await;
    assert!(terminate(child).await);
}

#[tokio::test]
async fn a_withdrawal_that_waits_for_the_api_server_fails_on_a_signal() {
    let mut withdraw = program();
    withdraw.args(["--withdraw", "--all-nodes", &format!("--api-server=http://{}", free_address())]);
    let mut child = withdraw.spawn().unwrap();
    until("SIGTERM is caught", || catches_term(child.id())).await;
    let mut log = child.stderr.take().unwrap();
    assert!(!terminate(child).await);
    let mut logged = String::new();
    log.read_to_string(&mut logged).unwrap();
    assert!(logged.contains("stopped by a signal before the work was done"), "{logged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_publishes_serves_endpoints_and_ends_cleanly() {
    let server = ApiServer::start().await;
    let address = free_address();
    let start = || {
        let mut program = program();
        program.arg(api_server_flag(&server)).env("NODE_NAME", "n");
        program.arg("--inventory-file").arg(resource_file("testdata/h100-8.json"));
        program.arg(format!("--http-address={address}"));
        program.spawn().unwrap()
    };
    let ready = || http_get(address, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"));
    let first = start();
    until("it is ready", ready).await;
    let metrics = http_get(address, "/metrics").unwrap();
    for line in [
        "gpu_dra_resourceslice_writes_total{operation=\"create\",result=\"success\"} 2",
        "gpu_dra_publish_duration_seconds_count 1",
        concat!("gpu_dra_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "gpu_dra_published_devices{type=\"gpu\"} 6",
        "gpu_dra_published_devices{type=\"mig\"} 9",
        "gpu_dra_published_devices{type=\"shared-gpu\"} 12",
        "gpu_dra_pool_generation 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert!(http_get(address, "/healthz").unwrap().starts_with("HTTP/1.1 200"));
    assert!(terminate(first).await);
    assert_eq!(server.with(|world| std::mem::take(&mut world.writes).len()), 2);

    let second = start();
    until("it is ready again", ready).await;
    assert!(terminate(second).await);
    assert_eq!(server.with(|world| world.writes.clone()), Vec::<String>::new());

    let mut withdraw = program();
    withdraw.arg(api_server_flag(&server)).args(["--withdraw", "--all-nodes"]);
    let mut withdraw = withdraw.spawn().unwrap();
    server.until("all slices are deleted", |world| world.slices.is_empty()).await;
    until("it is done", || withdraw.try_wait().unwrap().is_some_and(|status| status.success())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_api_server_is_logged_once_in_one_line() {
    let mut server = ApiServer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (log, inventory) = (dir.path().join("log"), dir.path().join("inventory.json"));
    std::fs::copy(resource_file("testdata/h100-8.json"), &inventory).unwrap();
    let mut controller = program();
    controller.arg(api_server_flag(&server)).stderr(std::fs::File::create(&log).unwrap());
    controller.args(["--node-name=n", &format!("--http-address={}", free_address()), "--inventory-file"]);
    let controller = controller.arg(&inventory).spawn().unwrap();
    let logged = |text: &str| std::fs::read_to_string(&log).unwrap().contains(text);
    until("it publishes", || logged("published")).await;

    server.go_down().await;
    std::fs::copy(resource_file("testdata/t4.json"), &inventory).unwrap();
    until("both failures are logged", || logged("failed to watch") && logged("failed to publish")).await;
    server.come_up().await;
    until("the recovery of both is logged", || logged("watched again") && logged("publishing works again")).await;
    assert!(terminate(controller).await);
    let log = std::fs::read_to_string(&log).unwrap();
    let problems: Vec<&str> = log.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert_eq!(problems.len(), 2, "{log}");
    for line in problems {
        let cause = "failed to reach the API server: Connection refused (os error 111)\"";
        assert!(line.contains(" WARN ") && line.ends_with(cause) && line.contains("; retrying"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_watch_is_logged_once_and_repeated_with_growing_delays() {
    let server = ApiServer::start().await;
    server.with(|world| world.refuses_watches = true);
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut controller = program();
    controller.arg(api_server_flag(&server)).stderr(std::fs::File::create(&log).unwrap());
    controller.args(["--node-name=n", &format!("--http-address={}", free_address()), "--inventory-file"]);
    let controller = controller.arg(resource_file("testdata/t4.json")).spawn().unwrap();
    let logged = |text: &str| std::fs::read_to_string(&log).unwrap().contains(text);
    until("the failure is logged", || logged("failed to watch the slices of this node")).await;
    let (began, lists) = (Instant::now(), server.with(|world| world.lists));
    // Six more attempts: with a constant delay they would take less than two seconds.
    until("the watch is retried", || server.with(|world| world.lists) >= lists + 12).await;
    assert!(began.elapsed() > Duration::from_secs(6), "{:?}", began.elapsed());
    server.with(|world| world.refuses_watches = false);
    until("the recovery is logged", || logged("watched again")).await;
    assert!(terminate(controller).await);
    let log = std::fs::read_to_string(&log).unwrap();
    assert_eq!(log.matches("failed to watch").count(), 1, "{log}");
}
