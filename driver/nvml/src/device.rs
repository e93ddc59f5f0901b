// SPDX-License-Identifier: Apache-2.0
//! Queries about one device, which is a GPU or a MIG device. Most queries apply to one of the two kinds only.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlDeviceAddressingMode_t, nvmlMemory_t, nvmlReturn_t};

use crate::error::{NvmlError, code};
use crate::library::{Nvml, symbol};

/// A device of the library it borrows.
#[derive(Debug)]
pub struct Device<'a> {
    nvml: &'a Nvml,
    inner: nvml_wrapper::Device<'a>,
}

/// Memory of a board in bytes (`nvmlMemory_v2_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Includes `reserved`.
    pub total: u64,
    pub used: u64,
    /// What a client can still allocate.
    pub free: u64,
    /// Reserved by driver and firmware, if reported.
    pub reserved: Option<u64>,
}

/// A C function that returns one number of a device.
type NumberOf = unsafe extern "C" fn(nvmlDevice_t, *mut c_uint) -> nvmlReturn_t;

/// `NVML_STRUCT_VERSION(DeviceAddressingMode, 1)`: the size of the struct and its version.
const ADDRESSING_MODE_V1: u32 = 8 + (1 << 24);

impl Nvml {
    /// A GPU by its position in PCI order, which is not stable over time.
    pub fn device_by_index(&self, index: u32) -> Result<Device<'_>, NvmlError> {
        let device = self.answer("nvmlDeviceGetHandleByIndex_v2", self.wrapped().device_by_index(index))?;
        Ok(Device::new(self, device))
    }

    /// A GPU by identity.
    pub fn device_by_uuid(&self, uuid: &str) -> Result<Device<'_>, NvmlError> {
        let device = self.answer("nvmlDeviceGetHandleByUUID", self.wrapped().device_by_uuid(uuid))?;
        Ok(Device::new(self, device))
    }
}

impl<'a> Device<'a> {
    fn new(nvml: &'a Nvml, inner: nvml_wrapper::Device<'a>) -> Self {
        Self { nvml, inner }
    }

    /// `GPU-…` of a GPU, `MIG-…` of a MIG device.
    pub fn uuid(&self) -> Result<String, NvmlError> {
        self.nvml.answer("nvmlDeviceGetUUID", self.inner.uuid())
    }

    /// Position in PCI order, which is not stable over time.
    pub fn index(&self) -> Result<u32, NvmlError> {
        self.nvml.answer("nvmlDeviceGetIndex", self.inner.index())
    }

    /// `00000000:3B:00.0`.
    pub fn pci_bus_id(&self) -> Result<String, NvmlError> {
        Ok(self.nvml.answer("nvmlDeviceGetPciInfo_v3", self.inner.pci_info())?.bus_id)
    }

    /// N of `/dev/nvidiaN`.
    pub fn minor_number(&self) -> Result<u32, NvmlError> {
        self.nvml.answer("nvmlDeviceGetMinorNumber", self.inner.minor_number())
    }

    /// `NVIDIA H100 80GB HBM3`.
    pub fn name(&self) -> Result<String, NvmlError> {
        self.nvml.answer("nvmlDeviceGetName", self.inner.name())
    }

    /// `nvmlBrandType_t` as a number, since every driver may add one.
    pub fn brand(&self) -> Result<u32, NvmlError> {
        self.number("nvmlDeviceGetBrand", &self.nvml.lib().nvmlDeviceGetBrand)
    }

    /// `nvmlDeviceArchitecture_t` as a number, since every driver may add one.
    pub fn architecture(&self) -> Result<u32, NvmlError> {
        self.number("nvmlDeviceGetArchitecture", &self.nvml.lib().nvmlDeviceGetArchitecture)
    }

    /// CUDA compute capability, major and minor.
    pub fn compute_capability(&self) -> Result<(u32, u32), NvmlError> {
        let call = "nvmlDeviceGetCudaComputeCapability";
        let capability = self.nvml.answer(call, self.inner.cuda_compute_capability())?;
        let unexpected = |_negative| NvmlError { call, code: code::UNKNOWN };
        let major = u32::try_from(capability.major).map_err(unexpected)?;
        Ok((major, u32::try_from(capability.minor).map_err(unexpected)?))
    }

