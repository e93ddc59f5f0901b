// SPDX-License-Identifier: Apache-2.0
//! Starts a daemon: from a spec to a daemon that answers and has its limits.
//!
//! A failed start may leave a process and directories; the caller removes them.

use std::process::Stdio;
use std::time::Duration;

use dra_hardware::{DaemonError, DaemonSpec, MultiUser};
use dra_mps::launch::{CONTROL_SOCKET, lacks_multi_user};
use dra_mps::{Command, Launch, Limit, pids, printable};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::child;
use crate::control_client::{ControlClient, ControlError};
use crate::daemon_dir::DaemonDir;
use crate::log_file;
use crate::process::{Exit, Process};
use crate::programs::Programs;
use crate::request::Deadline;
use crate::termination::kill_all;

/// Interval of the checks for the socket, which exists some milliseconds after the start.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Starts of a daemon that clients use before it has its limits.
const MAX_ATTEMPTS: usize = 5;

/// A started daemon.
#[derive(Debug)]
pub struct DaemonHandle {
    pub process: Process,
    /// Whether it runs with `-M`.
    pub multi_user: bool,
    pub control: ControlClient,
}

/// The parameters of a start.
#[derive(Debug, Clone, Copy)]
pub struct DaemonStart<'a> {
    pub spec: &'a DaemonSpec,
    pub dir: &'a DaemonDir,
    pub programs: &'a Programs,
    pub deadline: Deadline,
}

