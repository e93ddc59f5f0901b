// SPDX-License-Identifier: Apache-2.0
//! MIG devices.

use crate::{
    error::{DemoError, Doing, Result},
    published::{self, Pool},
    stage::{PodSaw, Stage},
};
use dra_cluster::ClusterError;
use std::{
    fmt,
    time::{Duration, Instant},
};

/// Index and MIG profiles of the GPUs of `node-1` with MIG.
pub const CUT: [(&str, &str); 2] = [("6", "3g.40gb,2g.20gb,1g.10gb,1g.10gb"), ("7", "3g.40gb,3g.40gb")];

const NODE: &str = "node-1";
const LIMIT: Duration = Duration::from_secs(30);

/// The commands of an administrator, and the delay until the slices are published.
#[derive(Debug, Clone)]
pub struct MigCut {
    /// Each command with its output.
    pub transcript: Vec<(String, String)>,
    /// From the end of the last command to slices with all MIG devices.
    pub visible_after: Duration,
    pub before: Pool,
    pub after: Pool,
}

impl fmt::Display for MigCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.transcript.iter().try_for_each(|(command, _)| writeln!(f, "$ {command}"))?;
        writeln!(f, "after {:.1} s node-1 publishes", self.visible_after.as_secs_f32())?;
        write!(f, "  {}", self.after.to_string().replace('\n', "\n  "))
    }
}

/// Enables MIG mode and creates MIG devices with the node's `nvidia-smi`, then waits for the slices.
pub fn cut_into_mig(stage: &Stage<'_>) -> Result<MigCut> {
    let before = pool(stage)?;
    let mut transcript = Vec::new();
    for (gpu, profiles) in CUT {
        for args in [vec!["-i", gpu, "-mig", "1"], vec!["mig", "-i", gpu, "-cgi", profiles, "-C"]] {
            let command = format!("nvidia-smi {}", args.join(" "));
            let node = stage.cluster.node(NODE).doing("find the node")?;
            let answer = node.nvidia_smi(&args).doing(format!("run {command} on {NODE}"))?;
            transcript.push((command, answer));
        }
    }
    let cut = Instant::now();
    let wanted = CUT.iter().map(|(_, profiles)| profiles.split(',').count()).sum::<usize>();
    let changed = || {
        let pool = published::pools(stage.cluster)?.remove(NODE).unwrap_or_default();
        Ok((pool.is_complete() && pool.of_kind("mig").count() == wanted).then_some(pool))
    };
    let after = stage.cluster.wait_until("slices with the MIG devices", LIMIT, changed).doing("wait for the slices")?;
    Ok(MigCut { transcript, visible_after: cut.elapsed(), before, after })
}

/// A MIG device selected by profile.
pub fn mig_by_profile(stage: &Stage<'_>) -> Result<PodSaw> {
    stage.with("mig-by-profile.yaml", || stage.saw("mig-by-profile"))
}

/// A MIG device as an extended resource.
pub fn old_mig_pod(stage: &Stage<'_>) -> Result<PodSaw> {
    stage.with("mig-extended-resource.yaml", || stage.saw("mig-extended-resource"))
}

/// A GPU that is divided for three pods, and then whole for a fourth.
#[derive(Debug, Clone)]
pub struct OnDemand {
    /// With `1g.10gb`, `2g.20gb` and `3g.40gb`.
    pub slices: Vec<PodSaw>,
    /// The GPU instances while the pods run, by `nvidia-smi mig -lgi`.
    pub during: String,
    /// The answer of the scheduler about the pod that wants the whole GPU.
    pub waits: String,
    pub whole: PodSaw,
    /// The GPU instances after the pods.
    pub after: String,
}

impl fmt::Display for OnDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.slices.iter().try_for_each(|pod| writeln!(f, "{pod}"))?;
        writeln!(f, "$ nvidia-smi mig -lgi (on node-1)\n  {}", self.during.trim_end().replace('\n', "\n  "))?;
        writeln!(f, "mig-whole waits: {}", self.waits)?;
        writeln!(f, "after the three pods:\n{}", self.whole)?;
        write!(f, "$ nvidia-smi mig -lgi (on node-1)\n  {}", self.after.trim_end().replace('\n', "\n  "))
    }
}

/// Starts three pods with MIG devices of one GPU, and one that wants this GPU as a whole.
pub fn mig_on_demand(stage: &Stage<'_>) -> Result<OnDemand> {
    const WHOLE: &str = "mig-on-demand-whole.yaml";
    stage.apply("mig-on-demand.yaml")?;
    let divided = divided(stage);
    let whole = divided.and_then(|(slices, during)| {
        stage.apply(WHOLE)?;
        let waits = stage.scheduler_answer("mig-whole")?;
        Ok((slices, during, waits))
    });
    let deleted = stage.delete("mig-on-demand.yaml");
    let played = whole.and_then(|(slices, during, waits)| {
        let whole = stage.saw("mig-whole")?;
        Ok(OnDemand { slices, during, waits, whole, after: gpu_instances(stage)? })
    });
    let cleaned = stage.delete(WHOLE);
    let played = played?;
    deleted.and(cleaned).map(|()| played)
}

fn divided(stage: &Stage<'_>) -> Result<(Vec<PodSaw>, String)> {
    let slices = ["mig-1g", "mig-2g", "mig-3g"].into_iter().map(|pod| stage.saw(pod)).collect::<Result<Vec<_>>>()?;
    Ok((slices, gpu_instances(stage)?))
}

fn gpu_instances(stage: &Stage<'_>) -> Result<String> {
    let node = stage.cluster.node(NODE).doing("find the node")?;
    match node.nvidia_smi(&["mig", "-lgi"]) {
        // nvidia-smi exits with an error where no GPU is in MIG mode.
        Err(ClusterError::Failed { message, .. }) => Ok(message),
        answer => answer.doing(format!("run nvidia-smi mig -lgi on {NODE}")),
    }
}

fn pool(stage: &Stage<'_>) -> Result<Pool> {
    let mut pools = published::pools(stage.cluster).doing("read the slices")?;
    pools.remove(NODE).ok_or_else(|| DemoError::Incomplete { what: "the pool", object: NODE.to_owned() })
}
