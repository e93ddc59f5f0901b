// SPDX-License-Identifier: Apache-2.0
//! NVLink: which links of a GPU are up, and the errors of all of them.

use nvml_wrapper_sys::bindings::{NVML_NVLINK_MAX_LINKS, field_id, nvmlEnableState_enum_NVML_FEATURE_DISABLED};

use crate::device::Device;
use crate::error::{NvmlError, code};
use crate::library::symbol;

/// The links of a GPU by their state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NvLinks {
    pub up: u32,
    /// Broken, or not connected.
    pub down: u32,
}

/// Errors of all links since the driver was loaded. A kind that the GPU does not count is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NvLinkErrors {
    /// Damaged packets, of control and of data.
    pub crc: Option<u64>,
    /// Packets that were sent again.
    pub replay: Option<u64>,
    /// Links that were trained again.
    pub recovery: Option<u64>,
}

impl Device<'_> {
    /// No link at all on a GPU without NVLink.
    pub fn nvlinks(&self) -> Result<NvLinks, NvmlError> {
        let call = "nvmlDeviceGetNvLinkState";
        let function = symbol(call, &self.nvml().lib().nvmlDeviceGetNvLinkState)?;
        let mut links = NvLinks::default();
        for link in 0..NVML_NVLINK_MAX_LINKS {
            let mut state = nvmlEnableState_enum_NVML_FEATURE_DISABLED;
            // SAFETY: the handle is of this library and the function writes one number.
            let code = unsafe { function(self.handle(), link, &raw mut state) };
            match self.nvml().check(call, code) {
                // The links are numbered without gaps.
                Err(error) if error.is_unsupported() || error.code == code::INVALID_ARGUMENT => break,
                Err(error) => return Err(error),
                Ok(()) if state == nvmlEnableState_enum_NVML_FEATURE_DISABLED => links.down += 1,
                Ok(()) => links.up += 1,
            }
        }
        Ok(links)
    }

    pub fn nvlink_errors(&self) -> NvLinkErrors {
        let count = |field| self.large_field(field).ok();
        let crc = [
            field_id::NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
            field_id::NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL,
        ];
        NvLinkErrors {
            crc: crc.into_iter().filter_map(count).reduce(u64::saturating_add),
            replay: count(field_id::NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL),
            recovery: count(field_id::NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL),
        }
    }
}
