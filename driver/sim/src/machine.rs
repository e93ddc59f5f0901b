// SPDX-License-Identifier: Apache-2.0
//! The in-process interface as the port that the driver uses: [`dra_hardware::Machine`] for [`Simulator`].
//!
//! It returns the values of `NvmlMachine` on the same machine; a test compares the two. Each query makes the NVML calls of
//! `NvmlMachine`, so that fault rules and call counts work by their names. A failure inside nvidia-smi is a failure of the
//! call that nvidia-smi makes.

mod divide;
mod health;
mod question;

use dra_hardware::{DriverVersions, GpuError, GpuFacts, GpuSelector, GpuShape, Machine, MachineError, Setting};
use dra_model::{ComputeMode, GpuUuid, Interval, Version};

use crate::state::State;
use crate::{Code, Simulator, state};
use question::{Question, not_answering};

impl Machine for Simulator {
    fn driver(&self) -> Result<DriverVersions, MachineError> {
        let call = "nvmlSystemGetDriverVersion";
        let versions = |state: &mut State| {
            let driver = state.driver_version.parse().map_err(|_bad| Code::UNKNOWN)?;
            let cuda = u32::try_from(state.cuda_version()).map_err(|_bad| Code::UNKNOWN)?;
            let cuda = Version { major: cuda / 1000, minor: cuda % 1000 / 10, patch: 0 };
            Ok(DriverVersions { driver, cuda: Some(cuda) })
        };
        self.initialised()?;
        self.call(call, None, versions).map_err(|code| not_answering(call, code))
    }

    fn gpu_count(&self) -> Result<u32, MachineError> {
        let call = "nvmlDeviceGetCount_v2";
        self.initialised()?;
        let count = self.call(call, None, |state| Ok(state.gpus.len())).map_err(|code| not_answering(call, code))?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    fn gpu(&self, which: GpuSelector<'_>) -> Result<GpuFacts, GpuError> {
        Question::about(self, which)?.facts()
    }

    fn shape(&self, index: u32) -> Result<GpuShape, MachineError> {
        self.initialised()?;
        let which = GpuSelector::Index(index);
        let mut question = Question { sim: self, which, index: 0, uuid: None, pci: None };
        let mut shape = GpuShape::silent();
        match question.shape(&mut shape) {
            Err(GpuError::Machine { source, .. }) => Err(source),
            Ok(())
            | Err(
                GpuError::NotFound { .. }
                | GpuError::Failed { .. }
                | GpuError::UnexpectedValue { .. }
                | GpuError::OutOfTime { .. }
                | GpuError::Unsupported { .. }
                | GpuError::NotApplied { .. }
                | GpuError::MigModePending { .. }
                | GpuError::Program { .. },
            ) => Ok(shape),
        }
    }

    fn compute_mode(&self, gpu: &GpuUuid) -> Result<Option<ComputeMode>, GpuError> {
        Question::about(self, GpuSelector::Uuid(gpu))?.compute_mode()
    }

    fn set_compute_mode(&self, gpu: &GpuUuid, mode: ComputeMode) -> Result<(), GpuError> {
        let (call, setting) = ("nvmlDeviceSetComputeMode", Setting::ComputeMode);
        let question = Question::about(self, GpuSelector::Uuid(gpu))?;
        let index = question.index;
        let known = state::ComputeMode::from_number(mode.number()).ok_or(Code::INVALID_ARGUMENT);
        question.set(gpu, setting, call, |state| state.set_compute_mode(index, known?))?;
        GpuError::check_applied(gpu, setting, &mode, question.compute_mode()?.as_ref())
    }

    fn interval(&self, gpu: &GpuUuid) -> Result<Option<Interval>, GpuError> {
        Question::about(self, GpuSelector::Uuid(gpu))?.interval()
    }

    fn set_interval(&self, gpu: &GpuUuid, interval: Interval) -> Result<(), GpuError> {
        let (call, setting) = ("computePolicySet", Setting::Interval);
        let question = Question::about(self, GpuSelector::Uuid(gpu))?;
        let index = question.index;
        question.set(gpu, setting, call, |state| state.set_time_slice(index, interval.number()))?;
        GpuError::check_applied(gpu, setting, &interval, question.interval()?.as_ref())
    }
}
