// SPDX-License-Identifier: Apache-2.0
//! Runs commands inside the namespaces of the control plane or of a node.

use crate::{
    error::{ClusterError, Result},
    files, wait,
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The namespaces of the control plane or of a node. They exist as long as their first process.
#[derive(Debug, Clone)]
pub(crate) struct Namespaces {
    pid: u32,
    /// The control group of a node.
    group: Option<String>,
}

impl Namespaces {
    /// Waits for the control plane's first process, which writes this file when all is in place.
    pub(crate) fn of_control_plane(pid_path: &Path, logs_dir: &Path) -> Result<Self> {
        Ok(Self { pid: wait_for_pid(pid_path, logs_dir)?, group: None })
    }

    /// Waits for a node's first process, which writes this file when all is in place.
    pub(crate) fn of_node(pid_path: &Path, logs_dir: &Path, group: String) -> Result<Self> {
        Ok(Self { pid: wait_for_pid(pid_path, logs_dir)?, group: Some(group) })
    }

    /// The first process, as the host counts.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// A command that starts this program inside.
    pub(crate) fn command(&self, program: impl Into<PathBuf>) -> Command {
        let mut command = match &self.group {
            Some(group) => {
                let mut join = joining(group);
                join.args(["nsenter", "--cgroup"]);
                join
            }
            None => Command::new("nsenter"),
        };
        command.args(["--target", &self.pid.to_string()]);
        command.args(["--pid", "--net", "--mount", "--uts", "--ipc", "--wd=/"]);
        command.arg("--").args(["env", "-i", PATH, "HOME=/root"]);
        command.arg(program.into());
        command
    }
}

/// A command that joins a control group and runs the arguments that the caller adds.
pub(crate) fn joining(group: &str) -> Command {
    let mut join = Command::new("sh");
    join.args(["-c", JOIN, "join", group]);
    join
}

const JOIN: &str = include_str!("scripts/join.sh");
const PATH: &str = "PATH=/run/cluster/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn wait_for_pid(pid_path: &Path, logs_dir: &Path) -> Result<u32> {
    wait::until(&format!("the first process of {}", pid_path.display()), Duration::from_secs(30), logs_dir, || {
        let text = files::read(pid_path)?;
        text.trim().parse().map(Some).map_err(|source| {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidData, source);
            ClusterError::File { operation: "read", path: pid_path.to_owned(), source }
        })
    })
}
