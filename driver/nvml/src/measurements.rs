// SPDX-License-Identifier: Apache-2.0
//! What a GPU measures: load, temperature, power, clocks, errors of its memory.

use std::ffi::c_uint;

use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper_sys::bindings::nvmlGpuFabricInfo_t;

use crate::device::Device;
use crate::error::NvmlError;
use crate::library::symbol;

/// `NVML_FI_DEV_REMAPPED_COR`, `…_UNC`, `…_PENDING`, `…_FAILURE`.
const REMAPPED_ROWS: [u32; 4] = [142, 143, 144, 145];

/// Rows of memory that were replaced by spare ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemappedRows {
    /// For correctable errors.
    pub corrected: u32,
    /// For uncorrectable errors.
    pub uncorrected: u32,
    /// A row is replaced at the next reset.
    pub is_pending: bool,
    /// No spare row was left.
    pub has_failed: bool,
}

impl Device<'_> {
    /// Percent of the last sample period in which a kernel ran. Not supported in MIG mode.
    pub fn utilization(&self) -> Result<u32, NvmlError> {
        Ok(self.nvml().answer("nvmlDeviceGetUtilizationRates", self.wrapped().utilization_rates())?.gpu)
    }

    /// Degrees Celsius.
    pub fn temperature(&self) -> Result<u32, NvmlError> {
        self.nvml().answer("nvmlDeviceGetTemperature", self.wrapped().temperature(TemperatureSensor::Gpu))
    }

    /// Milliwatts of the board.
    pub fn power(&self) -> Result<u32, NvmlError> {
        self.nvml().answer("nvmlDeviceGetPowerUsage", self.wrapped().power_usage())
    }

    /// Milliwatts at which the board limits its power.
    pub fn power_limit(&self) -> Result<u32, NvmlError> {
        self.nvml().answer("nvmlDeviceGetEnforcedPowerLimit", self.wrapped().enforced_power_limit())
    }

    /// MHz of the multiprocessors.
    pub fn sm_clock(&self) -> Result<u32, NvmlError> {
        self.nvml().answer("nvmlDeviceGetClockInfo", self.wrapped().clock_info(Clock::SM))
    }

    /// MHz of the memory.
    pub fn memory_clock(&self) -> Result<u32, NvmlError> {
        self.nvml().answer("nvmlDeviceGetClockInfo", self.wrapped().clock_info(Clock::Memory))
    }

    /// Bits `nvmlClocksEventReason…`, why the clocks are low.
    pub fn throttle_reasons(&self) -> Result<u64, NvmlError> {
        let call = "nvmlDeviceGetCurrentClocksThrottleReasons";
        Ok(self.nvml().answer(call, self.wrapped().current_throttle_reasons())?.bits())
    }

    /// ECC errors in the life of the board that were corrected.
    pub fn corrected_ecc_errors(&self) -> Result<u64, NvmlError> {
        self.ecc_errors(MemoryError::Corrected)
    }

    /// ECC errors in the life of the board that were not corrected.
    pub fn uncorrected_ecc_errors(&self) -> Result<u64, NvmlError> {
        self.ecc_errors(MemoryError::Uncorrected)
    }

    fn ecc_errors(&self, kind: MemoryError) -> Result<u64, NvmlError> {
        self.nvml().answer("nvmlDeviceGetTotalEccErrors", self.wrapped().total_ecc_errors(kind, EccCounter::Aggregate))
    }

    /// Not supported before Ampere. In MIG mode only the fields have the numbers.
    pub fn remapped_rows(&self) -> Result<RemappedRows, NvmlError> {
        match self.remapped_rows_of_gpu() {
            Err(error) if error.is_unsupported() => {
                let [corrected, uncorrected, pending, failed] = REMAPPED_ROWS.map(|field| self.field(field));
                let (is_pending, has_failed) = (pending? != 0, failed? != 0);
                Ok(RemappedRows { corrected: corrected?, uncorrected: uncorrected?, is_pending, has_failed })
            }
            rows => rows,
        }
    }

    /// Whether a page of memory is retired at the next load of the driver. Not supported from Ampere on.
    pub fn has_pending_pages(&self) -> Result<bool, NvmlError> {
        Ok(self.number(
            "nvmlDeviceGetRetiredPagesPendingStatus",
            &self.nvml().lib().nvmlDeviceGetRetiredPagesPendingStatus,
        )? == 1)
    }

    fn remapped_rows_of_gpu(&self) -> Result<RemappedRows, NvmlError> {
        let call = "nvmlDeviceGetRemappedRows";
        let function = symbol(call, &self.nvml().lib().nvmlDeviceGetRemappedRows)?;
        let mut rows: [c_uint; 4] = [0; 4];
        let [corrected, uncorrected, pending, failed] = &mut rows;
        // SAFETY: the handle is of this library and the function writes four numbers.
        let code = unsafe { function(self.handle(), corrected, uncorrected, pending, failed) };
        self.nvml().check(call, code)?;
        let [corrected, uncorrected, pending, failed] = rows;
        Ok(RemappedRows { corrected, uncorrected, is_pending: pending != 0, has_failed: failed != 0 })
    }

    /// `nvmlGpuFabricState_t`: 0 without a fabric, 1 not started, 2 in progress, 3 completed.
    pub fn fabric_state(&self) -> Result<u32, NvmlError> {
        let call = "nvmlDeviceGetGpuFabricInfo";
        let function = symbol(call, &self.nvml().lib().nvmlDeviceGetGpuFabricInfo)?;
        let mut info = nvmlGpuFabricInfo_t { clusterUuid: [0; 16], status: 0, cliqueId: 0, state: 0 };
        // SAFETY: the handle is of this library and `info` is the struct the function fills.
        let code = unsafe { function(self.handle(), &raw mut info) };
        self.nvml().check(call, code)?;
        Ok(info.state.into())
    }

    /// The ids of the processes with a compute context, and the bytes that each uses if the driver knows it.
    pub fn process_memory(&self) -> Result<Vec<(u32, Option<u64>)>, NvmlError> {
        let call = "nvmlDeviceGetComputeRunningProcesses_v3";
        let found = self.nvml().answer(call, self.wrapped().running_compute_processes())?;
        let bytes = |used: &UsedGpuMemory| match used {
            UsedGpuMemory::Used(bytes) => Some(*bytes),
            UsedGpuMemory::Unavailable => None,
        };
        Ok(found.into_iter().map(|process| (process.pid, bytes(&process.used_gpu_memory))).collect())
    }
}
