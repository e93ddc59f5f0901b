// SPDX-License-Identifier: Apache-2.0
//! Has the MPS daemons of GPUs that failed ended, and lets them run again when the GPU is well.
//!
//! The input are the findings of the health monitor, the daemons of the claim records, and the connection to the MPS host. The
//! output is one call to the MPS host with all daemons that must not run: after each change of them, and after each connection,
//! because the MPS host forgets them when it is restarted. A GPU that needs a reset or a reboot runs its daemons on, because its
//! pods may finish.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dra_health::gpu::UNCONTAINED;
use dra_model::{Cause, DaemonId, Effect, Finding, GpuUuid, explain};
use dra_mps_api::{FailedDaemons, MpsClient};
use dra_prepare::{DaemonDevice, Engine};
use dra_runtime::tasks::TaskError;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::daemon_states::DaemonStates;
use crate::node_service::{Findings, NodeState};
use crate::registration::ActiveInstance;

/// The time between two attempts, while the MPS host is connected.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct FailedDaemonsTask {
    pub client: MpsClient,
    pub engine: Arc<Engine>,
    pub node: watch::Receiver<NodeState>,
    pub daemons: watch::Receiver<DaemonStates>,
    /// Of two instances of a rolling upgrade only one judges the GPUs.
    pub active: ActiveInstance,
}

/// What the MPS host has.
#[derive(Debug, PartialEq, Eq)]
struct Sent {
    /// Number of the connection.
    connection: u64,
    failed: FailedDaemons,
}

impl FailedDaemonsTask {
    /// Runs until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TaskError> {
        let (mut sent, mut retry_at) = (None, None);
        loop {
            if retry_at.is_none_or(|at| at <= Instant::now()) {
                let is_retry = retry_at.is_some();
                retry_at = self.update(&mut sent, is_retry).await?.then(|| Instant::now() + RETRY_INTERVAL);
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = self.node.changed() => changed?,
                changed = self.daemons.changed() => changed?,
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {}
            }
        }
    }

    /// Sends what the MPS host does not have. Returns whether to try again later. A retry that fails as well is no warning.
    async fn update(&mut self, sent: &mut Option<Sent>, is_retry: bool) -> Result<bool, TaskError> {
        let NodeState { findings, is_judged, .. } = self.node.borrow_and_update().clone();
        let (is_connected, connection) = {
            let daemons = self.daemons.borrow_and_update();
            (daemons.is_connected, daemons.connections)
        };
        // Without the findings of an earlier process, daemons of a GPU that failed would start again.
        if !is_connected || !is_judged {
            return Ok(false);
        }
        if self.active.is_superseded() {
            *sent = None;
            return Ok(true);
        }
        let why = match self.failed(findings).await? {
            Ok(failed) => {
                let due = Sent { connection, failed };
                if sent.as_ref() == Some(&due) {
                    return Ok(false);
                }
                match self.client.set_failed(&due.failed).await {
                    Ok(()) => {
                        *sent = Some(due);
                        return Ok(false);
                    }
                    Err(error) => explain(&error),
                }
            }
            Err(why) => why,
        };
        if is_retry {
            debug!(why, "the MPS host still does not have the daemons of GPUs that failed");
        } else {
            warn!(why, "failed to send the daemons of GPUs that failed to the MPS host, will retry");
        }
        Ok(true)
    }

    /// Reads the records only while a GPU failed.
    async fn failed(&self, findings: Arc<Findings>) -> Result<Result<FailedDaemons, String>, TaskError> {
        if !findings.values().flatten().any(ends_daemons) {
            return Ok(Ok(FailedDaemons::new()));
        }
        let engine = Arc::clone(&self.engine);
        let daemons = spawn_blocking(move || engine.devices_of_daemons()).await?;
        Ok(daemons.map(|daemons| failed_daemons(&daemons, &findings)).map_err(|error| explain(&error)))
    }
}

