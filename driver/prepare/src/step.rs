// SPDX-License-Identifier: Apache-2.0
//! The effects a claim has on the machine: each with how it is done and, beside it, how it is undone.
//!
//! Doing is "let it be so": what is there already is checked and repaired. Undoing what was never done is success. So
//! either may be repeated after a crash in the middle.

use dra_cdi::{Kind, RenderedSpec, SpecStore, SpecStoreError};
use dra_checkpoint::{ClaimRecord, Step};
use dra_model::ClaimUid;

/// A promise and everything that keeping it takes, checked and rendered before the first effect.
#[derive(Debug)]
pub struct Work {
    /// The promise.
    pub record: ClaimRecord,
    /// The spec of the driver version, unless another version is loaded now.
    pub base: Option<RenderedSpec>,
    /// The spec of the claim.
    pub claim_spec: RenderedSpec,
}

/// An effect that was not achieved.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The base spec.
    #[error("the driver's files could not be offered to containers")]
    BaseSpec {
        /// Why.
        #[source]
        source: SpecStoreError,
    },
    /// The claim's spec.
    #[error("the claim's devices could not be offered to containers")]
    ClaimSpec {
        /// Why.
        #[source]
        source: SpecStoreError,
    },
    /// Taking the claim's spec away.
    #[error("the claim's devices could not be taken away")]
    RemoveClaimSpec {
        /// Why.
        #[source]
        source: SpecStoreError,
    },
    /// An effect that only another version of this driver has.
    #[error(
        "the {step} can neither be set nor undone by this version of the driver: run the version that prepared the claim"
    )]
    Unsupported {
        /// Which effect.
        step: String,
    },
}

/// Lets the effect be there; says whether anything had to be done.
pub fn apply(step: &Step, work: &Work, specs: &SpecStore) -> Result<bool, StepError> {
    let writer = &work.record.claim.uid;
    match step {
        Step::ClaimSpec => {
            // The base comes first, and after the record, which keeps it from being collected as unused.
            let base = work.base.as_ref().map(|base| specs.ensure(base, writer)).transpose();
            let base = base.map_err(|source| StepError::BaseSpec { source })?;
            let claim = specs.ensure(&work.claim_spec, writer).map_err(|source| StepError::ClaimSpec { source })?;
            Ok([base, Some(claim)].into_iter().flatten().any(|ensured| ensured != dra_cdi::Ensured::AsItWas))
        }
        Step::GpuSettings { .. } | Step::MpsDaemon { .. } => Err(StepError::Unsupported { step: step.to_string() }),
    }
}

/// Lets the effect be gone. The base spec stays: other claims use it.
pub fn undo(step: &Step, uid: &ClaimUid, specs: &SpecStore) -> Result<(), StepError> {
    match step {
        Step::ClaimSpec => {
            specs.remove(&Kind::Claim(uid.clone())).map_err(|source| StepError::RemoveClaimSpec { source })
        }
        Step::GpuSettings { .. } | Step::MpsDaemon { .. } => Err(StepError::Unsupported { step: step.to_string() }),
    }
}
