// SPDX-License-Identifier: Apache-2.0
//! Statistics of engines that no program uses, and times that a board has stored.
//!
//! In: a handle. Out: zeros, as idle boards report them, and the last flush of the black box of a board where it is known.

use std::ffi::{c_uint, c_ulong, c_ulonglong};

use dra_sim::Code;
use nvml_wrapper_sys::bindings as nvml;

use crate::call::exports;
use crate::ffi::{InOut, ListOut, Out, put};
use crate::handle::Handle;

use super::identity::observed;

/// Entries of the accounting buffer of every captured board.
const ACCOUNTING_BUFFER: c_uint = 4000;

exports! {
    nvmlDeviceGetEncoderStats: (device: Handle, sessions: Out<'_, c_uint>, rate: Out<'_, c_uint>, latency: Out<'_, c_uint>) |call| {
        call.device(device)?;
        put(sessions, 0)?;
        put(rate, 0)?;
        put(latency, 0)
    };

    nvmlDeviceGetFBCStats: (device: Handle, statistics: Out<'_, nvml::nvmlFBCStats_t>) |call| {
        call.device(device)?;
        put(statistics, nvml::nvmlFBCStats_t { sessionsCount: 0, averageFPS: 0, averageLatency: 0 })
    };

    nvmlDeviceGetAccountingMode: (device: Handle, on: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        put(on, 0)
    };

    nvmlDeviceGetAccountingBufferSize: (device: Handle, size: Out<'_, c_uint>) |call| {
        call.gpu(device)?;
        put(size, ACCOUNTING_BUFFER)
    };

    nvmlDeviceGetAccountingPids: (device: Handle, count: InOut<'_, c_uint>, pids: ListOut<c_uint>) |call| {
        call.gpu(device)?;
        pids.put(count, Vec::new())
    };

    nvmlDeviceGetConfComputeProtectedMemoryUsage: (device: Handle, memory: Out<'_, nvml::nvmlMemory_t>) |call| {
        call.gpu(device)?;
        put(memory, nvml::nvmlMemory_t { total: 0, free: 0, used: 0 })
    };

    nvmlDeviceGetLastBBXFlushTime: (device: Handle, timestamp: Out<'_, c_ulonglong>, duration: Out<'_, c_ulong>) |call| {
        let flush = observed(call, device)?.bbx_flush.ok_or(Code::NOT_SUPPORTED)?;
        put(timestamp, flush.timestamp_us)?;
        put(duration, flush.duration_us)
    };
}