/// The daemons with a device that failed, with the first fault of the first such device.
fn failed_daemons(daemons: &BTreeMap<DaemonId, BTreeSet<DaemonDevice>>, findings: &Findings) -> FailedDaemons {
    let fault = |device: &DaemonDevice| {
        let is_fault = |finding: &&Finding| ends_daemons(finding) && finding.concerns(device.placement);
        Some(reason(&device.gpu, findings.get(&device.gpu)?.iter().find(is_fault)?))
    };
    let of_daemon =
        |(id, devices): (&DaemonId, &BTreeSet<DaemonDevice>)| Some((id.clone(), devices.iter().find_map(fault)?));
    daemons.iter().filter_map(of_daemon).collect()
}

/// Whether no process can go on with the device.
fn ends_daemons(finding: &Finding) -> bool {
    match finding.cause {
        Cause::GpuLost => true,
        // Whether its pods are evicted may change with the budgets, and changes nothing for its processes.
        Cause::Memory => finding.value == UNCONTAINED && finding.effect > Effect::None,
        Cause::Recovery
        | Cause::Xid
        | Cause::Unmonitored
        | Cause::ResetAdvised
        | Cause::Fabric
        | Cause::Throttled
        | Cause::Unstable => false,
    }
}

/// Which GPU and what failed, as a clause.
fn reason(gpu: &GpuUuid, finding: &Finding) -> String {
    match finding.message.strip_prefix("the GPU ") {
        Some(predicate) => format!("{gpu} {predicate}"),
        None => format!("of {gpu}: {}", finding.message),
    }
}

#[cfg(test)]
mod tests {
    use dra_model::{Placement, Verdict};

    use super::*;

    fn gpu(number: u32) -> GpuUuid {
        format!("GPU-{number:08}-0000-0000-0000-000000000000").parse().unwrap()
    }

    fn finding(cause: Cause, effect: Effect, scope: Option<Placement>, message: &str) -> Finding {
        let (value, message) = (String::new(), message.to_owned());
        Finding { cause, value, effect, verdict: Verdict::Unhealthy, scope, message, since: 0 }
    }

    #[test]
    fn daemons_of_devices_that_no_process_can_go_on_with_are_ended() {
        let part = |start| Some(Placement { start, size: 2 });
        let device = |number, placement| DaemonDevice { gpu: gpu(number), placement };
        let daemons: BTreeMap<DaemonId, BTreeSet<DaemonDevice>> = [
            ("of-gpu-1", vec![device(1, None)]),
            ("of-both", vec![device(1, None), device(2, None)]),
            ("of-first-part", vec![device(2, part(0))]),
            ("of-second-part", vec![device(2, part(2))]),
            ("of-no-device", vec![]),
        ]
        .into_iter()
        .map(|(id, devices)| (id.parse().unwrap(), devices.into_iter().collect()))
        .collect();
        let lost = || finding(Cause::GpuLost, Effect::NoExecute, None, "the GPU fell off the bus (XID 79)");
        let memory = |effect, scope, value: &str| {
            let value = value.to_owned();
            Finding { value, ..finding(Cause::Memory, effect, scope, "a damaged row") }
        };
        let reset = || finding(Cause::Recovery, Effect::NoExecute, None, "the GPU needs a reset");
        let fell = |number| format!("{} fell off the bus (XID 79)", gpu(number));
        let row = || format!("of {}: a damaged row", gpu(2));
        for (number, found, expect) in [
            (1, lost(), vec![("of-both", fell(1)), ("of-gpu-1", fell(1))]),
            (2, lost(), vec![("of-both", fell(2)), ("of-first-part", fell(2)), ("of-second-part", fell(2))]),
            (2, memory(Effect::NoExecute, part(0), UNCONTAINED), vec![("of-both", row()), ("of-first-part", row())]),
            // Its pods are not evicted, for lack of a budget.
            (2, memory(Effect::NoSchedule, part(0), UNCONTAINED), vec![("of-both", row()), ("of-first-part", row())]),
            (2, memory(Effect::None, None, UNCONTAINED), vec![]),
            (2, memory(Effect::NoExecute, None, "remap-failed"), vec![]),
            (1, reset(), vec![]),
            (3, lost(), vec![]),
        ] {
            let findings = [(gpu(number), vec![reset(), found.clone()])].into();
            let expect: FailedDaemons = expect.into_iter().map(|(id, why)| (id.parse().unwrap(), why)).collect();
            assert_eq!(failed_daemons(&daemons, &findings), expect, "{number} {found:?}");
        }
    }
}
