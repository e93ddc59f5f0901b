// SPDX-License-Identifier: Apache-2.0
//! The words of the domain: GPUs, MIG devices, claims and names.
//!
//! Plain values only: no I/O, no async, no Kubernetes and no NVML. The interfaces between crates use these types, so this
//! page is also the glossary:
//!
//! * **GPU**: one physical device, identified by its UUID. **MIG device**: one (GPU instance, compute instance) pair.
//! * **placement**: position of a GPU instance, `start` and `size` in memory slices. **profile**: its size.
//! * **inventory**: the GPUs of a node at one moment. A broken GPU affects only its own entry.
//! * **device**: unit of publishing and allocation. Its name is a function of hardware identity, never of an index.
//! * **claim**: the part of a ResourceClaim for this driver. An **allocation result** names one device for one request.
//! * **ledger**: record of the original settings of one GPU, defined in `dra-checkpoint`.
//!
//! Reading order: [`ids`], [`engines`], [`mig`], [`gpu`], [`inventory`], [`finding`], [`device`], [`quantity`], [`sharing`], [`capability`],
//! [`config`], [`claim`], [`files`], [`disposition`], [`explain`], [`claim_report`], [`node_check`].

pub mod ids;

pub mod engines;

pub mod mig;

pub mod gpu;

mod unreported;

pub mod partition;

pub mod preference;

pub mod room;

pub mod inventory;

pub mod finding;

pub mod device;

pub mod quantity;

pub mod sharing;

pub mod capability;

pub mod config;

pub mod claim;

pub mod files;

pub mod disposition;

pub mod explain;

pub mod claim_report;

pub mod node_check;

pub use capability::{Capabilities, Capability};
pub use claim::{AllocatedDevice, Claim, ClaimConfig, ClaimRef, ConfigSource};
pub use device::{Device, DeviceNames, LiveIdentity};
pub use disposition::Disposition;
pub use engines::Engines;
pub use explain::{Advice, chain, explain};
pub use files::{ControlNode, DeviceNode, DriverFile, DriverFiles, Place, PlacedFile};
pub use finding::{Cause, Effect, Finding, Slowdown, Verdict, worst};
pub use gpu::{Gpu, MigLayout, MigMode};
pub use ids::{
    Bytes, ClaimUid, DaemonId, DeviceName, GpuUuid, IdError, MigUuid, NodeName, PciAddress, PciIds, ShareId, Version,
};
pub use inventory::{DriverState, Failure, Fault, GpuEntry, Health, Inventory};
pub use mig::{ComputeShare, GpuInstance, MigDevice, MigIdentity, MigIds, MigOrigin, MigProfile, Placement};
pub use partition::Partition;
pub use preference::by_preference;
pub use sharing::{
    ComputeMode, DeviceKey, GpuSettings, Interval, MpsConfig, ShareLimits, SharedForm, Sharing, ThreadPercentage,
};
