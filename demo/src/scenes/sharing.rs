// SPDX-License-Identifier: Apache-2.0
//! Many claims, or many pods of a claim, on one GPU.

use crate::{
    error::{Doing, Result},
    settings::{self, GpuSetting},
    stage::{PodSaw, Stage, list, text},
};
use std::{collections::BTreeMap, fmt, time::Duration};

/// The namespaces of `mps-shares.yaml`, each with a pod `share`.
pub const TEAMS: [&str; 3] = ["mps-red", "mps-green", "mps-blue"];

const LIMIT: Duration = Duration::from_mins(1);

/// A pod with an MPS daemon, as it finds itself.
#[derive(Debug, Clone)]
pub struct MpsClient {
    /// Where it belongs.
    pub namespace: String,
    /// Its devices.
    pub pod: PodSaw,
    /// The variables `CUDA_MPS_…` of its container, sorted.
    pub environment: Vec<String>,
    /// What the daemon answers it to `get_default_active_thread_percentage`.
    pub threads: String,
}

impl fmt::Display for MpsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, pod, environment, threads } = self;
        write!(f, "{namespace}/{pod}")?;
        environment.iter().try_for_each(|variable| write!(f, "\n  {variable}"))?;
        write!(f, "\n  its daemon lets a process use {threads} % of the threads")
    }
}

/// Pods with MPS daemons, one after the other.
#[derive(Debug, Clone)]
pub struct MpsClients {
    /// In the order of their file.
    pub clients: Vec<MpsClient>,
}

impl fmt::Display for MpsClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.clients.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join("\n"))
    }
}

/// Pods that take turns on one GPU, one that has another GPU for itself, and how the GPUs of their node are set.
#[derive(Debug, Clone)]
pub struct SideBySide {
    /// Those that take turns.
    pub turns: Vec<PodSaw>,
    /// The one that does not.
    pub exclusive: PodSaw,
    /// Of the node of the latter.
    pub settings: Vec<GpuSetting>,
}

impl fmt::Display for SideBySide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for pod in self.turns.iter().chain([&self.exclusive]) {
            writeln!(f, "{pod}")?;
        }
        write!(f, "{} itself sees", self.exclusive.node)?;
        let used = self.turns.iter().chain([&self.exclusive]).flat_map(|pod| pod.seen.uuids()).collect::<Vec<_>>();
        let mut settings = self.settings.iter().filter(|setting| used.contains(&setting.uuid.as_str()));
        settings.try_for_each(|setting| write!(f, "\n  {setting}"))
    }
}

/// What is said to pods whose wishes cannot be fulfilled.
#[derive(Debug, Clone)]
pub struct InvalidConfig {
    /// By template or pod.
    pub answers: BTreeMap<String, String>,
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.answers.iter().map(|(pod, answer)| format!("{pod}\n  {answer}")).collect();
        f.write_str(&texts.join("\n"))
    }
}

/// Three namespaces, one GPU, each with its limits.
pub fn mps_shares(stage: &Stage<'_>) -> Result<MpsClients> {
    stage.with("mps-shares.yaml", || mps_clients(stage, TEAMS.map(|team| (team, "share"))))
}

/// Four pods that take turns on one GPU, and one on the same node that has another GPU for itself.
pub fn side_by_side(stage: &Stage<'_>) -> Result<SideBySide> {
    stage.with("time-slicing-shares.yaml", || {
        stage.wait_for_deployment("time-slicing-shares")?;
        let turns = stage.all_saw("time-slicing-shares")?;
        stage.with("exclusive.yaml", || {
            let exclusive = stage.saw("exclusive")?;
            let settings = settings::of_node(stage.cluster, &exclusive.node)?;
            Ok(SideBySide { turns, exclusive, settings })
        })
    })
}

/// One claim with a daemon of its own for three pods, and one with a MIG device for two.
pub fn mps_claims(stage: &Stage<'_>) -> Result<MpsClients> {
    let pods = ["mps-claim-a", "mps-claim-b", "mps-claim-c", "mig-mps-a", "mig-mps-b"];
    stage.with("mps-claim.yaml", || stage.with("mig-mps.yaml", || mps_clients(stage, pods.map(|pod| ("default", pod)))))
}

/// Templates with wishes that cannot be fulfilled, and the sentences they are refused with; pods with such wishes, and the
/// sentences in their events.
pub fn invalid_config(stage: &Stage<'_>) -> Result<InvalidConfig> {
    let mut refused = stage.refused("wrong-configurations.yaml")?;
    stage.with("invalid-config.yaml", || {
        let answered = || {
            let pods = list(stage.cluster, &["pods", "-l", "app=invalid-config"])?;
            let events = list(stage.cluster, &["events", "--field-selector", "involvedObject.kind=Pod"])?;
            let answer = |pod: &str| {
                let of_pod = |reason: &str| {
                    let mut of_pod = events.iter().filter(|event| text(event, "/involvedObject/name") == pod);
                    of_pod
                        .find(|event| text(event, "/reason") == reason)
                        .map(|event| text(event, "/message").to_owned())
                };
                // Before a claim is made from its template the scheduler complains as well; it is the driver's word that counts.
                let scheduler =
                    || of_pod("FailedScheduling").filter(|text| text.contains("cannot allocate all claims"));
                of_pod("FailedPrepareDynamicResources").or_else(scheduler)
            };
            let names = pods.iter().map(|pod| text(pod, "/metadata/name").to_owned());
            let answers = names.map(|pod| answer(&pod).map(|answer| (pod, answer)));
            Ok(answers.collect::<Option<BTreeMap<_, _>>>())
        };
        let answers = stage.cluster.wait_until("an answer to every pod", LIMIT, answered);
        refused.extend(answers.doing("wait for the answers")?);
        Ok(InvalidConfig { answers: refused })
    })
}

fn mps_clients<'a>(stage: &Stage<'_>, pods: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<MpsClients> {
    let client = |(namespace, name): (&str, &str)| {
        let pod = stage.saw_in(namespace, name, "main")?;
        let environment = stage.run_in(namespace, name, "env | grep ^CUDA_MPS_ | sort")?;
        let ask = "echo get_default_active_thread_percentage | nvidia-cuda-mps-control";
        let threads = stage.run_in(namespace, name, ask)?.trim().to_owned();
        let environment = environment.lines().map(str::to_owned).collect();
        Ok(MpsClient { namespace: namespace.to_owned(), pod, environment, threads })
    };
    Ok(MpsClients { clients: pods.into_iter().map(client).collect::<Result<_>>()? })
}
