// SPDX-License-Identifier: Apache-2.0
//! Output of `kubectl describe`: slices, claims, and the reason of a pending pod.

use crate::{
    error::{Doing, Result},
    stage::{PodSaw, Stage},
};
use std::{fmt, time::Duration};

const LIMIT: Duration = Duration::from_secs(30);

/// A claim in use.
#[derive(Debug, Clone)]
pub struct DescribedClaim {
    /// The GPUs of its pod.
    pub pod: PodSaw,
    /// Output of `kubectl describe`, with the device status of the driver and the Events.
    pub text: String,
}

impl fmt::Display for DescribedClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.text.find("\nStatus:").map_or(0, |at| at + 1);
        f.write_str(self.text.get(from..).unwrap_or(&self.text).trim_end())
    }
}

/// A pending pod.
#[derive(Debug, Clone)]
pub struct Unsatisfied {
    /// Message of its Event.
    pub message: String,
    /// Output of `kubectl describe pod`.
    pub text: String,
}

impl fmt::Display for Unsatisfied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.text.find("\nEvents:").map_or(0, |at| at + 1);
        f.write_str(self.text.get(from..).unwrap_or(&self.text).trim_end())
    }
}

pub fn described_slices(stage: &Stage<'_>) -> Result<String> {
    stage.cluster.kubectl(&["describe", "resourceslices"]).doing("describe the slices")
}

/// A MIG claim in use, after the driver has written its status.
pub fn described_claim(stage: &Stage<'_>) -> Result<DescribedClaim> {
    stage.with("mig-by-profile.yaml", || {
        let pod = stage.saw("mig-by-profile")?;
        let claim = stage.claim_of("mig-by-profile")?;
        let complete = || {
            let text = stage.cluster.kubectl(&["describe", "resourceclaim", &claim])?;
            Ok((text.contains("MIG-") && text.contains("DevicesPrepared")).then_some(text))
        };
        let text = stage.cluster.wait_until("the claim's status and events", LIMIT, complete);
        Ok(DescribedClaim { pod, text: text.doing(format!("describe the claim {claim}"))? })
    })
}

/// A pod that requests a GPU model that does not exist.
pub fn cannot_be_satisfied(stage: &Stage<'_>) -> Result<Unsatisfied> {
    stage.with("cannot-be-satisfied.yaml", || {
        let message = stage.scheduler_answer("cannot-be-satisfied")?;
        Ok(Unsatisfied { message, text: stage.describe("pod", "cannot-be-satisfied")? })
    })
}

/// The attributes and capacities of the first device of a description.
pub(super) fn first_device(text: &str) -> String {
    let from_device = text.lines().skip_while(|line| line.trim() != "Devices:");
    let lines: Vec<_> = from_device.take_while(|line| line.trim() != "Consumes Counters:").collect();
    format!("{}\n      ...", lines.join("\n"))
}
