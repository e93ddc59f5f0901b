// SPDX-License-Identifier: Apache-2.0
//! One MPS host in a temporary directory, and its state as seen from outside.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use dra_hardware::{Daemon, DaemonError, DaemonSpec, DaemonState, Daemons as _, Deadline, MultiUser};
use dra_model::{ClaimUid, DaemonId, ThreadPercentage};
use dra_mps_api::{MpsClient, ObservedDaemon};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle};

/// Reached only by a broken test.
pub(crate) const TIMEOUT: Duration = Duration::from_mins(1);

/// Polls until a condition holds.
pub(crate) fn until<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + TIMEOUT;
    loop {
        if let Some(value) = holds() {
            return value;
        }
        assert!(Instant::now() < end, "this did not happen: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// NVIDIA's own programs, as Debian has them, are a driver root.
pub(crate) fn nvidia_root() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
    let root = cache.unwrap_or_else(home).join("gpu-dra-cluster/nvidia");
    let program = root.join("usr/bin/nvidia-cuda-mps-control");
    assert!(program.is_file(), "there is no {}: run tests/cluster/setup.sh as root", program.display());
    root
}

pub(crate) struct Host {
    pub(crate) dir: TempDir,
    driver_root: PathBuf,
    child: Child,
    http_address: String,
    runtime: Handle,
}

impl Host {
    /// Starts one with NVIDIA's programs.
    pub(crate) fn real() -> Self {
        Self::new(&nvidia_root())
    }

    /// Starts one with the programs of a driver root.
    pub(crate) fn new(driver_root: &Path) -> Self {
        Self::with(driver_root, &[])
    }

    /// The same, with more arguments, which a later one does not get.
    pub(crate) fn with(driver_root: &Path, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let http_address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut command = command(&dir.path().join("mps"), driver_root, &http_address);
        let child = command.args(arguments).spawn().unwrap();
        let host = Self { dir, driver_root: driver_root.to_owned(), child, http_address, runtime: runtime() };
        host.until_serving();
        host
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("mps")
    }

    /// The entries of its root.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    pub(crate) fn daemon_dir(&self, id: &str) -> PathBuf {
        self.root().join(id)
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(crate) fn client(&self) -> MpsClient {
        let _inside = self.runtime.enter();
        MpsClient::new(self.root().join("host.sock")).unwrap()
    }

    pub(crate) fn start(&self, spec: &DaemonSpec) -> Result<Daemon, DaemonError> {
        self.client().start(spec, None, TIMEOUT, &Deadline::none())
    }

    /// Starts a daemon for a claim that shares it with others.
    pub(crate) fn start_shared(&self, spec: &DaemonSpec, claim: &ClaimUid) -> Result<Daemon, DaemonError> {
        self.client().start(spec, Some(claim), TIMEOUT, &Deadline::none())
    }

    pub(crate) fn stop(&self, id: &str) -> Result<(), DaemonError> {
        self.client().stop(&id_of(id), Duration::from_secs(5), &Deadline::none())
    }

    pub(crate) fn observed(&self, id: &str) -> Option<ObservedDaemon> {
        let all = self.runtime.block_on(self.client().observed()).unwrap();
        all.into_iter().find(|seen| seen.daemon.id.as_str() == id)
    }

    /// The process of a daemon.
    pub(crate) fn daemon(&self, id: &str) -> u32 {
        let daemons = self.processes(id).into_iter().filter(|(_, line)| line.contains("nvidia-cuda-mps-control -f"));
        let daemons: Vec<u32> = daemons.map(|(pid, _)| pid).collect();
        assert_eq!(daemons.len(), 1, "{id}");
        daemons[0]
    }

    /// Command lines of all processes that use the pipe directory of a daemon.
    pub(crate) fn processes(&self, id: &str) -> BTreeMap<u32, String> {
        let wanted = format!("CUDA_MPS_PIPE_DIRECTORY={}", self.daemon_dir(id).join("run/pipe").display());
        processes_with(&wanted)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log_path(&self.root())).unwrap_or_default()
    }

    /// Sends a command through the pipe directory, as any client can.
    pub(crate) fn query(&self, id: &str, command: &str) -> String {
        let mut child = Command::new(self.driver_root.join("usr/bin/nvidia-cuda-mps-control"))
            .env("CUDA_MPS_PIPE_DIRECTORY", self.daemon_dir(id).join("run/pipe"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("{command}\n").as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
    }

    /// One of its metrics.
    pub(crate) fn metric(&self, name: &str) -> String {
        let mut stream = std::net::TcpStream::connect(&self.http_address).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let answer = std::io::read_to_string(stream).unwrap();
        let line = answer.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().to_owned()
    }

    /// Mounts below its root.
    pub(crate) fn mounts(&self) -> usize {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().filter(|line| line.contains(&self.root().display().to_string())).count()
    }

    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Its children, waited for or not.
    pub(crate) fn children(&self) -> Vec<u32> {
        let children = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let children: Vec<String> = tasks.map(children).collect();
        children.iter().flat_map(|pids| pids.split_whitespace()).map(|pid| pid.parse().unwrap()).collect()
    }

    /// Kills the host, as the out-of-memory killer does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.root(), &self.driver_root, &self.http_address);
        self.until_serving();
    }

    /// Stops the host, as the kubelet does.
    pub(crate) fn terminate(&mut self) -> bool {
        self.ask_to_end();
        until("the host ends", || self.child.try_wait().unwrap()).success()
    }

    pub(crate) fn ask_to_end(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Starts another one beside it, as in an upgrade.
    pub(crate) fn start_beside(&self) -> Child {
        spawn(&self.root(), &self.driver_root, "127.0.0.1:0")
    }

    /// An uninstall beside it.
    pub(crate) fn remove_beside(&self, then: &[&str]) -> Child {
        self.removal(&self.root()).arg("--").args(then).spawn().unwrap()
    }

    /// Goes on with another one.
    pub(crate) fn take(&mut self, child: Child) {
        self.child = child;
        self.until_serving();
    }

    /// Removes all daemons, as an uninstall does.
    pub(crate) fn remove(&self) -> bool {
        self.remove_from(&self.root(), &[])
    }

    /// The same from another root, and then this program.
    pub(crate) fn remove_from(&self, root: &Path, then: &[&str]) -> bool {
        self.removal(root).arg("--").args(then).status().unwrap().success()
    }

    /// The same, in the daemon_dir of a host that was killed.
    pub(crate) fn begin_to_remove(&mut self) {
        self.child = self.removal(&self.root()).spawn().unwrap();
    }

    fn removal(&self, root: &Path) -> Command {
        let mut removal = command(root, &self.driver_root, "127.0.0.1:0");
        removal.arg("--remove");
        removal
    }

    /// Appends a line to the log of a daemon.
    pub(crate) fn append_log(&self, id: &str, line: &str) {
        let mut log = fs::File::options().append(true).open(self.daemon_dir(id).join("log/control.out")).unwrap();
        let line = format!("[2026-11-22 09:52:46.873 Control 11130] {line}\n");
        std::io::Write::write_all(&mut log, line.as_bytes()).unwrap();
    }

    pub(crate) fn state(&self, id: &str) -> DaemonState {
        self.observed(id).unwrap().daemon.state
    }

    fn until_serving(&self) {
        until("the host serves", || self.client().list(&Deadline::none()).ok());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            kill_process(Pid::from_child(&self.child), Signal::TERM).ok();
            self.child.wait().ok();
        }
        let removed = self.remove();
        let of_this_root = format!("CUDA_MPS_PIPE_DIRECTORY={}/", self.root().display());
        for pid in processes_with(&of_this_root).into_keys() {
            kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::KILL).ok();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        } else {
            assert!(removed, "{}", self.log());
        }
    }
}

