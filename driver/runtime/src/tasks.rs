// SPDX-License-Identifier: Apache-2.0
//! The tasks of a process: when the first task ends, all are stopped.
//!
//! A task that panics or fails terminates the process, so that the kubelet restarts the container and no part of the driver runs without
//! the others.

use std::borrow::Cow;
use std::error::Error;
use std::future::Future;

use dra_model::{Advice, chain};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

pub type TaskError = Box<dyn Error + Send + Sync>;

/// The process did not terminate cleanly.
#[derive(Debug, thiserror::Error)]
pub enum TasksError {
    /// A task failed or panicked, and the others were stopped.
    #[error("a task of this process failed")]
    TaskFailed,
}

impl Advice for TasksError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::TaskFailed => Some("see the error above".into()),
        }
    }
}

/// The supervised tasks of one process.
#[derive(Debug)]
pub struct Tasks {
    running: JoinSet<(&'static str, Result<(), TaskError>)>,
    stop: CancellationToken,
}

impl Tasks {
    /// `stop` is cancelled when a task ends.
    pub fn new(stop: CancellationToken) -> Self {
        Self { running: JoinSet::new(), stop }
    }

    /// Starts a task, which must end when the token is cancelled. A task that ends earlier stops the process.
    pub fn start<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        self.running.spawn(async move { (name, task.await) });
    }

    /// Waits until a task ends, then stops all tasks and waits for them.
    pub async fn run(mut self) -> Result<(), TasksError> {
        let mut clean = true;
        while let Some(ended) = self.running.join_next().await {
            match ended {
                Ok((_, Ok(()))) => {}
                Ok((task, Err(failure))) => {
                    error!(task, error = %chain(failure.as_ref()), "task failed");
                    clean = false;
                }
                Err(panic) => {
                    error!(error = %panic, "task panicked");
                    clean = false;
                }
            }
            self.stop.cancel();
        }
        if clean { Ok(()) } else { Err(TasksError::TaskFailed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_one_task_stops_the_others() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        let waiting = stop.clone();
        tasks.start("waits", async move {
            waiting.cancelled().await;
            Ok(())
        });
        tasks.start("fails", async { Err("broken".into()) });
        assert!(matches!(tasks.run().await, Err(TasksError::TaskFailed)));
        assert!(stop.is_cancelled());
    }
}
