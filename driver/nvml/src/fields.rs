// SPDX-License-Identifier: Apache-2.0
//! Field values. Each field has a return code of its own.

use nvml_wrapper_sys::bindings::{nvmlFieldValue_t, nvmlValue_t};

use crate::device::Device;
use crate::error::{NvmlError, code};
use crate::library::symbol;

const FIELD_VALUES: &str = "nvmlDeviceGetFieldValues";

/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`, from R570 on.
const RECOVERY_ACTION: u32 = 230;

impl Device<'_> {
    /// What the driver recommends: 0 nothing, 1 reset of the GPU, 2 reboot of the node, 3 drain of peer-to-peer traffic, 4 drain and
    /// reset, 5 recovery of the IMEX domain; from R615 on 6 bus reset, 7 system reboot.
    pub fn recovery_action(&self) -> Result<u32, NvmlError> {
        self.field(RECOVERY_ACTION)
    }

    /// A field whose numbers are small.
    pub(crate) fn field(&self, id: u32) -> Result<u32, NvmlError> {
        let too_large = |_| NvmlError { call: FIELD_VALUES, code: code::UNKNOWN };
        u32::try_from(self.large_field(id)?).map_err(too_large)
    }

    pub(crate) fn large_field(&self, id: u32) -> Result<u64, NvmlError> {
        let call = FIELD_VALUES;
        let function = symbol(call, &self.nvml().lib().nvmlDeviceGetFieldValues)?;
        let value = nvmlValue_t { ullVal: 0 };
        let mut field = nvmlFieldValue_t {
            fieldId: id,
            scopeId: 0,
            timestamp: 0,
            latencyUsec: 0,
            valueType: 0,
            nvmlReturn: 0,
            value,
        };
        // SAFETY: the handle is of this library and the function fills the one struct that is counted.
        let code = unsafe { function(self.handle(), 1, &raw mut field) };
        self.nvml().check(call, code)?;
        self.nvml().check(call, field.nvmlReturn)?;
        number(&field).ok_or(NvmlError { call, code: code::UNKNOWN })
    }
}

/// An unsigned value of 4 or 8 bytes, as the driver chooses (`nvmlValueType_t`).
fn number(field: &nvmlFieldValue_t) -> Option<u64> {
    // SAFETY: every variant of the union is a number. It was zeroed at its full size before the driver wrote the lower bytes, and
    // all platforms of NVML are little-endian.
    let value = unsafe { field.value.ullVal };
    [1, 2, 3].contains(&field.valueType).then_some(value)
}