pub(crate) fn id_of(id: &str) -> DaemonId {
    id.parse().unwrap()
}

/// A daemon for one GPU, without limits.
pub(crate) fn spec(id: &str) -> DaemonSpec {
    DaemonSpec {
        id: id_of(id),
        devices: vec!["GPU-00000000-0000-4000-8000-000000000000".to_owned()],
        multi_user: MultiUser::Off,
        threads: None,
        memory: BTreeMap::new(),
    }
}

pub(crate) fn percent(number: u64) -> Option<ThreadPercentage> {
    ThreadPercentage::try_from(number).ok()
}

pub(crate) fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
}

/// Kills a process and waits for its exit. Its environment is gone before it is a zombie.
pub(crate) fn kill_and_wait(pid: u32) {
    kill(pid);
    until("a killed process exits", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X'])).then_some(())
    });
}

/// Sends SIGTERM, and returns how it ended.
pub(crate) fn terminate(mut child: Child) -> ExitStatus {
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    until("it ends", || child.try_wait().unwrap())
}

fn processes_with(variable: &str) -> BTreeMap<u32, String> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let read = |pid: u32, name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace('\0', " ");
    let uses =
        |pid: &u32| read(*pid, "environ").split(|byte| *byte == 0).any(|found| found.starts_with(variable.as_bytes()));
    pids.filter(uses).map(|pid| (pid, text(read(pid, "cmdline")))).collect()
}

fn spawn(root: &Path, driver_root: &Path, http_address: &str) -> Child {
    command(root, driver_root, http_address).spawn().unwrap()
}

fn command(root: &Path, driver_root: &Path, http_address: &str) -> Command {
    let log = fs::File::options().create(true).append(true).open(log_path(root)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-mps-host"));
    command
        .arg("--root")
        .arg(root)
        .arg("--driver-root")
        .arg(driver_root)
        .args(["--shm-bytes=1048576", "--http-address", http_address])
        .env_clear()
        .env("RUST_LOG", "debug,h2=info,tower=info,hyper=info")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    command
}

fn log_path(root: &Path) -> PathBuf {
    root.with_extension("log")
}

/// A runtime that talks while tests wait; it ends with the process.
fn runtime() -> Handle {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}
