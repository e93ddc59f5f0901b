// SPDX-License-Identifier: Apache-2.0
//! From a spec to a daemon that answers and has its limits.
//!
//! A start that fails may leave a process and directories; the caller ends them.

use std::process::Stdio;
use std::time::Duration;

use dra_hardware::{DaemonError, DaemonSpec, MultiUser};
use dra_mps::launch::{CONTROL_SOCKET, knows_no_multi_user};
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

/// How often the socket is checked for; it is there some milliseconds after the start.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// How often a daemon is started anew that clients found before it had its limits.
const MAX_ATTEMPTS: usize = 5;

/// A daemon that answers.
#[derive(Debug)]
pub struct DaemonHandle {
    /// Its process.
    pub process: Process,
    /// Whether it has `-M`.
    pub multi_user: bool,
    /// How to talk to it.
    pub control: ControlClient,
}

/// What a start needs.
#[derive(Debug, Clone, Copy)]
pub struct DaemonStart<'a> {
    /// What it should be.
    pub spec: &'a DaemonSpec,
    /// Where.
    pub dir: &'a DaemonDir,
    /// Of what.
    pub programs: &'a Programs,
    /// How long it may take.
    pub deadline: Deadline,
}

impl DaemonStart<'_> {
    /// Starts it. `-M` is tried, as nothing tells whether a program knows it; one that does not ends in milliseconds.
    pub async fn run(&self) -> Result<DaemonHandle, DaemonError> {
        let id = &self.spec.id;
        if self.spec.multi_user == MultiUser::Off {
            return self.start_with(false).await;
        }
        match self.start_with(true).await {
            Err(DaemonError::NoMultiUser { .. }) if self.spec.multi_user == MultiUser::IfKnown => {
                tracing::info!(daemon = %id, "this driver's MPS knows no -M: users of it take turns");
                self.start_with(false).await
            }
            reply => reply,
        }
    }

    /// Containers of an earlier daemon of this dir may use this one at once. A server keeps the limits that it was started
    /// with, so one that was there before them goes again, with its daemon.
    async fn start_with(&self, multi_user: bool) -> Result<DaemonHandle, DaemonError> {
        for _ in 0..MAX_ATTEMPTS {
            if let Some(handle) = self.attempt(multi_user).await? {
                return Ok(handle);
            }
            tracing::info!(daemon = %self.spec.id, "clients were faster than the limits: started again");
            kill_all(self.dir, &self.spec.id).await?;
        }
        Err(self.not_ready(format!("clients used it before it had its limits, {MAX_ATTEMPTS} times")))
    }

    /// Nothing if clients were faster.
    async fn attempt(&self, multi_user: bool) -> Result<Option<DaemonHandle>, DaemonError> {
        let process = self.spawn(multi_user).await?;
        let control = self.control();
        let prepared = tokio::select! {
            end = process.wait_exit() => Err(self.failed(end, multi_user)),
            prepared = self.prepare(&control) => prepared,
        };
        if let Ok(true) = prepared {
            return Ok(Some(DaemonHandle { process, multi_user, control }));
        }
        process.kill().await;
        prepared.map(|_unlimited| None)
    }

    /// Whether all that use it have its limits.
    async fn prepare(&self, control: &ControlClient) -> Result<bool, DaemonError> {
        self.until_ready(control).await?;
        self.limit(control).await
    }

    /// How to talk to the daemon of this dir.
    pub fn control(&self) -> ControlClient {
        ControlClient::new(&self.programs.control, &self.dir.pipe_dir(), &self.dir.driver_dir())
    }

    async fn spawn(&self, multi_user: bool) -> Result<Process, DaemonError> {
        let (dir, programs) = (self.dir.clone(), self.programs.clone());
        let fresh = spawn_blocking(move || dir.fresh(&programs)).await;
        let fresh = fresh.map_err(|panic| self.not_ready(panic.to_string()))?;
        let log = fresh.map_err(|error| error.into_daemon_error(&self.spec.id))?;
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
        let not_run = |error: std::io::Error| self.not_ready(format!("{}: {error}", self.programs.control.display()));
        let mut command = child::command(self.dir, &self.programs.control, &launch.arguments());
        command.env_clear().envs(launch.environment()).current_dir("/").stdin(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdout(log.try_clone().map_err(not_run)?).stderr(log);
        let child = command.spawn().map_err(not_run)?;
        Process::of_child(child).map_err(not_run)
    }

    /// Waits for the first reply. The socket is there before somebody listens.
    async fn until_ready(&self, control: &ControlClient) -> Result<(), DaemonError> {
        let socket_path = self.dir.pipe_dir().join(CONTROL_SOCKET);
        let mut looks = interval(POLL_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if self.left().is_zero() {
                let said = log_file::excerpt(&self.dir.log_path());
                return Err(self.not_ready(if said.is_empty() { "it said nothing".to_owned() } else { said }));
            }
            if !socket_path.exists() {
                continue;
            }
            match control.send(&[Command::Threads], self.left()).await {
                Ok(_answer) => return Ok(()),
                Err(ControlError::Unreachable { .. }) => {}
                Err(error @ (ControlError::Run { .. } | ControlError::NoAnswer { .. })) => {
                    return Err(self.unanswered(&error));
                }
            }
        }
    }

    /// Sets the limits and reads them back; tells whether every server has them.
    async fn limit(&self, control: &ControlClient) -> Result<bool, DaemonError> {
        if limits(self.spec).is_empty() {
            return Ok(true);
        }
        set_limits(self.spec, control, self.left()).await.map_err(|error| self.unanswered(&error))?;
        let wrong = wrong_limit(self.spec, control, self.left()).await.map_err(|error| self.unanswered(&error))?;
        if let Some((limit, found)) = wrong {
            let (id, what, wanted) = (self.spec.id.clone(), limit.to_string(), limit.value());
            return Err(DaemonError::LimitNotApplied { id, what, wanted, found });
        }
        let servers = control.send(&[Command::Servers], self.left()).await.map_err(|error| self.unanswered(&error))?;
        let servers = pids(&servers);
        Ok(servers.is_empty() || log_file::have_limits(&self.dir.log_path(), &servers))
    }

    fn left(&self) -> Duration {
        self.deadline.left()
    }

    /// Why a daemon that should have replied ended instead.
    fn failed(&self, end: Exit, multi_user: bool) -> DaemonError {
        let (id, said) = (self.spec.id.clone(), log_file::excerpt(&self.dir.log_path()));
        if multi_user && knows_no_multi_user(&said) {
            return DaemonError::NoMultiUser { id };
        }
        if self.dir.is_full() {
            return DaemonError::UnusableDir { id, path: self.dir.run_dir(), why: "no space left".to_owned() };
        }
        self.not_ready(format!("it {end}, `{said}`"))
    }

    fn unanswered(&self, error: &ControlError) -> DaemonError {
        self.not_ready(dra_model::chain(error).to_string())
    }

    fn not_ready(&self, seen: String) -> DaemonError {
        DaemonError::NotReady {
            id: self.spec.id.clone(),
            waited: self.deadline.timeout.saturating_sub(self.left()),
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

/// Sets every limit; what is replied says nothing.
pub async fn set_limits(spec: &DaemonSpec, control: &ControlClient, timeout: Duration) -> Result<(), ControlError> {
    let settings: Vec<Command> = limits(spec).into_iter().map(Limit::setting).collect();
    if settings.is_empty() {
        return Ok(());
    }
    control.send(&settings, timeout).await.map(|_echo| ())
}

/// The first limit that is read back as something else, and as what.
pub async fn wrong_limit(
    spec: &DaemonSpec,
    control: &ControlClient,
    timeout: Duration,
) -> Result<Option<(Limit, String)>, ControlError> {
    for limit in limits(spec) {
        let reply = control.send(&[limit.question()], timeout).await?;
        if !limit.agrees(&reply) {
            let found = printable(&reply);
            return Ok(Some((limit, if found.is_empty() { "none".to_owned() } else { found })));
        }
    }
    Ok(None)
}
