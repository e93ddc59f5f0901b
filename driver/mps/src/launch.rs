// SPDX-License-Identifier: Apache-2.0
//! How a control daemon is started, and how its front end is.
//!
//! Comes in: where things are. Goes out: arguments and the whole environment; nothing is inherited.

use std::path::Path;

use crate::command::Command;

/// The control program: a daemon with `-f`, a front end without arguments.
pub const CONTROL_PROGRAM: &str = "nvidia-cuda-mps-control";

/// The server program. The daemon looks for it in `PATH` and nowhere else (seen: `execlp`); without it clients hang.
pub const SERVER_PROGRAM: &str = "nvidia-cuda-mps-server";

/// The socket a client asks, in the pipe directory; it is there a moment before the daemon answers.
pub const CONTROL_SOCKET: &str = "control";

/// The variable that daemon, front end and clients find each other by.
pub const PIPE_VARIABLE: &str = "CUDA_MPS_PIPE_DIRECTORY";

/// Keeps the daemon in the foreground and sends its log to its standard output.
pub const FOREGROUND: &str = "-f";

/// One server for all users. The programs of older drivers do not know it.
const MULTI_USER: &str = "-M";

/// What the program says when there is an option it does not know: it takes itself for a front end then, ends with 1 and
/// leaves the pipe directory empty (seen).
const NO_DAEMON: &str = "Cannot find MPS control daemon process";

/// A daemon to be.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// A new, empty directory: in one that a killed daemon left, the next one takes its index (seen), and in one whose
    /// daemon lives it ends with "An instance of this daemon is already running".
    pub pipe_dir: &'a Path,
    /// For files that the daemon does not write in the foreground, but insists on.
    pub log_dir: &'a Path,
    /// GPUs or MIG devices by UUID; their order is what limits number them by.
    pub devices: &'a [String],
    /// Whether all users share a server.
    pub multi_user: bool,
    /// Where the two programs are, as `PATH` has it.
    pub program_path: &'a str,
    /// Where the driver's libraries are, as `LD_LIBRARY_PATH` has it.
    pub library_path: &'a str,
}

impl Launch<'_> {
    /// The arguments of the daemon.
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

/// The environment of a front end that asks the daemon of a pipe directory.
pub fn client_environment(pipe_dir: &Path, program_path: &str, library_path: &str) -> Vec<(&'static str, String)> {
    vec![
        (PIPE_VARIABLE, pipe_dir.display().to_string()),
        ("PATH", program_path.to_owned()),
        ("LD_LIBRARY_PATH", library_path.to_owned()),
    ]
}

/// The input of a front end: one command a line.
pub fn script(commands: &[Command]) -> String {
    commands.iter().fold(String::new(), |script, command| script + &command.to_string() + "\n")
}

/// Whether a daemon that was started with `-M` and ended at once with this text does not know `-M`.
pub fn knows_no_multi_user(said: &str) -> bool {
    said.contains(NO_DAEMON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_gets_all_it_needs_and_nothing_else() {
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
    fn an_unknown_option_is_told_from_other_ends() {
        assert!(knows_no_multi_user("Cannot find MPS control daemon process\n"));
        assert!(!knows_no_multi_user("An instance of this daemon is already running\n"));
        assert!(!knows_no_multi_user(""));
    }
}
