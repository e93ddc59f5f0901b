// SPDX-License-Identifier: Apache-2.0
//! A program under test: the kubelet plugin in this process or as the real program that can be killed, the controller, or
//! the MPS host.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use clap::Parser as _;
use dra_hardware::NvmlMachine;
use dra_kubelet_plugin::app::{self, AppError};
use dra_kubelet_plugin::args::{Args, Config};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::programs::built;
use crate::wait::{until, within};

/// How a plugin is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As tasks of the test, on the simulated library.
    InProcess,
    /// As a process, on the simulated library.
    Process,
}

/// One running instance.
#[derive(Debug)]
pub struct Program {
    http_address: String,
    log_path: PathBuf,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Tasks { stop: CancellationToken, ended: JoinHandle<Result<(), AppError>> },
    Process(Child),
    Over,
}

impl Program {
    /// Starts a plugin with these flags; the address of its probes is added.
    pub fn plugin(mode: Mode, flags: Vec<String>, client: kube::Client, dir: &Path, pod_uid: &str) -> Self {
        let log_path = dir.join(format!("plugin-{pod_uid}.log"));
        Self::start(log_path, flags, |flags, log_path| match mode {
            Mode::InProcess => in_process(flags, client),
            Mode::Process => process("gpu-kubelet-plugin", flags, log_path),
        })
    }

    /// Starts a controller with these flags; the address of its probes is added.
    pub fn controller(flags: Vec<String>, dir: &Path) -> Self {
        Self::start(dir.join("controller.log"), flags, |flags, log_path| process("gpu-controller", flags, log_path))
    }

    /// Starts an MPS host with these flags; the address of its probes is added.
    pub fn mps_host(flags: Vec<String>, dir: &Path) -> Self {
        Self::start(dir.join("mps-host.log"), flags, |flags, log_path| process("gpu-mps-host", flags, log_path))
    }

    fn start(log_path: PathBuf, mut flags: Vec<String>, run: impl FnOnce(&[String], &Path) -> Running) -> Self {
        let http_address = format!("127.0.0.1:{}", free_port());
        flags.push(format!("--http-address={http_address}"));
        let running = run(&flags, &log_path);
        Self { http_address, log_path, running }
    }

    /// Stops it as the kubelet stops a container, and returns whether it ended cleanly.
    pub async fn stop(&mut self) -> bool {
        match std::mem::replace(&mut self.running, Running::Over) {
            Running::Tasks { stop, ended } => {
                stop.cancel();
                within("the program stops", ended).await.expect("the plugin does not panic").is_ok()
            }
            Running::Process(mut child) => {
                let id = child.id().expect("a child that was not waited for");
                send_signal(id, "TERM").await;
                within("the program stops", child.wait()).await.is_ok_and(|status| status.success())
            }
            Running::Over => true,
        }
    }

    /// Waits until it catches the signal that a stopping container gets: the first process of a container ignores it
    /// otherwise.
    pub async fn until_sigterm_is_caught(&self) {
        let status_path = format!("/proc/{}/status", self.process_id().expect("a process"));
        // proc_pid_status(5): a bit for each signal that is caught, that of SIGTERM being the fifteenth.
        let caught = || {
            let status = std::fs::read_to_string(&status_path).expect("a running process");
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("Linux");
            let caught = u64::from_str_radix(caught.trim(), 16).expect("a mask");
            (caught & 1 << 14 != 0).then_some(())
        };
        until("the program catches SIGTERM", caught).await;
    }

    /// Sends SIGTERM to the process, and returns how it ended.
    pub async fn terminate(&mut self) -> ExitStatus {
        let id = self.process_id().expect("a process that runs");
        send_signal(id, "TERM").await;
        self.ended().await
    }

    /// Ends it as the out-of-memory killer does.
    pub async fn kill(&mut self) -> ExitStatus {
        let Running::Process(mut child) = std::mem::replace(&mut self.running, Running::Over) else {
            panic!("only a process can be killed");
        };
        child.start_kill().expect("a running child");
        within("the killed program ends", child.wait()).await.expect("a child")
    }

    /// Stops the program without waiting, for a drop.
    pub fn kill_now(&mut self) {
        match std::mem::replace(&mut self.running, Running::Over) {
            Running::Tasks { stop, .. } => stop.cancel(),
            Running::Process(mut child) => child.start_kill().unwrap_or_default(),
            Running::Over => {}
        }
    }

    /// Whether the process has ended by itself, and how.
    pub async fn ended(&mut self) -> ExitStatus {
        let Running::Process(child) = &mut self.running else { panic!("only a process has a status") };
        within("the program ends", child.wait()).await.expect("a child")
    }

    /// The id of the process.
    pub fn process_id(&self) -> Option<u32> {
        match &self.running {
            Running::Process(child) => child.id(),
            Running::Tasks { .. } | Running::Over => None,
        }
    }

    /// Everything it said; empty for an instance in this process.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log_path).unwrap_or_default()
    }

    /// Waits until its log contains a text.
    pub async fn until_logged(&self, text: &str) {
        until(&format!("the program logs `{text}`"), || self.log().contains(text).then_some(())).await;
    }

    /// Where its endpoints are.
    pub fn http_address(&self) -> &str {
        &self.http_address
    }

    /// The answer of an HTTP endpoint; `None` while the program does not listen.
    pub async fn http(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.http_address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let code = answer.split(' ').nth(1)?.parse().ok()?;
        Some((code, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// Waits until an endpoint answers as wanted.
    pub async fn until_http<T>(&self, path: &str, wanted: impl Fn(u16, &str) -> Option<T>) -> T {
        let answered = async {
            loop {
                if let Some(value) = self.http(path).await.and_then(|(code, body)| wanted(code, &body)) {
                    return value;
                }
                tokio::task::yield_now().await;
            }
        };
        within(&format!("{path} answers as wanted"), answered).await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log_path.display(), self.log());
        }
        self.kill_now();
    }
}

fn in_process(flags: &[String], client: kube::Client) -> Running {
    let args = Args::try_parse_from([&"gpu-kubelet-plugin".to_owned()].into_iter().chain(flags)).expect("known flags");
    let config = Config::try_from(args).expect("short paths");
    let machine = Arc::new(NvmlMachine::new(&config.roots.driver, &config.roots.proc));
    let stop = CancellationToken::new();
    let ended = tokio::spawn(app::run(config, machine, client, stop.clone()));
    Running::Tasks { stop, ended }
}

fn process(name: &str, flags: &[String], log_path: &Path) -> Running {
    let log = File::options().create(true).append(true).open(log_path).expect("the node's directory is writable");
    let child = Command::new(built(name))
        .args(flags)
        .env_clear()
        .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("what cargo built is a program");
    Running::Process(child)
}

async fn send_signal(process_id: u32, signal: &str) {
    let sent = Command::new("kill").arg(format!("-{signal}")).arg(process_id.to_string()).status().await;
    assert!(sent.expect("every system has kill").success(), "a running process takes signals");
}

/// A port that is free at the moment, below those that the kernel gives to connections: one of those may be in use again before the
/// program listens.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Several test processes may run at a time.
    let start = u16::try_from(std::process::id() % 20_000).expect("a small number");
    let ports = std::iter::repeat_with(|| 12_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000);
    ports.take(20_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("loopback has free ports")
}
