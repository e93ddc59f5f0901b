// SPDX-License-Identifier: Apache-2.0
//! The stand-in for NVIDIA's MPS control program: compared with NVIDIA's, with clients and with faults.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::node::{ProgramResult, install, nvidia_programs};

/// A daemon, or nothing yet, in a directory of its own.
struct Mps {
    dir: tempfile::TempDir,
    program: PathBuf,
    daemon: Option<Child>,
}

impl Mps {
    fn new(program: impl Into<PathBuf>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["pipe", "log"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir, program: program.into(), daemon: None }
    }

    /// A stand-in that behaves like this.
    fn stand_in(behaviour: &str) -> Self {
        let mps = Self::new(env!("CARGO_BIN_EXE_mps-stand-in"));
        mps.behave(behaviour);
        mps
    }

    fn behave(&self, behaviour: &str) {
        let new_path = self.path("behaviour.new");
        std::fs::write(&new_path, behaviour).unwrap();
        std::fs::rename(new_path, self.path("behaviour")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("CUDA_MPS_PIPE_DIRECTORY", self.path("pipe")).env("CUDA_MPS_LOG_DIRECTORY", self.path("log"));
        command
    }

    fn start(&mut self, arguments: &[&str]) {
        let log = File::create(self.path("out")).unwrap();
        let mut command = self.command(&self.program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
    }

    fn started(mut self, arguments: &[&str]) -> Self {
        self.start(arguments);
        self.wait_until(|mps| mps.control("get_server_list").code == Some(0));
        self
    }

    /// Runs the control program with these input lines.
    fn control(&self, lines: &str) -> ProgramResult {
        run_control(lines, &mut self.command(&self.program))
    }

    fn answer(&self, line: &str) -> String {
        self.control(line).ok().trim().to_owned()
    }

    /// What the daemon logged, without the time.
    fn log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("out")).unwrap();
        text.lines().map(|line| line.split_once("] ").map_or(line, |(_, message)| message).to_owned()).collect()
    }

    /// Names in the pipe directory, with type and permissions.
    fn files(&self) -> Vec<(String, u32)> {
        let entries = std::fs::read_dir(self.path("pipe")).unwrap().map(|entry| entry.unwrap());
        let described = |entry: std::fs::DirEntry| {
            (entry.file_name().into_string().unwrap(), entry.path().symlink_metadata().unwrap().mode())
        };
        let mut files: Vec<_> = entries.map(described).collect();
        files.sort();
        files
    }

    fn end(&mut self) -> Option<i32> {
        self.daemon.take().unwrap().wait().unwrap().code()
    }

    #[track_caller]
    fn wait_until(&self, reached: impl Fn(&Self) -> bool) {
        let began = std::time::Instant::now();
        while !reached(self) {
            assert!(began.elapsed().as_secs() < 20, "{:?}", self.log());
            std::thread::yield_now();
        }
    }
}

impl Drop for Mps {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }
}

/// Runs a control program with these input lines.
fn run_control(lines: &str, program: &mut Command) -> ProgramResult {
    let mut program = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A control program that finds no daemon does not read its input.
    program.stdin.take().unwrap().write_all(format!("{lines}\n").as_bytes()).ok();
    ProgramResult::of(&program.wait_with_output().unwrap())
}

/// A process that can be a client.
struct Client(Child);

