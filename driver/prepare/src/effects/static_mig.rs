// SPDX-License-Identifier: Apache-2.0
//! Creates static MIG devices, which are an administrator's from then on: no record names them, and this driver destroys none.
//!
//! A process that is killed leaves a part of them, which the next one completes.

use dra_checkpoint::GpuLedger;
use dra_hardware::GpuError;
use dra_model::{ComputeShare, GpuUuid, MigIdentity, explain};
use tracing::warn;

use crate::decide::static_mig::Addition;
use crate::effects::error::EffectError;
use crate::effects::tools::Tools;
use crate::effects::{ledger, mig_mode};

/// Creates an instance and what is in it. A GPU instance whose compute instance fails is destroyed.
pub(crate) fn create(addition: &Addition, tools: &Tools<'_>) -> Result<(), EffectError> {
    let whole = &addition.gpu_instance;
    let failed = |source: GpuError| EffectError::Create {
        identity: whole.clone(),
        occupied: Vec::new(),
        source: Box::new(source),
    };
    if !addition.exists {
        tools.host.create_gpu_instance(whole).map_err(failed)?;
    }
    for (at, slices) in addition.compute_instances.iter().enumerate() {
        let device = MigIdentity { share: ComputeShare { slices: *slices, ..whole.share }, ..whole.clone() };
        if let Err(source) = tools.host.create_compute_instance(&device) {
            if at == 0 && !addition.exists {
                destroy(whole, tools);
            }
            return Err(failed(source));
        }
    }
    Ok(())
}

/// Destroys the GPU instance that was just created, without a compute instance.
fn destroy(whole: &MigIdentity, tools: &Tools<'_>) {
    if let Err(error) = tools.host.destroy_gpu_instance(whole) {
        warn!(gpu = %whole.parent, error = explain(&error), "GPU instance without a compute instance stays");
    }
}

/// Turns MIG mode on as an administrator would.
pub(crate) fn turn_mode_on(gpu: &GpuUuid, tools: &Tools<'_>) -> Result<(), EffectError> {
    mig_mode::set(gpu, true, tools)
}

/// Turns MIG mode off again, because nothing was created. A failure leaves the mode to the administrator.
pub(crate) fn turn_mode_off(gpu: &GpuUuid, tools: &Tools<'_>) {
    if let Err(error) = mig_mode::set(gpu, false, tools) {
        warn!(%gpu, error = explain(&error), "MIG mode stays on");
    }
}

/// Leaves MIG mode that was turned on for a claim to the administrator, whose devices need it.
pub(crate) fn keep_mode(gpu: &GpuUuid, tools: &Tools<'_>) -> Result<(), EffectError> {
    match ledger::load(gpu, tools)? {
        Some(ledger) if ledger.mig_mode_on => ledger::put_or_remove(&GpuLedger { mig_mode_on: false, ..ledger }, tools),
        Some(_) | None => Ok(()),
    }
}
