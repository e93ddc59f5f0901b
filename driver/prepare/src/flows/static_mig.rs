// SPDX-License-Identifier: Apache-2.0
//! Gives a GPU the static MIG devices that an administrator wants on it.
//!
//! Nothing that exists is changed. A GPU in MIG mode gets them beside its other MIG devices, a whole GPU while no claim uses it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use dra_hardware::GpuError;
use dra_model::{Advice, Gpu, GpuUuid, MigMode, Placement};

use crate::decide::static_mig::{NoPlan, StaticMig, plan};
use crate::effects::error::EffectError;
use crate::effects::tools::Tools;
use crate::effects::{ledger, static_mig};
use crate::state::call::Call;
use crate::state::lock_error::NotLocked;
use crate::state::locks::Guarantee;
use crate::state::node::Node;
use crate::state::other_claims::{OtherClaims, OtherClaimsError};
use crate::state::references::Caller;

/// Why a GPU did not get all of its static MIG devices. Those that it got stay.
#[derive(Debug, thiserror::Error)]
pub enum StaticMigError {
    #[error("{gpu} cannot be read")]
    Read {
        gpu: GpuUuid,
        #[source]
        source: Box<GpuError>,
    },
    #[error("{gpu} does not support MIG")]
    Unsupported { gpu: GpuUuid },
    #[error("MIG mode of {gpu} is off and is turned on only by a reset")]
    NeedsReset { gpu: GpuUuid },
    #[error("{gpu} cannot be divided while {holder} uses it as a whole")]
    InUse { gpu: GpuUuid, holder: String },
    #[error("{gpu} cannot be divided before its original settings are restored")]
    RestorePending { gpu: GpuUuid },
    #[error("{gpu} cannot be divided as configured")]
    NoPlan {
        gpu: GpuUuid,
        #[source]
        source: NoPlan,
    },
    #[error("failed to create a static MIG device")]
    Effect(#[source] EffectError),
    #[error("failed to lock {gpu}")]
    Lock {
        gpu: GpuUuid,
        #[source]
        source: NotLocked,
    },
    #[error("failed to read which claims use {gpu}")]
    OtherClaims {
        gpu: GpuUuid,
        #[source]
        source: OtherClaimsError,
    },
}

impl Advice for StaticMigError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::NeedsReset { gpu } => Some(
                format!(
                    "drain the node, then `nvidia-smi -i {gpu} -mig 1` and `nvidia-smi -i {gpu} --gpu-reset`, or reboot"
                )
                .into(),
            ),
            Self::InUse { .. } => Some("delete its pods, or leave the GPU out of the configuration".into()),
            Self::NoPlan { source: NoPlan::Profile { .. }, .. } | Self::Unsupported { .. } => {
                Some("limit the entry of the configuration to other GPUs with device-filter or devices".into())
            }
            Self::NoPlan { source: NoPlan::Room { .. }, .. } => {
                Some("destroy what is in the way (`nvidia-smi mig -dci` and `-dgi`), or configure less".into())
            }
            Self::Read { source, .. } => source.advice(),
            Self::Effect(source) => source.advice(),
            Self::Lock { source, .. } => source.advice(),
            Self::OtherClaims { source, .. } => source.advice(),
            Self::RestorePending { .. } => None,
        }
    }
}

/// Creates what is missing, and returns the names of the devices that were created.
pub(crate) fn create(
    node: &Node,
    gpu: &GpuUuid,
    wanted: &[StaticMig],
    call: &Call<'_>,
) -> Result<Vec<String>, StaticMigError> {
    let lock = node.lock_gpu(gpu, gpu.to_string(), HOLDER, call.lock_deadline, Guarantee::AllInstances);
    let _lock = lock.map_err(|source| StaticMigError::Lock { gpu: gpu.clone(), source })?;
    let others = OtherClaims::read(node).map_err(|source| StaticMigError::OtherClaims { gpu: gpu.clone(), source })?;
    let boot_id = node.host.boot_id().ok();
    let tools = Tools::new(node, Caller::None, &others, boot_id.as_deref(), call);
    let before = read(gpu, &tools)?;
    let turned_on = turn_mode_on(&before, wanted, &tools)?;
    let created = create_missing(gpu, wanted, &tools);
    let after = read(gpu, &tools)?;
    if turned_on && created.is_err() && after.gpu_instances().is_empty() {
        static_mig::turn_mode_off(gpu, &tools);
    }
    created?;
    static_mig::keep_mode(gpu, &tools).map_err(StaticMigError::Effect)?;
    let names = |gpu: &Gpu| -> BTreeSet<String> {
        let names = node.host.latest().names();
        gpu.mig_devices().iter().map(|mig| names.mig(&mig.identity)).collect()
    };
    Ok(names(&after).difference(&names(&before)).cloned().collect())
}

/// How the lock of a GPU names this work.
const HOLDER: &str = "the creation of static MIG devices";

fn read(gpu: &GpuUuid, tools: &Tools<'_>) -> Result<Gpu, StaticMigError> {
    tools.host.gpu(gpu).map_err(|source| StaticMigError::Read { gpu: gpu.clone(), source: Box::new(source) })
}

/// Turns MIG mode on where it is off, if the devices then have room, and returns whether it was off.
fn turn_mode_on(gpu: &Gpu, wanted: &[StaticMig], tools: &Tools<'_>) -> Result<bool, StaticMigError> {
    let uuid = gpu.uuid.clone();
    let layout = match &gpu.mig {
        MigMode::On { .. } => return Ok(false),
        MigMode::Unsupported => return Err(StaticMigError::Unsupported { gpu: uuid }),
        MigMode::Off(layout) => layout,
    };
    plan(gpu, layout, wanted, &[]).map_err(|source| StaticMigError::NoPlan { gpu: uuid.clone(), source })?;
    if !layout.resetless {
        return Err(StaticMigError::NeedsReset { gpu: uuid });
    }
    if let Some(holder) = tools.references.holder_of(&uuid) {
        return Err(StaticMigError::InUse { gpu: uuid, holder });
    }
    if ledger::load(&uuid, tools).map_err(StaticMigError::Effect)?.is_some() {
        return Err(StaticMigError::RestorePending { gpu: uuid });
    }
    static_mig::turn_mode_on(&uuid, tools).map_err(StaticMigError::Effect)?;
    Ok(true)
}

fn create_missing(gpu: &GpuUuid, wanted: &[StaticMig], tools: &Tools<'_>) -> Result<(), StaticMigError> {
    let gpu = read(gpu, tools)?;
    let Some(layout) = gpu.mig_layout() else { return Err(StaticMigError::Unsupported { gpu: gpu.uuid }) };
    let reserved = reserved(&gpu.uuid, tools)?;
    let additions = plan(&gpu, layout, wanted, &reserved);
    for addition in additions.map_err(|source| StaticMigError::NoPlan { gpu: gpu.uuid.clone(), source })? {
        static_mig::create(&addition, tools).map_err(StaticMigError::Effect)?;
    }
    Ok(())
}

/// Where partitions of claims are, or may be.
fn reserved(gpu: &GpuUuid, tools: &Tools<'_>) -> Result<Vec<(u32, Placement)>, StaticMigError> {
    let pending = ledger::load(gpu, tools).map_err(StaticMigError::Effect)?;
    let pending = pending.into_iter().flat_map(|ledger| ledger.partitions.into_keys());
    let all = tools.references.partitions_of(gpu).chain(pending);
    Ok(all.map(|identity| (identity.profile_id, identity.placement)).collect())
}
