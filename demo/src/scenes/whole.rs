// SPDX-License-Identifier: Apache-2.0
//! Whole GPUs.

use crate::{
    error::Result,
    stage::{PodSaw, Stage},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// The GPUs of ten pods with one GPU each.
#[derive(Debug, Clone)]
pub struct TenGpus {
    pub pods: Vec<PodSaw>,
}

impl TenGpus {
    /// The UUIDs of all pods, each once.
    pub fn uuids(&self) -> BTreeSet<&str> {
        self.pods.iter().flat_map(|pod| pod.seen.uuids()).collect()
    }
}

impl fmt::Display for TenGpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pods see {} different GPUs", self.pods.len(), self.uuids().len())?;
        let mut models = BTreeMap::<_, usize>::new();
        for pod in &self.pods {
            let names = pod.seen.gpus.iter().map(|gpu| gpu.name.as_str());
            names.for_each(|name| *models.entry((pod.node.as_str(), name)).or_default() += 1);
        }
        models.iter().try_for_each(|((node, name), count)| write!(f, "\n  on {node}  {count} x {name}"))
    }
}

/// A Deployment with an extended resource, and the claim that Kubernetes created for it.
#[derive(Debug, Clone)]
pub struct OldDeployment {
    /// The GPUs of its pod.
    pub pod: PodSaw,
    /// Name of the claim.
    pub claim: String,
}

impl fmt::Display for OldDeployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kubernetes created the claim {}\n{}", self.claim, self.pod)
    }
}

/// One GPU with a claim template.
pub fn one_gpu(stage: &Stage<'_>) -> Result<PodSaw> {
    stage.with("one-gpu.yaml", || stage.saw("one-gpu"))
}

/// Ten pods with a GPU each.
pub fn ten_gpus(stage: &Stage<'_>) -> Result<TenGpus> {
    stage.with("ten-gpus.yaml", || {
        stage.wait_for_deployment("ten-gpus")?;
        Ok(TenGpus { pods: stage.all_saw("ten-gpus")? })
    })
}

/// A GPU selected by model and memory.
pub fn by_model_and_memory(stage: &Stage<'_>) -> Result<PodSaw> {
    stage.with("by-model-and-memory.yaml", || stage.saw("by-model-and-memory"))
}

/// `nvidia.com/gpu: 1` without a claim.
pub fn old_deployment(stage: &Stage<'_>) -> Result<OldDeployment> {
    stage.with("extended-resource.yaml", || {
        stage.wait_for_deployment("extended-resource")?;
        let pod = stage.only_pod_of("extended-resource")?;
        Ok(OldDeployment { claim: stage.claim_of(&pod)?, pod: stage.saw(&pod)? })
    })
}
