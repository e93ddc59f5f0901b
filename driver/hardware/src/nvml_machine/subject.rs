// SPDX-License-Identifier: Apache-2.0
//! Converts a code of NVML into an error that names the GPU.

use dra_model::{GpuUuid, PciAddress};
use dra_nvml::NvmlError;

use crate::gpu_error::{GpuError, MachineError, NvmlCode};
use crate::machine::GpuSelector;

/// The GPU of an error, as far as it is known at that time.
#[derive(Debug, Clone)]
pub(super) struct Subject<'a> {
    pub(super) which: GpuSelector<'a>,
    pub(super) uuid: Option<GpuUuid>,
    pub(super) pci: Option<PciAddress>,
}

impl<'a> Subject<'a> {
    pub(super) const fn of(which: GpuSelector<'a>) -> Self {
        Self { which, uuid: None, pci: None }
    }

    pub(super) fn failed(&self, error: NvmlError) -> GpuError {
        if error.is_driver_gone() {
            return GpuError::Machine { which: self.name(), source: not_answering(error) };
        }
        let code = NvmlCode(error.code);
        GpuError::Failed { call: error.call, which: self.name(), code, uuid: self.uuid.clone(), pci: self.pci }
    }

    pub(super) fn unexpected_value(&self, call: &'static str, answer: String) -> GpuError {
        GpuError::UnexpectedValue { call, which: self.name(), answer, uuid: self.uuid.clone(), pci: self.pci }
    }

    fn name(&self) -> String {
        match (&self.uuid, self.pci) {
            (Some(uuid), Some(pci)) => format!("{uuid} at {pci}"),
            (Some(uuid), None) => uuid.to_string(),
            (None, Some(pci)) => format!("{} at {pci}", self.which),
            (None, None) => self.which.to_string(),
        }
    }
}

pub(super) fn not_answering(error: NvmlError) -> MachineError {
    MachineError::NotAnswering { call: error.call, code: NvmlCode(error.code) }
}
