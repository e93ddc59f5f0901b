// SPDX-License-Identifier: Apache-2.0
//! The daemon: sockets in the pipe directory, commands of control clients, and its exit.

use std::fs::{OpenOptions, Permissions, create_dir_all};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, mknodat};
use rustix::process::umask;

use crate::behaviour::{Behaviour, Fault};
use crate::limits::Limits;
use crate::servers::{Servers, wait_for};

/// Interval of the checks of the behaviour files.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

struct Daemon<'a> {
    pipe_dir: &'a Path,
    behaviour: Behaviour,
    limits: Limits,
    servers: Servers,
    connections: Vec<Connection>,
    quit: Option<Quit>,
}

struct Connection {
    stream: UnixStream,
    privileged: bool,
    input: Vec<u8>,
}

/// The connection that sent `quit`, which is answered at the exit.
struct Quit {
    stream: UnixStream,
    deadline: Option<Instant>,
}

/// Runs until `quit` or a fault.
pub(crate) fn run(pipe_dir: &Path, multi_user: bool, behaviour: &Behaviour) -> Result<u8, String> {
    wait_for(behaviour.slow_start);
    while Behaviour::of(pipe_dir)?.has(Fault::HangStart) {
        wait_for(POLL_INTERVAL);
    }
    // NVIDIA's program prints nothing about a full directory or a path that is too long for a socket.
    let silent = |_error: io::Error| String::new();
    umask(Mode::empty());
    create_dir_all(pipe_dir).map_err(silent)?;
    let lock_path = pipe_dir.join("control_lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(lock_path).map_err(silent)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_held| "An instance of this daemon is already running".to_owned())?;
    let listeners = [listener(pipe_dir, "control", 0o666), listener(pipe_dir, "control_privileged", 0o755)];
    let [open, privileged] = listeners;
    let listeners = [(open.map_err(silent)?, false), (privileged.map_err(silent)?, true)];
    mknodat(CWD, pipe_dir.join("log"), FileType::Fifo, Mode::from_raw_mode(0o777), 0).ok();
    log(&format!("Starting control daemon using socket {}", pipe_dir.join("control").display()));
    let variable = format!("CUDA_MPS_PIPE_DIRECTORY={}", pipe_dir.display());
    log(&format!("To connect CUDA applications to this daemon, set env {variable}"));
    let (limits, servers) = (Limits::new(), Servers::new(multi_user));
    let behaviour = behaviour.clone();
    Daemon { pipe_dir, behaviour, limits, servers, connections: Vec::new(), quit: None }.serve(&listeners)
}

fn listener(pipe_dir: &Path, name: &str, mode: u32) -> io::Result<UnixListener> {
    let path = pipe_dir.join(name);
    std::fs::remove_file(&path).ok();
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Daemon<'_> {
    fn serve(mut self, listeners: &[(UnixListener, bool)]) -> Result<u8, String> {
        let failed = |error: io::Error| format!("mps-stand-in: {error}");
        loop {
            self.behaviour = Behaviour::of(self.pipe_dir)?;
            if self.behaviour.has(Fault::ExitAtOnce) {
                return Ok(1);
            }
            for line in self.servers.update(&self.behaviour.clients).map_err(failed)? {
                log(&line);
            }
            if self.may_end() {
                return self.end().map_err(failed);
            }
            if self.behaviour.has(Fault::NoAnswer) {
                wait_for(POLL_INTERVAL);
                continue;
            }
            self.wait(listeners);
            for (listener, privileged) in listeners {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).map_err(failed)?;
                    log("NEW UI");
                    self.connections.push(Connection { stream, privileged: *privileged, input: Vec::new() });
                }
            }
            self.read_commands().map_err(failed)?;
        }
    }

    /// Waits for input, at most for one interval.
    fn wait(&self, listeners: &[(UnixListener, bool)]) {
        let listening = listeners.iter().map(|(listener, _)| listener.as_fd());
        let fds = listening.chain(self.connections.iter().map(|connection| connection.stream.as_fd()));
        let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        poll(&mut fds, Timespec::try_from(POLL_INTERVAL).ok().as_ref()).map(|_ready| ()).ok();
    }

    fn read_commands(&mut self) -> io::Result<()> {
        for mut connection in std::mem::take(&mut self.connections) {
            let is_open = connection.read();
            while let Some(line) = connection.line() {
                self.execute(&mut connection, &line)?;
            }
            if is_open {
                self.connections.push(connection);
            } else {
                log("UI closed");
            }
        }
        Ok(())
    }

    fn execute(&mut self, connection: &mut Connection, line: &str) -> io::Result<()> {
        log(&format!("Cmd:{line}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first() == Some(&"quit") && connection.privileged {
            let seconds = words.iter().skip_while(|word| **word != "-t").nth(1).and_then(|text| text.parse().ok());
            if let Some(seconds) = seconds {
                log(&format!("quit command issued with timeout of {seconds}"));
            }
            let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
            self.quit = Some(Quit { stream: connection.stream.try_clone()?, deadline });
            return Ok(());
        }
        let (answer, lines) = self.answer(&words);
        for line in lines {
            log(&line);
        }
        reply(&connection.stream, 0, &answer);
        Ok(())
    }

    fn answer(&mut self, words: &[&str]) -> (String, Vec<String>) {
        if let Some(answer) = self.limits.answer(words, self.behaviour.has(Fault::IgnoreSet)) {
            return answer;
        }
        let lines = |pids: &[u32]| pids.iter().fold(String::new(), |text, pid| format!("{text}{pid}\n"));
        let answer = match *words {
            ["get_server_list", ..] => lines(&self.servers.list()),
            ["get_client_list", ref server @ ..] => {
                let server = server.first().and_then(|pid| pid.parse().ok()).unwrap_or(0);
                self.servers.clients(server).map_or_else(|| format!("Server {server} not found\n"), |pids| lines(&pids))
            }
            ["quit", ..] => "Not enough privilege to execute quit command\n".to_owned(),
            _ => format!("Unknown command \"{}\"\n", words.first().copied().unwrap_or_default()),
        };
        let log_lines = answer.lines().map(str::to_owned).collect();
        (answer, log_lines)
    }

    fn may_end(&self) -> bool {
        let late = |quit: &Quit| quit.deadline.is_some_and(|end| Instant::now() >= end);
        let requested = self.quit.as_ref().is_some_and(|quit| self.servers.are_idle() || late(quit));
        requested && !self.behaviour.has(Fault::HangQuit)
    }

    /// Leaves the sockets, as NVIDIA's program does.
    fn end(mut self) -> io::Result<u8> {
        if let Some(line) = self.servers.end()? {
            log(&line);
        }
        let code = self.servers.exit_code;
        log(&format!("Exit with status {code}"));
        std::fs::remove_file(self.pipe_dir.join("log")).ok();
        if let Some(quit) = &self.quit {
            reply(&quit.stream, code, "");
        }
        Ok(code)
    }
}

impl Connection {
    /// Reads all available input. Returns whether the connection is open.
    fn read(&mut self) -> bool {
        let mut part = [0; 1024];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return false,
                Ok(size) => self.input.extend(part.iter().take(size)),
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        let end = self.input.iter().position(|byte| *byte == b'\n')?;
        let line = self.input.drain(..=end).collect::<Vec<_>>();
        Some(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned())
    }
}

/// Answers a connection. A closed one is ignored.
fn reply(mut stream: &UnixStream, code: u8, answer: &str) {
    stream.write_all(format!("{code}{answer}\0").as_bytes()).ok();
}

/// Writes to standard output, with the time in seconds since 1970.
fn log(line: &str) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis, pid) = (now.as_secs(), now.subsec_millis(), std::process::id());
    let line = format!("[{seconds}.{millis:03} Control {pid:>5}] {line}\n");
    io::stdout().write_all(line.as_bytes()).ok();
}
