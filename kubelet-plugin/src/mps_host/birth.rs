// SPDX-License-Identifier: Apache-2.0
//! From a spec to a daemon that answers and has its limits.
//!
//! A start that fails may leave a process and directories; the caller ends them.

use std::process::Stdio;
use std::time::Duration;

use dra_hardware::{DaemonError, DaemonSpec, MultiUser};
use dra_mps::launch::{CONTROL_SOCKET, knows_no_multi_user};
use dra_mps::{Command, Launch, Limit};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::front_end::{AskError, FrontEnd};
use super::inside;
use super::log_file;
use super::place::{Place, PlaceError};
use super::process::{End, Process};
use super::programs::Programs;

/// How often the socket is looked for; it is there some milliseconds after the start.
const LOOK: Duration = Duration::from_millis(2);

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
    pub patience: Duration,
    /// When that is over.
    pub end: Instant,
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

    async fn bear_with(&self, multi_user: bool) -> Result<Born, DaemonError> {
        let process = self.spawn(multi_user)?;
        let front_end = self.front_end();
        let raised = tokio::select! {
            end = process.ended() => Err(self.failed(end, multi_user)),
            raised = self.raise(&front_end) => raised,
        };
        if let Err(error) = raised {
            process.end().await;
            return Err(error);
        }
        Ok(Born { process, multi_user, front_end })
    }

    async fn raise(&self, front_end: &FrontEnd) -> Result<(), DaemonError> {
        self.until_ready(front_end).await?;
        self.limit(front_end).await
    }

    /// How to talk to the daemon of this place.
    pub fn front_end(&self) -> FrontEnd {
        FrontEnd::new(&self.programs.control, &self.place.pipe_dir(), &self.place.driver_dir())
    }

    fn spawn(&self, multi_user: bool) -> Result<Process, DaemonError> {
        let no_place = |error: PlaceError| error.into_daemon_error(&self.spec.id);
        self.place.fresh_pipe().map_err(no_place)?;
        let driver_dir = self.place.fresh_driver_dir().map_err(no_place)?;
        let make = |path| move |source| no_place(PlaceError::Make { path, source });
        self.programs.link(&driver_dir).map_err(make(driver_dir.clone()))?;
        let log = log_file::create(&self.place.log_path()).map_err(make(self.place.log_path()))?;
        let driver_dir = driver_dir.display().to_string();
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
        let mut command = inside::command(&self.place.shm_dir(), &self.programs.control, &launch.arguments());
        command.env_clear().envs(launch.environment()).current_dir("/").stdin(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdout(log.try_clone().map_err(not_run)?).stderr(log);
        let child = command.spawn().map_err(not_run)?;
        Process::of_child(child.id()).map_err(not_run)
    }

    /// Waits for the first answer. The socket is there before somebody listens.
    async fn until_ready(&self, front_end: &FrontEnd) -> Result<(), DaemonError> {
        let socket_path = self.place.pipe_dir().join(CONTROL_SOCKET);
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if self.left().is_zero() {
                return Err(self.not_ready(log_file::end_of(&self.place.log_path())));
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

    /// Sets the limits and reads them back.
    async fn limit(&self, front_end: &FrontEnd) -> Result<(), DaemonError> {
        set_limits(self.spec, front_end, self.left()).await.map_err(|error| self.unanswered(&error))?;
        match wrong_limit(self.spec, front_end, self.left()).await.map_err(|error| self.unanswered(&error))? {
            None => Ok(()),
            Some((limit, found)) => Err(DaemonError::LimitNotTaken {
                id: self.spec.id.clone(),
                what: limit.to_string(),
                wanted: limit.value(),
                found,
            }),
        }
    }

    fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Why a daemon that should have answered ended instead.
    fn failed(&self, end: End, multi_user: bool) -> DaemonError {
        let (id, said) = (self.spec.id.clone(), log_file::end_of(&self.place.log_path()));
        if multi_user && knows_no_multi_user(&said) {
            return DaemonError::NoMultiUser { id };
        }
        if self.place.is_full() {
            return DaemonError::NoPlace { id, path: self.place.run_dir(), why: "no space left".to_owned() };
        }
        self.not_ready(format!("it {end}, `{said}`"))
    }

    fn unanswered(&self, error: &AskError) -> DaemonError {
        self.not_ready(dra_runtime::chain(error).to_string())
    }

    fn not_ready(&self, seen: String) -> DaemonError {
        DaemonError::NotReady { id: self.spec.id.clone(), waited: self.patience.saturating_sub(self.left()), seen }
    }
}

/// The limits of a spec.
fn limits(spec: &DaemonSpec) -> Vec<Limit> {
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
            let answer = answer.trim();
            let found = if answer.is_empty() { "none" } else { answer };
            return Ok(Some((limit, found.to_owned())));
        }
    }
    Ok(None)
}
