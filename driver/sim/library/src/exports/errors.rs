// SPDX-License-Identifier: Apache-2.0
//! Errors of the memory: ECC counters, retired pages, remapped rows.
//!
//! The errors that can be declared are errors of the DRAM. SRAM has counters since Ampere, and none has counted anything.

use std::ffi::{c_uint, c_ulonglong};

use dra_sim::Code;
use dra_sim::state::MemoryErrors;
use nvml_wrapper_sys::bindings as nvml;

use crate::call::{Call, Device, exports};
use crate::ffi::{InOut, ListOut, Out, Versioned, put};
use crate::handle::Handle;

use super::identity::{gpu, model, observed};

/// `NVML_MEMORY_LOCATION_DEVICE_MEMORY`, the DRAM.
const DEVICE_MEMORY: c_uint = 2;

/// `nvmlRemappedRowsInfo_v2_t` of nvml.h 580, which has no version word. No row waits to become active here.
#[repr(C)]
pub(crate) struct RemappedRows {
    corrected: c_uint,
    corrected_inactive: c_uint,
    uncorrected: c_uint,
    uncorrected_inactive: c_uint,
    pending: c_uint,
    failed: c_uint,
}

exports! {
    nvmlDeviceGetEccMode: (device: Handle, current: Out<'_, c_uint>, pending: Out<'_, c_uint>) |call| {
        let on = u32::from(model(call, device)?.ecc);
        put(current, on)?;
        put(pending, on)
    };

    nvmlDeviceGetDefaultEccMode: (device: Handle, on: Out<'_, c_uint>) |call| {
        put(on, u32::from(gpu(call, device)?.model()?.ecc))
    };

    nvmlDeviceGetTotalEccErrors: (device: Handle, kind: c_uint, _counter: c_uint, count: Out<'_, c_ulonglong>) |call| {
        let errors = memory_errors(call, device)?;
        put(count, if kind == 0 { errors.corrected } else { errors.uncorrected })
    };

    nvmlDeviceGetMemoryErrorCounter: (device: Handle, kind: c_uint, _counter: c_uint, location: c_uint, count: Out<'_, c_ulonglong>) |call| {
        let errors = memory_errors(call, device)?;
        let counted = if kind == 0 { errors.corrected } else { errors.uncorrected };
        put(count, if location == DEVICE_MEMORY { counted } else { 0 })
    };

    nvmlDeviceGetRetiredPagesPendingStatus: (device: Handle, pending: Out<'_, c_uint>) |call| {
        let gpu = gpu(call, device)?;
        if gpu.model()?.has_row_remapping() {
            return Err(Code::NOT_SUPPORTED);
        }
        put(pending, gpu.memory_errors.remap_pending.into())
    };

    nvmlDeviceGetRemappedRows: (device: Handle, corrected: Out<'_, c_uint>, uncorrected: Out<'_, c_uint>, pending: Out<'_, c_uint>, failed: Out<'_, c_uint>) |call| {
        let gpu = gpu(call, device)?;
        if gpu.mig.is_some_and(|mig| mig.current) || !gpu.model()?.has_row_remapping() {
            return Err(Code::NOT_SUPPORTED);
        }
        let errors = gpu.memory_errors;
        put(corrected, errors.rows_corrected)?;
        put(uncorrected, errors.rows_uncorrected)?;
        put(pending, errors.remap_pending.into())?;
        put(failed, errors.remap_failed.into())
    };

    nvmlDeviceGetRemappedRows_v2: (device: Handle, rows: Out<'_, RemappedRows>) |call| {
        let gpu = gpu(call, device)?;
        if gpu.mig.is_some_and(|mig| mig.current) || !gpu.model()?.has_row_remapping() {
            return Err(Code::NOT_SUPPORTED);
        }
        let errors = gpu.memory_errors;
        put(rows, RemappedRows {
            corrected: errors.rows_corrected,
            corrected_inactive: 0,
            uncorrected: errors.rows_uncorrected,
            uncorrected_inactive: 0,
            pending: errors.remap_pending.into(),
            failed: errors.remap_failed.into(),
        })
    };

    nvmlDeviceGetUnrepairableMemoryFlag_v1: (device: Handle, found: Out<'_, c_uint>) |call| {
        if observed(call, device)?.unrepairable_memory_flag { put(found, 0) } else { Err(Code::NOT_SUPPORTED) }
    };

    nvmlDeviceGetRepairStatus: (device: Handle, status: Versioned) |call| {
        if !gpu(call, device)?.model()?.has_row_remapping() {
            return Err(Code::NOT_SUPPORTED);
        }
        status.put(1, |version| nvml::nvmlRepairStatus_v1_t { version, bChannelRepairPending: 0, bTpcRepairPending: 0 })
    };

    nvmlDeviceGetSramEccErrorStatus: (device: Handle, status: Versioned) |call| {
        if !gpu(call, device)?.model()?.has_row_remapping() {
            return Err(Code::NOT_SUPPORTED);
        }
        Call::require_root()?;
        status.put(1, |version| nvml::nvmlEccSramErrorStatus_v1_t {
            version,
            aggregateUncParity: 0,
            aggregateUncSecDed: 0,
            aggregateCor: 0,
            volatileUncParity: 0,
            volatileUncSecDed: 0,
            volatileCor: 0,
            aggregateUncBucketL2: 0,
            aggregateUncBucketSm: 0,
            aggregateUncBucketPcie: 0,
            aggregateUncBucketMcu: 0,
            aggregateUncBucketOther: 0,
            bThresholdExceeded: 0,
        })
    };

    nvmlDeviceGetRetiredPages: (device: Handle, _cause: c_uint, count: InOut<'_, c_uint>, pages: ListOut<c_ulonglong>) |call| {
        if gpu(call, device)?.model()?.has_row_remapping() {
            return Err(Code::NOT_SUPPORTED);
        }
        pages.put(count, Vec::new())
    };

    nvmlDeviceGetRetiredPages_v2: (device: Handle, _cause: c_uint, count: InOut<'_, c_uint>, pages: ListOut<c_ulonglong>, _times: ListOut<c_ulonglong>) |call| {
        if gpu(call, device)?.model()?.has_row_remapping() {
            return Err(Code::NOT_SUPPORTED);
        }
        pages.put(count, Vec::new())
    };

    nvmlDeviceGetRowRemapperHistogram: (device: Handle, values: Out<'_, nvml::nvmlRowRemapperHistogramValues_t>) |call| {
        let banks = observed(call, device)?.spare_row_banks.ok_or(Code::NOT_SUPPORTED)?;
        put(values, nvml::nvmlRowRemapperHistogramValues_t { max: banks, high: 0, partial: 0, low: 0, none: 0 })
    };
}

/// A MIG device has none of its own.
fn memory_errors(call: &Call, device: Handle) -> Result<MemoryErrors, Code> {
    Ok(match call.device(device)? {
        Device::Gpu(gpu) => call.state.gpu(gpu)?.memory_errors,
        Device::Mig(_) => MemoryErrors::default(),
    })
}
