// SPDX-License-Identifier: Apache-2.0
//! Types that several formats of claim records and GPU ledgers have in common. Frozen with them.

use std::collections::BTreeMap;

use dra_model::{
    Bytes, ClaimRef, ClaimUid, ComputeShare, DeviceKey, GpuUuid, MigIdentity, MigIds, MigUuid, Placement,
    ThreadPercentage,
};
use serde::{Deserialize, Serialize};

use crate::record::RecordedHardware;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Claim {
    namespace: String,
    name: String,
    uid: ClaimUid,
}

/// See [`super::claim_at`].
pub(crate) fn claim_at(bytes: &[u8]) -> Option<ClaimRef> {
    let claim: Claim = serde_json::Deserializer::from_slice(bytes).into_iter().next()?.ok()?;
    Some(claim.into())
}

impl From<&ClaimRef> for Claim {
    fn from(claim: &ClaimRef) -> Self {
        Self { namespace: claim.namespace.clone(), name: claim.name.clone(), uid: claim.uid.clone() }
    }
}

impl From<Claim> for ClaimRef {
    fn from(claim: Claim) -> Self {
        let Claim { namespace, name, uid } = claim;
        Self { namespace, name, uid }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mig {
    parent: GpuUuid,
    profile_id: u32,
    start: u32,
    size: u32,
    compute_start: u32,
    compute_slices: u32,
    compute_of: u32,
    uuid: MigUuid,
    gpu_instance: u32,
    compute_instance: u32,
    profile: String,
}

impl Mig {
    pub(super) fn of(identity: &MigIdentity, ids: &MigIds, profile: &str) -> Self {
        Self {
            parent: identity.parent.clone(),
            profile_id: identity.profile_id,
            start: identity.placement.start,
            size: identity.placement.size,
            compute_start: identity.share.start,
            compute_slices: identity.share.slices,
            compute_of: identity.share.of,
            uuid: ids.uuid.clone(),
            gpu_instance: ids.gpu_instance,
            compute_instance: ids.compute_instance,
            profile: profile.to_owned(),
        }
    }
}

impl From<Mig> for RecordedHardware {
    fn from(mig: Mig) -> Self {
        Self::Mig {
            identity: MigIdentity {
                parent: mig.parent,
                profile_id: mig.profile_id,
                placement: Placement { start: mig.start, size: mig.size },
                share: ComputeShare { start: mig.compute_start, slices: mig.compute_slices, of: mig.compute_of },
            },
            ids: MigIds { uuid: mig.uuid, gpu_instance: mig.gpu_instance, compute_instance: mig.compute_instance },
            profile: mig.profile,
        }
    }
}

/// A GPU instance with one compute instance that spans it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Instance {
    parent: GpuUuid,
    profile_id: u32,
    start: u32,
    size: u32,
    slices: u32,
}

impl From<&MigIdentity> for Instance {
    fn from(identity: &MigIdentity) -> Self {
        let MigIdentity { parent, profile_id, placement, share } = identity;
        let Placement { start, size } = *placement;
        Self { parent: parent.clone(), profile_id: *profile_id, start, size, slices: share.of }
    }
}

impl From<Instance> for MigIdentity {
    fn from(instance: Instance) -> Self {
        let Instance { parent, profile_id, start, size, slices } = instance;
        let share = ComputeShare { start: 0, slices, of: slices };
        Self { parent, profile_id, placement: Placement { start, size }, share }
    }
}

/// A closed set of words that the model has as well. Compilation fails when the two differ.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($word:ident = $text:literal),+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Serialize, Deserialize)]
        pub(crate) enum $name {
            $(#[serde(rename = $text)] $word),+
        }

        impl From<dra_model::$name> for $name {
            fn from(word: dra_model::$name) -> Self {
                match word {
                    $(dra_model::$name::$word => Self::$word),+
                }
            }
        }

        impl From<$name> for dra_model::$name {
            fn from(word: $name) -> Self {
                match word {
                    $($name::$word => Self::$word),+
                }
            }
        }
    };
}

words!(ComputeMode { Default = "default", Prohibited = "prohibited", ExclusiveProcess = "exclusiveProcess" });

words!(Interval { Default = "default", Short = "short", Medium = "medium", Long = "long" });

words!(SharedForm { Mps = "mps", TimeSlicing = "timeSlicing" });

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Settings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compute_mode: Option<ComputeMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interval: Option<Interval>,
}

impl From<dra_model::GpuSettings> for Settings {
    fn from(settings: dra_model::GpuSettings) -> Self {
        let dra_model::GpuSettings { compute_mode, interval } = settings;
        Self { compute_mode: compute_mode.map(Into::into), interval: interval.map(Into::into) }
    }
}

impl From<Settings> for dra_model::GpuSettings {
    fn from(settings: Settings) -> Self {
        let Settings { compute_mode, interval } = settings;
        Self { compute_mode: compute_mode.map(Into::into), interval: interval.map(Into::into) }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Limits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    threads: Option<ThreadPercentage>,
}

impl From<dra_model::ShareLimits> for Limits {
    fn from(limits: dra_model::ShareLimits) -> Self {
        let dra_model::ShareLimits { memory, threads } = limits;
        Self { memory, threads }
    }
}

impl From<Limits> for dra_model::ShareLimits {
    fn from(limits: Limits) -> Self {
        let Limits { memory, threads } = limits;
        Self { memory, threads }
    }
}

/// What a claim requests of its own MPS daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mps {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    threads: Option<ThreadPercentage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<Bytes>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    per_device: BTreeMap<DeviceKey, Bytes>,
    multi_user: bool,
}

impl From<dra_model::MpsConfig> for Mps {
    fn from(config: dra_model::MpsConfig) -> Self {
        let dra_model::MpsConfig { threads, memory, per_device, multi_user } = config;
        Self { threads, memory, per_device, multi_user }
    }
}

impl From<Mps> for dra_model::MpsConfig {
    fn from(config: Mps) -> Self {
        let Mps { threads, memory, per_device, multi_user } = config;
        Self { threads, memory, per_device, multi_user }
    }
}
