// SPDX-License-Identifier: Apache-2.0
//! One function per feature, and their order in the demo.
//!
//! Each returns its observations; the demo prints them with `Display`.

mod explained;
mod health;
mod mig;
mod several;
mod sharing;
mod whole;

pub use explained::{DescribedClaim, Unsatisfied, cannot_be_satisfied, described_claim, described_slices};
pub use health::{GpuFails, gpu_fails};
pub use mig::{CUT, MigCut, OnDemand, cut_into_mig, mig_by_profile, mig_on_demand, old_mig_pod};
pub use several::{SeveralRequests, SharedClaim, several_requests, shared_claim};
pub use sharing::{
    InvalidConfig, MpsClient, MpsClients, SideBySide, TEAMS, invalid_config, mps_claims, mps_shares, side_by_side,
};
pub use whole::{OldDeployment, TenGpus, by_model_and_memory, old_deployment, one_gpu, ten_gpus};

use crate::{error::Result, stage::Stage};

/// A scene of the demo.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    pub title: &'static str,
    /// What happens, for a first-time reader.
    pub description: &'static str,
    /// The command, unless the output has it.
    pub command: Option<&'static str>,
    /// Runs the scene and returns its output.
    pub play: fn(&Stage<'_>) -> Result<String>,
}

/// Scenes in the order of the demo. From the third scene on two of the eight H100 have MIG devices of an administrator.
pub const SCENES: [Scene; 18] = [
    Scene {
        title: "One GPU for one pod",
        description: "A ResourceClaimTemplate requests any whole GPU. Kubernetes creates a claim for the pod and allocates a\n\
                free GPU, and the driver prepares it for the container. The image contains no NVIDIA files: nvidia-smi\n\
                and the libraries are mounted with the device.",
        command: Some("kubectl apply -f demo/workloads/one-gpu.yaml"),
        play: |stage| Ok(one_gpu(stage)?.to_string()),
    },
    Scene {
        title: "An idle GPU is divided as its pods start, and is whole again after them",
        description: "Three pods each claim a MIG device of another size. The driver turns MIG mode on, creates the devices and\n\
                destroys them after the pods. Meanwhile a pod that wants this GPU as a whole waits.",
        command: Some("kubectl apply -f demo/workloads/mig-on-demand.yaml"),
        play: |stage| Ok(mig_on_demand(stage)?.to_string()),
    },
    Scene {
        title: "An administrator creates MIG devices on two GPUs",
        description: "The driver detects the MIG devices and publishes them instead of the two whole GPUs. What they leave of these\n\
                GPUs is still divided on demand.",
        command: None,
        play: |stage| Ok(cut_into_mig(stage)?.to_string()),
    },
    Scene {
        title: "A MIG device by profile",
        description: "The claim selects with CEL: device.attributes[\"gpu.nvidia.com\"].profile == \"1g.10gb\".",
        command: Some("kubectl apply -f demo/workloads/mig-by-profile.yaml"),
        play: |stage| Ok(mig_by_profile(stage)?.to_string()),
    },
    Scene {
        title: "A pod with MIG for the device plugin, unchanged",
        description: "It requests nvidia.com/mig-1g.10gb: 1 under limits, without a claim. The chart has a class for each profile of the\n\
                GPU models that its values list.",
        command: Some("kubectl apply -f demo/workloads/mig-extended-resource.yaml"),
        play: |stage| Ok(old_mig_pod(stage)?.to_string()),
    },
    Scene {
        title: "Ten pods, ten GPUs, two nodes",
        description: "A Deployment of ten pods gets all remaining whole GPUs. No GPU is allocated twice.",
        command: Some("kubectl apply -f demo/workloads/ten-gpus.yaml"),
        play: |stage| Ok(ten_gpus(stage)?.to_string()),
    },
    Scene {
        title: "A GPU by model and memory",
        description: "An A100 with 39 GiB or more. No node labels are needed: the scheduler selects by the devices.",
        command: Some("kubectl apply -f demo/workloads/by-model-and-memory.yaml"),
        play: |stage| Ok(by_model_and_memory(stage)?.to_string()),
    },
    Scene {
        title: "Two pods share one claim",
        description: "Both use the same ResourceClaim, so both run on the node of its GPU and have the same UUID.",
        command: Some("kubectl apply -f demo/workloads/shared-claim.yaml"),
        play: |stage| Ok(shared_claim(stage)?.to_string()),
    },
    Scene {
        title: "A Deployment for the device plugin, unchanged",
        description: "It requests nvidia.com/gpu: 1 as with the device plugin. The class gpu.nvidia.com has this extended resource\n\
                name, so Kubernetes creates the claim.",
        command: Some("kubectl apply -f demo/workloads/extended-resource.yaml"),
        play: |stage| Ok(old_deployment(stage)?.to_string()),
    },
    Scene {
        title: "Several requests in one claim",
        description: "Two GPUs of one model, a MIG device, and the first available of two alternatives; each container gets one request.",
        command: Some("kubectl apply -f demo/workloads/several-requests.yaml"),
        play: |stage| Ok(several_requests(stage)?.to_string()),
    },
    Scene {
        title: "Three teams on one GPU at the same time, by MPS",
        description: "Each has its own namespace and claim for a share with an amount of memory and threads. The scheduler\n\
                accounts for the amounts; the driver starts one MPS daemon for the GPU.",
        command: Some("kubectl apply -f demo/workloads/mps-shares.yaml"),
        play: |stage| Ok(mps_shares(stage)?.to_string()),
    },
    Scene {
        title: "Four pods share one GPU by time-slicing; a fifth has an exclusive GPU",
        description: "The node needs no configuration: each claim chooses a strategy, and all strategies work on one node.",
        command: Some("kubectl apply -f demo/workloads/time-slicing-shares.yaml -f demo/workloads/exclusive.yaml"),
        play: |stage| Ok(side_by_side(stage)?.to_string()),
    },
    Scene {
        title: "A claim with an MPS daemon of its own, on a GPU and on a MIG device",
        description: "Its configuration sets limits for each process. The daemon starts with the first pod of the claim and stops\n\
                with the last.",
        command: Some("kubectl apply -f demo/workloads/mps-claim.yaml -f demo/workloads/mig-mps.yaml"),
        play: |stage| Ok(mps_claims(stage)?.to_string()),
    },
    Scene {
        title: "Published devices: the ResourceSlices",
        description: "The attributes and capacities that a claim can select, of one device.",
        command: Some("kubectl describe resourceslices"),
        play: |stage| described_slices(stage).map(|text| explained::first_device(&text)),
    },
    Scene {
        title: "Status and Events of a claim",
        description: "The status has the allocated hardware, and the Events have the times.",
        command: Some("kubectl describe resourceclaim"),
        play: |stage| Ok(described_claim(stage)?.to_string()),
    },
    Scene {
        title: "A claim that cannot be satisfied",
        description: "It requests a model that no node has. The pod stays pending, and its Event has the reason.",
        command: Some(
            "kubectl apply -f demo/workloads/cannot-be-satisfied.yaml; kubectl describe pod cannot-be-satisfied",
        ),
        play: |stage| Ok(cannot_be_satisfied(stage)?.to_string()),
    },
    Scene {
        title: "Invalid configurations and their errors",
        description: "A configuration that is invalid on any device is refused at creation; otherwise the pod waits with an Event. Both\n\
                have the field, the reason and the correction.",
        command: Some(
            "kubectl apply -f demo/workloads/wrong-configurations.yaml -f demo/workloads/invalid-config.yaml; \
             kubectl describe pod -l app=invalid-config",
        ),
        play: |stage| Ok(invalid_config(stage)?.to_string()),
    },
    Scene {
        title: "A GPU fails, its pod moves, and the GPU comes back",
        description: "One of the GPUs of a Deployment falls off the bus. The driver taints it in all of its forms, Kubernetes evicts the\n\
                pod, and its replacement gets another GPU. After a reset the GPU must answer twice before claims get it again.",
        command: Some("kubectl apply -f demo/workloads/gpu-fails.yaml"),
        play: |stage| Ok(gpu_fails(stage)?.to_string()),
    },
];
