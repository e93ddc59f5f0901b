// SPDX-License-Identifier: Apache-2.0
//! Several claims, or several pods of a claim, on one GPU.

use crate::{
    error::{Doing, Result},
    settings::{self, GpuSetting},
    stage::{PodSaw, Stage, list, text},
};
use std::{collections::BTreeMap, fmt, time::Duration};

/// The namespaces of `mps-shares.yaml`, each with a pod `share`.
pub const TEAMS: [&str; 3] = ["mps-red", "mps-green", "mps-blue"];

const LIMIT: Duration = Duration::from_mins(1);

/// A pod with an MPS daemon, as seen from its container.
#[derive(Debug, Clone)]
pub struct MpsClient {
    pub namespace: String,
    pub pod: PodSaw,
    /// The variables `CUDA_MPS_…` of its container, sorted.
    pub environment: Vec<String>,
    /// The daemon's answer to `get_default_active_thread_percentage`.
    pub threads: String,
}

impl fmt::Display for MpsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, pod, environment, threads } = self;
        write!(f, "{namespace}/{pod}")?;
        environment.iter().try_for_each(|variable| write!(f, "\n  {variable}"))?;
        write!(f, "\n  the MPS daemon allows a process {threads} % of the threads")
    }
}

/// Pods with MPS daemons.
#[derive(Debug, Clone)]
pub struct MpsClients {
    /// In the order of the file.
    pub clients: Vec<MpsClient>,
}

impl fmt::Display for MpsClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.clients.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join("\n"))
    }
}

/// Pods that share one GPU by time-slicing, a pod with an exclusive GPU, and the settings of the GPUs of their node.
#[derive(Debug, Clone)]
pub struct SideBySide {
    /// The pods with time-slicing.
    pub time_slicing: Vec<PodSaw>,
    pub exclusive: PodSaw,
    /// Settings of the GPUs of the node.
    pub settings: Vec<GpuSetting>,
}

impl fmt::Display for SideBySide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for pod in self.time_slicing.iter().chain([&self.exclusive]) {
            writeln!(f, "{pod}")?;
        }
        write!(f, "settings on {}", self.exclusive.node)?;
        let used =
            self.time_slicing.iter().chain([&self.exclusive]).flat_map(|pod| pod.seen.uuids()).collect::<Vec<_>>();
        let mut settings = self.settings.iter().filter(|setting| used.contains(&setting.uuid.as_str()));
        settings.try_for_each(|setting| write!(f, "\n  {setting}"))
    }
}

/// The errors for templates and pods with an invalid configuration.
#[derive(Debug, Clone)]
pub struct InvalidConfig {
    /// By name of the template or pod.
    pub answers: BTreeMap<String, String>,
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.answers.iter().map(|(pod, answer)| format!("{pod}\n  {answer}")).collect();
        f.write_str(&texts.join("\n"))
    }
}

/// Three namespaces share one GPU, each with its own limits.
pub fn mps_shares(stage: &Stage<'_>) -> Result<MpsClients> {
    stage.with("mps-shares.yaml", || mps_clients(stage, TEAMS.map(|team| (team, "share"))))
}

/// Four pods share one GPU by time-slicing, and a pod on the same node has an exclusive GPU.
pub fn side_by_side(stage: &Stage<'_>) -> Result<SideBySide> {
    stage.with("time-slicing-shares.yaml", || {
        stage.wait_for_deployment("time-slicing-shares")?;
        let time_slicing = stage.all_saw("time-slicing-shares")?;
        stage.with("exclusive.yaml", || {
            let exclusive = stage.saw("exclusive")?;
            let settings = settings::of_node(stage.cluster, &exclusive.node)?;
            Ok(SideBySide { time_slicing, exclusive, settings })
        })
    })
}

/// One claim with an MPS daemon for three pods, and one with a MIG device for two pods.
pub fn mps_claims(stage: &Stage<'_>) -> Result<MpsClients> {
    let pods = ["mps-claim-a", "mps-claim-b", "mps-claim-c", "mig-mps-a", "mig-mps-b"];
    stage.with("mps-claim.yaml", || stage.with("mig-mps.yaml", || mps_clients(stage, pods.map(|pod| ("default", pod)))))
}

/// Templates and pods with an invalid configuration: the errors at creation, and the messages of the Events of the pods.
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
                // Before the claim is created from its template, the scheduler records another Event with the same reason.
                let scheduler =
                    || of_pod("FailedScheduling").filter(|text| text.contains("cannot allocate all claims"));
                of_pod("FailedPrepareDynamicResources").or_else(scheduler)
            };
            let names = pods.iter().map(|pod| text(pod, "/metadata/name").to_owned());
            let answers = names.map(|pod| answer(&pod).map(|answer| (pod, answer)));
            Ok(answers.collect::<Option<BTreeMap<_, _>>>())
        };
        let answers = stage.cluster.wait_until("an Event for every pod", LIMIT, answered);
        refused.extend(answers.doing("wait for the Events")?);
        Ok(InvalidConfig { answers: refused })
    })
}

fn mps_clients<'a>(stage: &Stage<'_>, pods: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<MpsClients> {
    let client = |(namespace, name): (&str, &str)| {
        let pod = stage.saw_in(namespace, name, "main")?;
        let environment = stage.run_in(namespace, name, "env | grep ^CUDA_MPS_ | sort")?;
        let query = "echo get_default_active_thread_percentage | nvidia-cuda-mps-control";
        let threads = stage.run_in(namespace, name, query)?.trim().to_owned();
        let environment = environment.lines().map(str::to_owned).collect();
        Ok(MpsClient { namespace: namespace.to_owned(), pod, environment, threads })
    };
    Ok(MpsClients { clients: pods.into_iter().map(client).collect::<Result<_>>()? })
}