impl DaemonStart<'_> {
    /// Starts the daemon. `-M` is tried, because no query shows whether a program has it; one without it exits within
    /// milliseconds.
    pub async fn run(&self) -> Result<DaemonHandle, DaemonError> {
        let id = &self.spec.id;
        if self.spec.multi_user == MultiUser::Off {
            return self.start_with(false).await;
        }
        match self.start_with(true).await {
            Err(DaemonError::NoMultiUser { .. }) if self.spec.multi_user == MultiUser::IfKnown => {
                tracing::info!(daemon = %id, "the MPS programs of this driver do not have -M: users take turns");
                self.start_with(false).await
            }
            outcome => outcome,
        }
    }

    /// Containers of an earlier daemon of this directory may use this one at once. A server keeps the limits that it started
    /// with, so a server from before the limits ends with its daemon, and both start again.
    async fn start_with(&self, multi_user: bool) -> Result<DaemonHandle, DaemonError> {
        for _ in 0..MAX_ATTEMPTS {
            if let Some(handle) = self.attempt(multi_user).await? {
                return Ok(handle);
            }
            tracing::info!(daemon = %self.spec.id, "clients connected before the limits were set: starting again");
            kill_all(self.dir, &self.spec.id).await?;
        }
        Err(self.not_ready(format!("clients connected before its limits were set, {MAX_ATTEMPTS} times")))
    }

    /// `None` if clients connected before the limits were set.
    async fn attempt(&self, multi_user: bool) -> Result<Option<DaemonHandle>, DaemonError> {
        let process = self.spawn(multi_user).await?;
        let control = self.control();
        let prepared = tokio::select! {
            exit = process.wait_exit() => Err(self.failed(exit, multi_user)),
            prepared = self.prepare(&control) => prepared,
        };
        if let Ok(true) = prepared {
            return Ok(Some(DaemonHandle { process, multi_user, control }));
        }
        process.kill().await;
        prepared.map(|_unlimited| None)
    }

    /// Waits for the first answer and sets the limits. Returns whether every server has them.
    async fn prepare(&self, control: &ControlClient) -> Result<bool, DaemonError> {
        self.until_ready(control).await?;
        self.apply_limits(control).await
    }

    /// The control client of the daemon of this directory.
    pub fn control(&self) -> ControlClient {
        ControlClient::new(&self.programs.control, &self.dir.pipe_dir(), &self.dir.driver_dir())
    }

    async fn spawn(&self, multi_user: bool) -> Result<Process, DaemonError> {
        let (dir, programs) = (self.dir.clone(), self.programs.clone());
        let log = spawn_blocking(move || dir.prepare_start(&programs)).await;
        let log = log.map_err(|panic| self.not_ready(panic.to_string()))?;
        let log = log.map_err(|error| error.into_daemon_error(&self.spec.id))?;
        let driver_dir = self.dir.driver_dir().display().to_string();
        let (pipe_dir, log_dir) = (self.dir.pipe_dir(), self.dir.log_dir());
        let launch = Launch {
            pipe_dir: &pipe_dir,
            log_dir: &log_dir,
            devices: &self.spec.devices,
            multi_user,
            program_path: &driver_dir,
            library_path: &driver_dir,
        };
        let failed = |error: std::io::Error| self.not_ready(format!("{}: {error}", self.programs.control.display()));
        let mut command = child::command(self.dir, &self.programs.control, &launch.arguments());
        command.env_clear().envs(launch.environment()).current_dir("/").stdin(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        let child = command.spawn().map_err(failed)?;
        Process::of_child(child).map_err(failed)
    }

    /// Waits for the first answer. The socket exists before the daemon listens.
    async fn until_ready(&self, control: &ControlClient) -> Result<(), DaemonError> {
        let socket_path = self.dir.pipe_dir().join(CONTROL_SOCKET);
        let mut polls = interval(POLL_INTERVAL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            polls.tick().await;
            if self.remaining().is_zero() {
                let log = log_file::excerpt(&self.dir.log_path());
                return Err(self.not_ready(if log.is_empty() { "its log is empty".to_owned() } else { log }));
            }
            if !socket_path.exists() {
                continue;
            }
            match control.confirm(self.remaining()).await {
                Ok(()) => return Ok(()),
                Err(ControlError::Unreachable { .. }) => {}
                Err(error @ (ControlError::Run { .. } | ControlError::NoAnswer { .. })) => {
                    return Err(self.control_failed(&error));
                }
            }
        }
    }

    /// Sets the limits and reads them back. Returns whether every server has them.
    async fn apply_limits(&self, control: &ControlClient) -> Result<bool, DaemonError> {
        if limits(self.spec).is_empty() {
            return Ok(true);
        }
        set_limits(self.spec, control, self.remaining()).await.map_err(|error| self.control_failed(&error))?;
        let wrong =
            wrong_limit(self.spec, control, self.remaining()).await.map_err(|error| self.control_failed(&error))?;
        if let Some((limit, found)) = wrong {
            let (id, what, wanted) = (self.spec.id.clone(), limit.to_string(), limit.value());
            return Err(DaemonError::LimitNotApplied { id, what, wanted, found });
        }
        let servers =
            control.send(&[Command::Servers], self.remaining()).await.map_err(|error| self.control_failed(&error))?;
        let servers = pids(&servers);
        Ok(servers.is_empty() || log_file::have_limits(&self.dir.log_path(), &servers))
    }

    fn remaining(&self) -> Duration {
        self.deadline.remaining()
    }

    /// The error of a daemon that exited instead of answering.
    fn failed(&self, exit: Exit, multi_user: bool) -> DaemonError {
        let (id, log) = (self.spec.id.clone(), log_file::excerpt(&self.dir.log_path()));
        if multi_user && lacks_multi_user(&log) {
            return DaemonError::NoMultiUser { id };
        }
        if self.dir.is_full() {
            return DaemonError::UnusableDir {
                id,
                path: self.dir.run_dir(),
                why: "no space left on device".to_owned(),
            };
        }
        self.not_ready(format!("{exit}; end of its log: `{log}`"))
    }

    fn control_failed(&self, error: &ControlError) -> DaemonError {
        self.not_ready(dra_model::chain(error).to_string())
    }

    fn not_ready(&self, seen: String) -> DaemonError {
        DaemonError::NotReady {
            id: self.spec.id.clone(),
            waited: self.deadline.timeout.saturating_sub(self.remaining()),
            seen,
        }
    }
}

/// The limits of a spec.
pub fn limits(spec: &DaemonSpec) -> Vec<Limit> {
    let threads = spec.threads.map(Limit::Threads);
    let memory = spec.memory.iter().map(|(index, bytes)| Limit::Memory(*index, *bytes));
    threads.into_iter().chain(memory).collect()
}

/// Sets every limit. The answer does not show whether a value was applied.
pub async fn set_limits(spec: &DaemonSpec, control: &ControlClient, timeout: Duration) -> Result<(), ControlError> {
    let settings: Vec<Command> = limits(spec).into_iter().map(Limit::setting).collect();
    if settings.is_empty() {
        return Ok(());
    }
    control.send(&settings, timeout).await.map(|_echo| ())
}

/// The first limit that reads back as another value, and that value.
pub async fn wrong_limit(
    spec: &DaemonSpec,
    control: &ControlClient,
    timeout: Duration,
) -> Result<Option<(Limit, String)>, ControlError> {
    for limit in limits(spec) {
        let answer = control.send(&[limit.query()], timeout).await?;
        if !limit.matches(&answer) {
            let found = printable(&answer);
            return Ok(Some((limit, if found.is_empty() { "none".to_owned() } else { found })));
        }
    }
    Ok(None)
}