    /// The memory of the board.
    ///
    /// Calls version 2 and, on drivers before R510, version 1, which counts reserved memory as used.
    pub fn memory(&self) -> Result<Memory, NvmlError> {
        match self.nvml.answer("nvmlDeviceGetMemoryInfo_v2", self.inner.memory_info()) {
            Err(error) if error.code == code::FUNCTION_NOT_FOUND => self.memory_v1(),
            answer => answer.map(|memory| Memory {
                total: memory.total,
                used: memory.used,
                free: memory.free,
                reserved: Some(memory.reserved),
            }),
        }
    }

    fn memory_v1(&self) -> Result<Memory, NvmlError> {
        let call = "nvmlDeviceGetMemoryInfo";
        let function = symbol(call, &self.nvml.lib().nvmlDeviceGetMemoryInfo)?;
        let mut memory = nvmlMemory_t { total: 0, free: 0, used: 0 };
        // SAFETY: the handle is of this library and `memory` is the struct the function fills.
        let code = unsafe { function(self.handle(), &raw mut memory) };
        self.nvml.check(call, code)?;
        Ok(Memory { total: memory.total, used: memory.used, free: memory.free, reserved: None })
    }

    /// `nvmlDeviceAddressingModeType_t`: 0 none, 1 HMM, 2 ATS.
    pub fn addressing_mode(&self) -> Result<u32, NvmlError> {
        let call = "nvmlDeviceGetAddressingMode";
        let function = symbol(call, &self.nvml.lib().nvmlDeviceGetAddressingMode)?;
        let mut mode = nvmlDeviceAddressingMode_t { version: ADDRESSING_MODE_V1, value: 0 };
        // SAFETY: the handle is of this library and `mode` carries its own size and version.
        let code = unsafe { function(self.handle(), &raw mut mode) };
        self.nvml.check(call, code)?;
        Ok(mode.value)
    }

    /// `nvmlComputeMode_t` as a number.
    pub fn compute_mode(&self) -> Result<u32, NvmlError> {
        self.number("nvmlDeviceGetComputeMode", &self.nvml.lib().nvmlDeviceGetComputeMode)
    }

    /// Sets the compute mode until the driver is unloaded. It requires root. Success does not prove that the mode was set.
    pub fn set_compute_mode(&self, mode: u32) -> Result<(), NvmlError> {
        let call = "nvmlDeviceSetComputeMode";
        let function = symbol(call, &self.nvml.lib().nvmlDeviceSetComputeMode)?;
        // SAFETY: the handle is of this library and a number is all that the function takes.
        let code = unsafe { function(self.handle(), mode) };
        self.nvml.check(call, code)
    }

    /// Whether MIG mode is in force; a pending mode does not count.
    ///
    /// A GPU without MIG returns [`code::NOT_SUPPORTED`].
    pub fn mig_mode(&self) -> Result<bool, NvmlError> {
        Ok(self.nvml.answer("nvmlDeviceGetMigMode", self.inner.mig_mode())?.current == 1)
    }

    /// An upper bound of the number of MIG devices, not their number.
    pub fn mig_slots(&self) -> Result<u32, NvmlError> {
        self.nvml.answer("nvmlDeviceGetMaxMigDeviceCount", self.inner.mig_device_count())
    }

    /// The MIG device in a slot; most slots are empty.
    pub fn mig_device(&self, slot: u32) -> Result<Option<Device<'a>>, NvmlError> {
        match self.nvml.answer("nvmlDeviceGetMigDeviceHandleByIndex", self.inner.mig_device_by_index(slot)) {
            Ok(device) => Ok(Some(Self::new(self.nvml, device))),
            Err(error) if error.code == code::NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn nvml(&self) -> &'a Nvml {
        self.nvml
    }

    pub(crate) fn wrapped(&self) -> &nvml_wrapper::Device<'a> {
        &self.inner
    }

    pub(crate) fn handle(&self) -> nvmlDevice_t {
        // SAFETY: the handle is only passed to the library it came from, which stays loaded as long as `self` exists.
        unsafe { self.inner.handle() }
    }

    pub(crate) fn number<E>(&self, call: &'static str, field: &Result<NumberOf, E>) -> Result<u32, NvmlError> {
        let function = symbol(call, field)?;
        let mut number = 0;
        // SAFETY: the handle is of this library and the function writes one unsigned int.
        let code = unsafe { function(self.handle(), &raw mut number) };
        self.nvml.check(call, code)?;
        Ok(number)
    }
}
