// SPDX-License-Identifier: Apache-2.0
//! The end of a daemon whose GPU failed. It starts again as an exited daemon does, once its GPU is well.

use dra_hardware::DaemonState;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{Exited, Lifecycle, Supervisor};
use crate::running::Running;
use crate::termination::kill_all;

impl Supervisor {
    /// Takes over the fault of the GPU, or its end.
    pub(super) async fn set_gpu_fault(&mut self, fault: Option<String>) {
        match (std::mem::replace(&mut self.lifecycle, Lifecycle::Absent), fault) {
            (Lifecycle::Running(running), Some(fault)) => self.end_running(*running, fault).await,
            (Lifecycle::Exited(exited), Some(fault)) => self.end_exited(*exited, fault).await,
            (Lifecycle::Exited(exited), None) => {
                info!(daemon = %self.id, "the GPU of an MPS daemon is well again, the daemon restarts after its clients");
                let exited = Exited { gpu_fault: None, next: Instant::now(), ..*exited };
                self.lifecycle = Lifecycle::Exited(Box::new(exited));
            }
            (other, _) => self.lifecycle = other,
        }
    }

    async fn end_running(&mut self, running: Running, fault: String) {
        running.handle.process.kill().await;
        self.kill_all_processes().await;
        let (saved, mut clients) = running.into_clients(&self.dir.log_path());
        warn!(daemon = %self.id, fault, clients = clients.alive().len(), "MPS daemon ended because its GPU failed");
        self.context.metrics.ended();
        let state = DaemonState::GpuFailed { why: fault.clone() };
        let next = Instant::now();
        self.enter_exited(Exited { saved, state, clients, next, requested_since: None, gpu_fault: Some(fault) });
    }

    /// The servers of an exited daemon continue for their clients. The first fault ends them, a later one has only another text.
    async fn end_exited(&mut self, exited: Exited, fault: String) {
        if exited.gpu_fault.is_none() {
            self.kill_all_processes().await;
        }
        warn!(daemon = %self.id, fault, "exited MPS daemon does not restart because its GPU failed");
        let state = DaemonState::GpuFailed { why: fault.clone() };
        self.enter_exited(Exited { state, gpu_fault: Some(fault), ..exited });
    }

    /// A process that hangs in the kernel because of its GPU may stay. It is killed again before a restart and at a stop.
    async fn kill_all_processes(&self) {
        if let Err(error) = kill_all(&self.dir, &self.id).await {
            error!(daemon = %self.id, %error, "failed to kill all processes of an MPS daemon");
        }
    }
}
