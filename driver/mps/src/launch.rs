// SPDX-License-Identifier: Apache-2.0
//! Arguments and environment of the control program, as daemon and as client.
//!
//! Input are the directories. Output is the whole environment; nothing is inherited.

use std::path::Path;

use crate::command::Command;

/// The control program: a daemon with `-f`, a client of the daemon without arguments.
pub const CONTROL_PROGRAM: &str = "nvidia-cuda-mps-control";

/// The server program. The daemon searches it in `PATH` only (seen: `execlp`); without it clients hang.
pub const SERVER_PROGRAM: &str = "nvidia-cuda-mps-server";

/// The socket of the daemon in the pipe directory. It exists a moment before the daemon answers.
pub const CONTROL_SOCKET: &str = "control";

/// The variable by which daemon, control program and CUDA clients find each other.
pub const PIPE_VARIABLE: &str = "CUDA_MPS_PIPE_DIRECTORY";

/// Keeps the daemon in the foreground, with its log on standard output.
pub const FOREGROUND: &str = "-f";

/// One server for all users. The programs of older drivers do not have it.
const MULTI_USER: &str = "-M";

/// Output of the program for an unknown option: it runs as client then, exits with 1 and leaves the pipe directory empty
/// (seen).
const NO_DAEMON: &str = "Cannot find MPS control daemon process";

/// The parameters of a daemon.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// A new, empty directory. In the directory of a killed daemon a new one replaces its sockets (seen), and in that of a
    /// running daemon it exits with "An instance of this daemon is already running".
    pub pipe_dir: &'a Path,
    /// Directory that the daemon requires although it writes no file in the foreground.
    pub log_dir: &'a Path,
    /// UUIDs of GPUs or MIG devices. Limits refer to their order.
    pub devices: &'a [String],
    /// Whether one server serves all users.
    pub multi_user: bool,
    /// `PATH`, with the server program.
    pub program_path: &'a str,
    /// `LD_LIBRARY_PATH`, with the libraries of the driver.
    pub library_path: &'a str,
}

impl Launch<'_> {
    pub fn arguments(&self) -> Vec<&'static str> {
        let multi_user = self.multi_user.then_some(MULTI_USER);
        [FOREGROUND].into_iter().chain(multi_user).collect()
    }

    /// The environment of the daemon, which its servers inherit.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut variables = client_environment(self.pipe_dir, self.program_path, self.library_path);
        variables.push(("CUDA_MPS_LOG_DIRECTORY", self.log_dir.display().to_string()));
        variables.push(("CUDA_VISIBLE_DEVICES", self.devices.join(",")));
        variables
    }
}

/// The environment of the control program as client of the daemon of a pipe directory.
pub fn client_environment(pipe_dir: &Path, program_path: &str, library_path: &str) -> Vec<(&'static str, String)> {
    vec![
        (PIPE_VARIABLE, pipe_dir.display().to_string()),
        ("PATH", program_path.to_owned()),
        ("LD_LIBRARY_PATH", library_path.to_owned()),
    ]
}

/// The input of the control program: one command per line.
pub fn script(commands: &[Command]) -> String {
    commands.iter().fold(String::new(), |script, command| script + &command.to_string() + "\n")
}

/// Whether the output of a daemon that exited at once shows that its program does not have `-M`.
pub fn lacks_multi_user(output: &str) -> bool {
    output.contains(NO_DAEMON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_gets_exactly_this_environment() {
        let devices = ["GPU-1".to_owned(), "GPU-2".to_owned()];
        let launch = Launch {
            pipe_dir: Path::new("/run/d/run/pipe"),
            log_dir: Path::new("/run/d/log"),
            devices: &devices,
            multi_user: false,
            program_path: "/driver/usr/bin:/driver/usr/sbin",
            library_path: "/driver/usr/lib64",
        };
        assert_eq!(launch.arguments(), ["-f"]);
        assert_eq!(Launch { multi_user: true, ..launch }.arguments(), ["-f", "-M"]);
        let given: Vec<String> = launch.environment().iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expect = [
            "CUDA_MPS_PIPE_DIRECTORY=/run/d/run/pipe",
            "PATH=/driver/usr/bin:/driver/usr/sbin",
            "LD_LIBRARY_PATH=/driver/usr/lib64",
            "CUDA_MPS_LOG_DIRECTORY=/run/d/log",
            "CUDA_VISIBLE_DEVICES=GPU-1,GPU-2",
        ];
        assert_eq!(given, expect);
    }

    #[test]
    fn an_unknown_option_differs_from_other_exits() {
        assert!(lacks_multi_user("Cannot find MPS control daemon process\n"));
        assert!(!lacks_multi_user("An instance of this daemon is already running\n"));
        assert!(!lacks_multi_user(""));
    }
}
