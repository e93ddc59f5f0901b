// SPDX-License-Identifier: Apache-2.0
//! The small process that holds a cluster and takes it down.

use crate::{command, error::Result, files, run_dir::RunDir, wait};
use std::{
    env, fs,
    io::Write,
    process::{Child, Command, Stdio},
    time::Duration,
};

const WATCHDOG: &str = include_str!("scripts/watchdog.sh");
const INIT: &str = include_str!("scripts/init.sh");
/// A directory that is to get the logs of clusters that end.
const KEEP_LOGS: &str = "GPU_CLUSTER_KEEP_LOGS";
const CLEAN: &str = include_str!("scripts/clean.sh");

/// A cluster's watchdog, as the process that uses the cluster sees it.
#[derive(Debug)]
pub(crate) struct Watchdog {
    run_dir: RunDir,
    /// Present where this process owns the cluster: its end closes the pipe.
    child: Option<Child>,
}

impl Watchdog {
    /// Starts a watchdog that removes its cluster when this process terminates.
    pub(crate) fn start(run_dir: &RunDir) -> Result<Self> {
        Ok(Self { child: Some(spawn(run_dir)?), run_dir: run_dir.clone() })
    }

    /// The watchdog of a cluster that another process started.
    pub(crate) fn of_running(run_dir: &RunDir) -> Self {
        Self { run_dir: run_dir.clone(), child: None }
    }

    /// Lets the cluster outlive this process.
    pub(crate) fn release(&mut self) -> Result<()> {
        let Some(mut pipe) = self.child.take().and_then(|child| child.stdin) else {
            return Ok(());
        };
        let written = pipe.write_all(b"stay\n");
        written.map_err(files::error("signal the watchdog of", self.run_dir.path()))
    }

    /// Takes the cluster down and waits until nothing is left.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let path = self.run_dir.path();
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            child.wait().map_err(files::error("wait for the watchdog of", path))?;
        } else if self.run_dir.is_held() {
            let pid = files::read(&path.join("watchdog.pid"))?;
            command::output(Command::new("kill").args(["-TERM", pid.trim()]))?;
        }
        wait::until("the cluster's end", Duration::from_mins(1), path, || Ok((!path.exists()).then_some(())))
    }

    /// Whether this process must not end before the cluster does.
    pub(crate) fn is_owned(&self) -> bool {
        self.child.is_some()
    }
}

/// Removes the leftovers of a cluster without a watchdog.
pub(crate) fn clean(run_dir: &RunDir) -> Result<()> {
    let mut sh = Command::new("sh");
    sh.args(["-c", CLEAN, "clean"]).arg(run_dir.path());
    command::output(&mut sh).map(drop)
}

fn spawn(run_dir: &RunDir) -> Result<Child> {
    let path = run_dir.path();
    files::write(&path.join("init.sh"), INIT)?;
    files::write(&path.join("clean.sh"), CLEAN)?;
    if let Some(dir) = env::var_os(KEEP_LOGS) {
        files::write(&path.join("keep-logs"), dir.as_encoded_bytes())?;
    }
    files::make_dir(&run_dir.logs_dir())?;
    let log_path = run_dir.logs_dir().join("watchdog.log");
    let log = fs::File::create(&log_path).map_err(files::error("create", &log_path))?;
    let error_log = log.try_clone().map_err(files::error("create", &log_path))?;
    let mut setsid = Command::new("setsid");
    setsid.args(["sh", "-c", WATCHDOG, "gpu-cluster-watchdog"]);
    setsid.arg(path).stdin(Stdio::piped()).stdout(log).stderr(error_log);
    setsid.spawn().map_err(|source| command::start_error(&setsid, source))
}