impl Client {
    fn new() -> Self {
        Self(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

const COMMANDS: [&str; 29] = [
    "get_server_list",
    "get_default_active_thread_percentage",
    "set_default_active_thread_percentage 30",
    "set_default_active_thread_percentage 33.3",
    "set_default_active_thread_percentage 130",
    "set_default_active_thread_percentage 0",
    "set_default_active_thread_percentage abc",
    "set_default_active_thread_percentage",
    " get_default_active_thread_percentage  ",
    "get_default_device_pinned_mem_limit 0",
    "set_default_device_pinned_mem_limit 0 10240M\nget_default_device_pinned_mem_limit 0",
    "set_default_device_pinned_mem_limit 0 1536M\nget_default_device_pinned_mem_limit 0",
    "set_default_device_pinned_mem_limit 0 512M\nget_default_device_pinned_mem_limit 0",
    "set_default_device_pinned_mem_limit 0 5Gi\nget_default_device_pinned_mem_limit 0",
    "get_default_device_pinned_mem_limit 1",
    "get_default_device_pinned_mem_limit",
    "get_default_device_pinned_mem_limit GPU-4404041a-04cf-1ccf-9e70-f139a9b1e23c",
    "set_default_device_pinned_mem_limit GPU-4404041a-04cf-1ccf-9e70-f139a9b1e23c 5G\nget_default_device_pinned_mem_limit 0",
    "set_default_device_pinned_mem_limit 1 4G\nset_default_device_pinned_mem_limit 1x 5G\nget_default_device_pinned_mem_limit 1",
    "set_default_device_pinned_mem_limit 0 1K\nget_default_device_pinned_mem_limit 0x",
    "set_default_device_pinned_mem_limit 0\nget_default_device_pinned_mem_limit 0",
    "set_default_device_pinned_mem_limit 0 foo\nget_default_device_pinned_mem_limit 0",
    "set_default_device_pinned_mem_limit 7 100M",
    "get_default_device_pinned_mem_limit 7",
    "nonsense with words",
    "",
    "get_client_list 1",
    "get_client_list",
    "set_default_active_thread_percentage 55\nget_server_list\nget_default_active_thread_percentage",
];

/// The answers, files and log lines of a program from start to exit.
fn transcript(program: &Path) -> Vec<String> {
    let mut mps = Mps::new(program);
    let mut seen = vec![format!("{:?}", mps.control("get_server_list"))];
    mps = mps.started(&["-f"]);
    seen.push(format!("{:?}", mps.files()));
    seen.extend(COMMANDS.map(|command| format!("{command}: {:?}", mps.control(command))));
    let second = mps.command(&mps.program).arg("-f").stdin(Stdio::null()).output().unwrap();
    seen.push(format!("{:?}", ProgramResult::of(&second)));
    let mut unprivileged = mps.command(Path::new("setpriv"));
    unprivileged.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&mps.program);
    let lines = "quit -t 1\nset_default_active_thread_percentage 99";
    seen.push(format!("{:?}", run_control(lines, &mut unprivileged)));
    seen.push(format!("{:?} {:?} {:?}", mps.control("quit -t 5"), mps.end(), mps.files()));
    let own = mps.dir.path().display().to_string();
    let about_connections = ["Accepting connection...", "NEW UI", "UI closed"];
    let log = mps.log().into_iter().filter(|line| !about_connections.contains(&line.as_str()));
    // The number of polls until the answer, and the line that NVIDIA's second daemon writes to the log of the first.
    let log = log.filter(|line| line != "Cmd:get_server_list" && !line.starts_with("Using log directory"));
    seen.extend(log.map(|line| line.replace(&own, "DIR")));
    seen
}

#[test]
fn it_is_like_nvidias_program() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let programs = [
        (nvidia_programs().join("usr/bin/nvidia-cuda-mps-control"), "theirs"),
        (PathBuf::from(env!("CARGO_BIN_EXE_mps-stand-in")), "ours"),
    ];
    let [theirs, ours] = programs.map(|(path, name)| {
        let copy_path = dir.path().join(name);
        install(&path, &copy_path);
        transcript(&copy_path)
    });
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn unless_it_is_old_it_knows_m() {
    let mps = Mps::stand_in("").started(&["-f", "-M"]);
    assert_eq!(mps.answer("get_default_active_thread_percentage"), "100.0");
    let mut old = Mps::stand_in("old");
    old.start(&["-f", "-M"]);
    assert_eq!(old.end(), Some(1));
    assert_eq!(old.log(), ["Cannot find MPS control daemon process"]);
    assert!(old.files().is_empty());
}

#[test]
fn a_client_of_another_user_waits_unless_the_daemon_has_m() {
    let (root, other) = (Client::new(), Client::new());
    let clients = format!("client {} 0\nclient {} 1000\n", root.pid(), other.pid());
    let single_user = Mps::stand_in("").started(&["-f"]);
    single_user.behave(&clients);
    single_user.wait_until(|mps| mps.log().iter().any(|line| line.starts_with(&format!("NEW CLIENT {}", other.pid()))));
    let waits = |client: &Client, user: u32| {
        format!("NEW CLIENT {} from user {user}: Server is not ready, push client to pending list", client.pid())
    };
    let server = single_user.answer("get_server_list");
    let clients_of = |server: &str, mps: &Mps| mps.answer(&format!("get_client_list {server}"));
    let first = clients_of(&server, &single_user);
    assert!(single_user.log().contains(&waits(&other, 1000)) && single_user.log().contains(&waits(&root, 0)));
    let (gone, stays) = if first == root.pid().to_string() { (root, other) } else { (other, root) };
    let stays_pid = stays.pid().to_string();
    drop(gone);
    single_user.wait_until(|mps| clients_of(&mps.answer("get_server_list"), mps) == stays_pid);
    assert!(single_user.log().contains(&format!("Server {server} exited with status 0")));

    let again = Client::new();
    let multi_user = Mps::stand_in("").started(&["-f", "-M"]);
    multi_user.behave(&format!("client {} 0\nclient {} 1000\n", stays.pid(), again.pid()));
    multi_user.wait_until(|mps| clients_of(&mps.answer("get_server_list"), mps).lines().count() == 2);
}

#[test]
fn quit_waits_for_clients_as_long_as_it_may() {
    let client = Client::new();
    let mut mps = Mps::stand_in(&format!("client {} 0", client.pid())).started(&["-f"]);
    mps.wait_until(|mps| !mps.answer("get_server_list").is_empty());
    let server = mps.answer("get_server_list");
    let began = std::time::Instant::now();
    assert_eq!(mps.control("quit -t 1").code, Some(0));
    assert!(began.elapsed().as_millis() >= 1000);
    assert_eq!(mps.end(), Some(0));
    assert!(!Path::new("/proc").join(server).exists());
}

#[test]
fn a_set_may_be_ignored() {
    let mps = Mps::stand_in("ignore-set").started(&["-f"]);
    assert_eq!(mps.answer("set_default_active_thread_percentage 20"), "100.0");
    assert_eq!(mps.answer("set_default_device_pinned_mem_limit 0 10M\nget_default_device_pinned_mem_limit 0"), "");
}

#[test]
fn it_may_start_late_or_not_at_all() {
    let began = std::time::Instant::now();
    drop(Mps::stand_in("slow-start 100").started(&["-f"]));
    assert!(began.elapsed().as_millis() >= 100);
    let mut never = Mps::stand_in("hang-start");
    never.start(&["-f"]);
    assert_eq!(never.control("get_server_list").code, Some(1));
    assert!(never.files().is_empty());
    never.behave("");
    never.wait_until(|mps| mps.control("get_server_list").code == Some(0));
}

#[test]
fn it_may_not_answer_and_not_quit() {
    let mut mps = Mps::stand_in("no-answer");
    mps.start(&["-f"]);
    mps.wait_until(|mps| mps.files().len() == 4);
    let mut program = mps.command(&mps.program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    program.stdin.take().unwrap().write_all(b"quit\n").unwrap();
    assert!(!mps.log().contains(&"Cmd:quit".to_owned()));
    mps.behave("hang-quit");
    mps.wait_until(|mps| mps.log().contains(&"Cmd:quit".to_owned()));
    assert_eq!(mps.answer("get_default_active_thread_percentage"), "100.0");
    assert!(program.try_wait().unwrap().is_none());
    mps.behave("");
    assert_eq!((program.wait().unwrap().code(), mps.end()), (Some(0), Some(0)));
}

#[test]
fn it_may_exit_and_leave_its_server() {
    let client = Client::new();
    let line = format!("client {} 0\n", client.pid());
    let mut mps = Mps::stand_in(&line).started(&["-f"]);
    mps.wait_until(|mps| !mps.answer("get_server_list").is_empty());
    let server_path = Path::new("/proc").join(mps.answer("get_server_list"));
    mps.behave(&format!("{line}exit-at-once"));
    assert_eq!(mps.end(), Some(1));
    assert_eq!(mps.files().len(), 4);
    assert!(server_path.exists());
    std::fs::remove_dir_all(mps.path("pipe")).unwrap();
    mps.wait_until(|_| !server_path.join("exe").exists());
}

#[test]
fn a_typing_error_is_no_behaviour() {
    let mut mps = Mps::stand_in("exit-at-onec");
    mps.start(&["-f"]);
    assert_eq!(mps.end(), Some(2));
    assert!(mps.log()[0].ends_with("behaviour: `exit-at-onec` is no behaviour"));
}
