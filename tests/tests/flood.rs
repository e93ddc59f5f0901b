// SPDX-License-Identifier: Apache-2.0
//! Connections without end, to health and metrics and to the socket for the controller: each process stays ready and small,
//! and goes on with its work.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::VecDeque;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dra_proto::node_v1::WatchNodeRequest;
use dra_tests::api_server::Resource as ResourceKind;
use dra_tests::program::Program;
use dra_tests::wait::within;
use dra_tests::{Mode, NewClaim, Node};
use futures::future::join_all;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tokio::net::UnixStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::Code;

const HALF_OPEN: usize = 2000;

/// What a kubelet waits for an answer to a readiness probe of the chart.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What all of them may cost together.
const MAX_GROWTH_KIB: usize = 4096;

/// Files that a process of the driver has open at most.
const MAX_FILES: usize = 256;

/// Lets this process, and those it starts, open as many files as it may.
fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

fn resident_kib(program: &Program) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", program.process_id().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

fn open_files(program: &Program) -> usize {
    fs::read_dir(format!("/proc/{}/fd", program.process_id().unwrap())).unwrap().count()
}

/// A connection whose request has a long header without an end. The server may close it at any time.
fn half_open(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let header = format!("GET /readyz HTTP/1.1\r\nHost: x\r\nX: {}", "a".repeat(64 * 1024));
    stream.write_all(header.as_bytes()).ok();
    stream
}

async fn many_half_open(program: &Program) -> Vec<TcpStream> {
    let address = program.http_address().to_owned();
    spawn_blocking(move || (0..HALF_OPEN).map(|_| half_open(&address)).collect()).await.unwrap()
}

/// As the kubelet asks.
async fn assert_ready(program: &Program) {
    let answer = timeout(PROBE_TIMEOUT, program.http("/readyz")).await;
    let is_ready = matches!(&answer, Ok(Some((200, body))) if body.starts_with("ok\n"));
    assert!(is_ready, "{answer:?}, {}", program.log());
}

/// A plugin that is ready.
async fn ready(node: &Node) -> Program {
    let plugin = node.start(Mode::Process).await;
    plugin.until_http("/readyz", |code, _| (code == 200).then_some(())).await;
    plugin
}

async fn assert_unmoved(program: &Program) {
    allow_many_files();
    let ready = |code: u16, _: &str| (code == 200).then_some(());
    for path in ["/readyz", "/healthz", "/metrics"] {
        program.until_http(path, ready).await;
    }
    let before = resident_kib(program);
    let held = many_half_open(program).await;
    assert_ready(program).await;
    let (growth, files) = (resident_kib(program).saturating_sub(before), open_files(program));
    assert!(growth < MAX_GROWTH_KIB, "{growth} KiB more than {before} KiB");
    assert!(files < MAX_FILES, "{files} open files");
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_do_not_move_the_plugin_or_the_controller() {
    let node = Node::new("t4:1");
    let plugin = node.start(Mode::Process).await;
    let controller = node.start_controller("1");
    assert_unmoved(&plugin).await;
    assert_unmoved(&controller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_do_not_move_the_mps_host() {
    let dir = tempfile::tempdir().unwrap();
    let flag = |name: &str| format!("--{name}={}", dir.path().join(name).display());
    let host = Program::mps_host(["root", "driver-root"].map(flag).into(), dir.path());
    assert_unmoved(&host).await;
}

/// Threads that open connections until this is dropped.
struct Flood(Arc<AtomicBool>);

impl Flood {
    fn start(address: &str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..2 {
            let (over, address) = (Arc::clone(&over), address.to_owned());
            std::thread::spawn(move || {
                let mut held = VecDeque::new();
                while !over.load(Ordering::Relaxed) {
                    held.push_back(half_open(&address));
                    if held.len() > HALF_OPEN / 4 {
                        held.pop_front();
                    }
                }
            });
        }
        Self(over)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_prepares_are_answered_while_connections_keep_coming() {
    allow_many_files();
    let node = Node::new("t4:1");
    let plugin = ready(&node).await;
    let claim = NewClaim::of("c", &node.gpus.name(0)).create(&node.api);
    let _flood = Flood::start(plugin.http_address());
    for _ in 0..50 {
        assert_ready(&plugin).await;
    }
    node.kubelet.prepare(&claim).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_leave_the_plugin_the_files_it_needs() {
    allow_many_files();
    let node = Node::new("t4:1");
    let plugin = ready(&node).await;
    let claim = NewClaim::of("c", &node.gpus.name(0)).create(&node.api);
    let process = Pid::from_raw(plugin.process_id().unwrap().try_into().unwrap());
    let few = u64::try_from(open_files(&plugin) + 100).unwrap();
    prlimit(process, Resource::Nofile, Rlimit { current: Some(few), maximum: Some(few) }).unwrap();
    let held = many_half_open(&plugin).await;
    within("the claim is prepared", node.kubelet.prepare(&claim)).await.unwrap();
    assert_ready(&plugin).await;
    drop(held);
}

/// The controller has fewer rights than the plugin, and may be in other hands.
#[tokio::test(flavor = "multi_thread")]
async fn the_socket_for_the_controller_has_few_connections_and_streams() {
    let node = Node::new("t4:1");
    let plugin = ready(&node).await;
    let (mut first, mut second) = (node.node_client("1").await, node.node_client("1").await);
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(first.watch_node(WatchNodeRequest {}).await.unwrap());
    }
    let refused = second.watch_node(WatchNodeRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    drop(streams);
    let before = open_files(&plugin);
    let path = node.node_socket_path("1");
    // Connections that are not accepted fill a queue of the kernel; then connecting fails.
    let held: Vec<UnixStream> =
        join_all((0..500).map(|_| UnixStream::connect(&path))).await.into_iter().flatten().collect();
    assert!(held.len() > 100, "{}", held.len());
    assert_ready(&plugin).await;
    // Some files are open while they are read.
    let files = open_files(&plugin).saturating_sub(before);
    assert!(files <= 8, "{files} more open files");
    drop((first, second, held));
    let _controller = node.start_controller("1");
    node.api.until("its slices", ResourceKind::ResourceSlices, |slices| (!slices.is_empty()).then_some(())).await;
}
