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

use crate::death::end_all;
use crate::front_end::{AskError, FrontEnd};
use crate::inside;
use crate::log_file;
use crate::order::Deadline;
use crate::place::Place;
use crate::process::{End, Process};
use crate::programs::Programs;

/// How often the socket is looked for; it is there some milliseconds after the start.
const LOOK: Duration = Duration::from_millis(2);

/// How often a daemon is started anew that clients found before it had its limits.
const MOST_TRIES: usize = 5;

/// A daemon that answers.
#[derive(Debug)]
pub struct Born {
    /// Its process.
    pub process: Process,
    /// Whether it has `-M`.
    pub multi_user: bool,
    /// How to talk to it.
    pub front_end: FrontEnd,
}

/// What a start needs.
#[derive(Debug, Clone, Copy)]
pub struct Birth<'a> {
    /// What it should be.
    pub spec: &'a DaemonSpec,
    /// Where.
    pub place: &'a Place,
    /// Of what.
    pub programs: &'a Programs,
    /// How long it may take.
    pub by: Deadline,
}

impl Birth<'_> {
    /// Starts it. `-M` is tried, as nothing tells whether a program knows it; one that does not ends in milliseconds.
    pub async fn bear(&self) -> Result<Born, DaemonError> {
        let id = &self.spec.id;
        if self.spec.multi_user == MultiUser::Off {
            return self.bear_with(false).await;
        }
        match self.bear_with(true).await {
            Err(DaemonError::NoMultiUser { .. }) if self.spec.multi_user == MultiUser::IfKnown => {
                tracing::info!(daemon = %id, "this driver's MPS knows no -M: users of it take turns");
                self.bear_with(false).await
            }
            answer => answer,
        }
    }

    /// Containers of an earlier daemon of this place may use this one at once. A server keeps the limits that it was started
    /// with, so one that was there before them goes again, with its daemon.
    async fn bear_with(&self, multi_user: bool) -> Result<Born, DaemonError> {
        for _ in 0..MOST_TRIES {
            if let Some(born) = self.try_with(multi_user).await? {
                return Ok(born);
            }
            tracing::info!(daemon = %self.spec.id, "clients were faster than the limits: started again");
            end_all(self.place, &self.spec.id).await?;
        }
        Err(self.not_ready(format!("clients used it before it had its limits, {MOST_TRIES} times")))
    }

    /// Nothing if clients were faster.
    async fn try_with(&self, multi_user: bool) -> Result<Option<Born>, DaemonError> {
        let process = self.spawn(multi_user).await?;
        let front_end = self.front_end();
        let raised = tokio::select! {
            end = process.ended() => Err(self.failed(end, multi_user)),
            raised = self.raise(&front_end) => raised,
        };
        if let Ok(true) = raised {
            return Ok(Some(Born { process, multi_user, front_end }));
        }
        process.end().await;
        raised.map(|_unlimited| None)
    }

    /// Whether all that use it have its limits.
    async fn raise(&self, front_end: &FrontEnd) -> Result<bool, DaemonError> {
        self.until_ready(front_end).await?;
        self.limit(front_end).await
    }

    /// How to talk to the daemon of this place.
    pub fn front_end(&self) -> FrontEnd {
        FrontEnd::new(&self.programs.control, &self.place.pipe_dir(), &self.place.driver_dir())
    }

    async fn spawn(&self, multi_user: bool) -> Result<Process, DaemonError> {
        let (place, programs) = (self.place.clone(), self.programs.clone());
        let fresh = spawn_blocking(move || place.fresh(&programs)).await;
        let fresh = fresh.map_err(|panic| self.not_ready(panic.to_string()))?;
        let log = fresh.map_err(|error| error.into_daemon_error(&self.spec.id))?;
        let driver_dir = self.place.driver_dir().display().to_string();
        let (pipe_dir, log_dir) = (self.place.pipe_dir(), self.place.log_dir());
        let launch = Launch {
            pipe_dir: &pipe_dir,
            log_dir: &log_dir,
            devices: &self.spec.devices,
            multi_user,
            program_path: &driver_dir,
            library_path: &driver_dir,
        };
        let not_run = |error: std::io::Error| self.not_ready(format!("{}: {error}", self.programs.control.display()));
        let mut command = inside::command(self.place, &self.programs.control, &launch.arguments());
        command.env_clear().envs(launch.environment()).current_dir("/").stdin(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdout(log.try_clone().map_err(not_run)?).stderr(log);
        let child = command.spawn().map_err(not_run)?;
        Process::of_child(child).map_err(not_run)
    }

    /// Waits for the first answer. The socket is there before somebody listens.
    async fn until_ready(&self, front_end: &FrontEnd) -> Result<(), DaemonError> {
        let socket_path = self.place.pipe_dir().join(CONTROL_SOCKET);
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if self.left().is_zero() {
                let said = log_file::end_of(&self.place.log_path());
                return Err(self.not_ready(if said.is_empty() { "it said nothing".to_owned() } else { said }));
            }
            if !socket_path.exists() {
                continue;
            }
            match front_end.ask(&[Command::Threads], self.left()).await {
                Ok(_answer) => return Ok(()),
                Err(AskError::Unreached { .. }) => {}
                Err(error @ (AskError::Run { .. } | AskError::Silent { .. })) => return Err(self.unanswered(&error)),
            }
        }
    }

    /// Sets the limits and reads them back; tells whether every server has them.
    async fn limit(&self, front_end: &FrontEnd) -> Result<bool, DaemonError> {
        if limits(self.spec).is_empty() {
            return Ok(true);
        }
        set_limits(self.spec, front_end, self.left()).await.map_err(|error| self.unanswered(&error))?;
        let wrong = wrong_limit(self.spec, front_end, self.left()).await.map_err(|error| self.unanswered(&error))?;
        if let Some((limit, found)) = wrong {
            let (id, what, wanted) = (self.spec.id.clone(), limit.to_string(), limit.value());
            return Err(DaemonError::LimitNotApplied { id, what, wanted, found });
        }
        let servers = front_end.ask(&[Command::Servers], self.left()).await.map_err(|error| self.unanswered(&error))?;
        let servers = pids(&servers);
        Ok(servers.is_empty() || log_file::have_limits(&self.place.log_path(), &servers))
    }

    fn left(&self) -> Duration {
        self.by.left()
    }

    /// Why a daemon that should have answered ended instead.
    fn failed(&self, end: End, multi_user: bool) -> DaemonError {
        let (id, said) = (self.spec.id.clone(), log_file::end_of(&self.place.log_path()));
        if multi_user && knows_no_multi_user(&said) {
            return DaemonError::NoMultiUser { id };
        }
        if self.place.is_full() {
            return DaemonError::UnusableDir { id, path: self.place.run_dir(), why: "no space left".to_owned() };
        }
        self.not_ready(format!("it {end}, `{said}`"))
    }

    fn unanswered(&self, error: &AskError) -> DaemonError {
        self.not_ready(dra_model::chain(error).to_string())
    }

    fn not_ready(&self, seen: String) -> DaemonError {
        DaemonError::NotReady { id: self.spec.id.clone(), waited: self.by.patience.saturating_sub(self.left()), seen }
    }
}

/// The limits of a spec.
pub fn limits(spec: &DaemonSpec) -> Vec<Limit> {
    let threads = spec.threads.map(Limit::Threads);
    let memory = spec.memory.iter().map(|(place, bytes)| Limit::Memory(*place, *bytes));
    threads.into_iter().chain(memory).collect()
}

/// Sets every limit; what is answered says nothing.
pub async fn set_limits(spec: &DaemonSpec, front_end: &FrontEnd, patience: Duration) -> Result<(), AskError> {
    let settings: Vec<Command> = limits(spec).into_iter().map(Limit::setting).collect();
    if settings.is_empty() {
        return Ok(());
    }
    front_end.ask(&settings, patience).await.map(|_echo| ())
}

/// The first limit that is read back as something else, and as what.
pub async fn wrong_limit(
    spec: &DaemonSpec,
    front_end: &FrontEnd,
    patience: Duration,
) -> Result<Option<(Limit, String)>, AskError> {
    for limit in limits(spec) {
        let answer = front_end.ask(&[limit.question()], patience).await?;
        if !limit.agrees(&answer) {
            let found = printable(&answer);
            return Ok(Some((limit, if found.is_empty() { "none".to_owned() } else { found })));
        }
    }
    Ok(None)
}
