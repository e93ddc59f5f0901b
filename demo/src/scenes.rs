// SPDX-License-Identifier: Apache-2.0
//! One function per feature, and the order in which the demo shows them.
//!
//! Each returns what was seen; `Display` of the answer is what a reader of the demo is shown.

mod explained;
mod mig;
mod several;
mod sharing;
mod whole;

pub use explained::{DescribedClaim, Unsatisfied, cannot_be_satisfied, described_claim, described_slices};
pub use mig::{CUT, MigCut, cut_into_mig, mig_by_profile};
pub use several::{SeveralRequests, SharedClaim, several_requests, shared_claim};
pub use sharing::{
    InvalidConfig, MpsClient, MpsClients, SideBySide, TEAMS, invalid_config, mps_claims, mps_shares, side_by_side,
};
pub use whole::{OldDeployment, TenGpus, by_model_and_memory, old_deployment, one_gpu, ten_gpus};

use crate::{error::Result, stage::Stage};

/// A scene as the demo tells it.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    /// What it shows.
    pub title: &'static str,
    /// What happens, for someone who sees it for the first time.
    pub description: &'static str,
    /// What is typed, unless the answer tells.
    pub command: Option<&'static str>,
    /// Plays it and tells what was seen.
    pub play: fn(&Stage<'_>) -> Result<String>,
}

/// Scenes in the order of the demo. From the second on two of the eight H100 are cut into MIG devices.
pub const SCENES: [Scene; 15] = [
    Scene {
        title: "One GPU for one pod",
        description: "A ResourceClaimTemplate says \"any whole GPU\". Kubernetes makes a claim for the pod, picks a free GPU\n\
                and its node, and the driver hands over that one GPU. The image holds no NVIDIA file: nvidia-smi and\n\
                the libraries come with the device.",
        command: Some("kubectl apply -f demo/workloads/one-gpu.yaml"),
        play: |stage| Ok(one_gpu(stage)?.to_string()),
    },
    Scene {
        title: "An administrator cuts two GPUs into MIG devices",
        description: "Nobody tells the driver: it notices, and the slices offer parts in place of the two whole GPUs.",
        command: None,
        play: |stage| Ok(cut_into_mig(stage)?.to_string()),
    },
    Scene {
        title: "A part of a GPU, by MIG profile",
        description: "The claim selects by CEL: device.attributes[\"gpu.nvidia.com\"].profile == \"1g.10gb\".",
        command: Some("kubectl apply -f demo/workloads/mig-by-profile.yaml"),
        play: |stage| Ok(mig_by_profile(stage)?.to_string()),
    },
    Scene {
        title: "Ten pods, ten GPUs, two nodes",
        description: "A Deployment of ten pods takes every whole GPU that is left. No GPU is given twice.",
        command: Some("kubectl apply -f demo/workloads/ten-gpus.yaml"),
        play: |stage| Ok(ten_gpus(stage)?.to_string()),
    },
    Scene {
        title: "A GPU by model and memory",
        description: "An A100 with 39 GiB or more. No node labels: the scheduler looks at the devices and finds the node.",
        command: Some("kubectl apply -f demo/workloads/by-model-and-memory.yaml"),
        play: |stage| Ok(by_model_and_memory(stage)?.to_string()),
    },
    Scene {
        title: "Two pods share one claim",
        description: "Both name the same ResourceClaim, so both run where its GPU is and see the same UUID.",
        command: Some("kubectl apply -f demo/workloads/shared-claim.yaml"),
        play: |stage| Ok(shared_claim(stage)?.to_string()),
    },
    Scene {
        title: "An old Deployment, unchanged",
        description: "It asks for nvidia.com/gpu: 1 as it did with the device plugin. The class gpu.nvidia.com stands for that\n\
                name, so Kubernetes makes the claim by itself.",
        command: Some("kubectl apply -f demo/workloads/extended-resource.yaml"),
        play: |stage| Ok(old_deployment(stage)?.to_string()),
    },
    Scene {
        title: "Several requests in one claim",
        description: "Two GPUs of one model, a MIG device, and the best of two choices; each container gets its own request.",
        command: Some("kubectl apply -f demo/workloads/several-requests.yaml"),
        play: |stage| Ok(several_requests(stage)?.to_string()),
    },
    Scene {
        title: "Three teams on one GPU at the same time, by MPS",
        description: "Each has its own namespace and claim, for a share with so much memory and so many of the threads. The\n\
                scheduler adds up what it gave away; the driver starts one MPS daemon for all of them.",
        command: Some("kubectl apply -f demo/workloads/mps-shares.yaml"),
        play: |stage| Ok(mps_shares(stage)?.to_string()),
    },
    Scene {
        title: "Four pods take turns on one GPU; a fifth has another for itself",
        description: "Nobody configured the node: each claim says how its GPU is shared, and all strategies live side by side.",
        command: Some("kubectl apply -f demo/workloads/time-slicing-shares.yaml -f demo/workloads/exclusive.yaml"),
        play: |stage| Ok(side_by_side(stage)?.to_string()),
    },
    Scene {
        title: "A claim with an MPS daemon of its own, on a GPU and on a MIG device",
        description: "Its configuration sets limits for each process. The daemon starts with the first of its pods and ends with\n\
                the last.",
        command: Some("kubectl apply -f demo/workloads/mps-claim.yaml -f demo/workloads/mig-mps.yaml"),
        play: |stage| Ok(mps_claims(stage)?.to_string()),
    },
    Scene {
        title: "What is there: the slices",
        description: "Everything a claim can select by, as the driver publishes it. Here is one device of many.",
        command: Some("kubectl describe resourceslices"),
        play: |stage| described_slices(stage).map(|text| explained::first_device(&text)),
    },
    Scene {
        title: "What happened to a claim",
        description: "The claim itself says which hardware it became, and its events say when.",
        command: Some("kubectl describe resourceclaim"),
        play: |stage| Ok(described_claim(stage)?.to_string()),
    },
    Scene {
        title: "A claim that cannot be satisfied",
        description: "It asks for a model that no node has. The pod waits, and says why.",
        command: Some(
            "kubectl apply -f demo/workloads/cannot-be-satisfied.yaml; kubectl describe pod cannot-be-satisfied",
        ),
        play: |stage| Ok(cannot_be_satisfied(stage)?.to_string()),
    },
    Scene {
        title: "Wrong wishes and their answers",
        description: "What the configuration alone shows is refused at once. Else the pod waits, and its event tells. Both name the\n\
                field, the reason and what to write instead.",
        command: Some(
            "kubectl apply -f demo/workloads/wrong-configurations.yaml -f demo/workloads/invalid-config.yaml; \
             kubectl describe pod -l app=invalid-config",
        ),
        play: |stage| Ok(invalid_config(stage)?.to_string()),
    },
];
