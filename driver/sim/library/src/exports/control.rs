// SPDX-License-Identifier: Apache-2.0
//! What can be set on a whole GPU: compute mode, persistence, MIG mode.

use std::ffi::c_uint;

use dra_sim::Code;
use dra_sim::state::ComputeMode;

use crate::call::{Device, exports};
use crate::ffi::{Out, put};
use crate::handle::Handle;

use super::identity::gpu;

exports! {
    nvmlDeviceGetComputeMode: (device: Handle, mode: Out<'_, c_uint>) |call| {
        let gpu = call.device(device)?.gpu();
        put(mode, call.state.gpu(gpu)?.compute_mode.number())
    };

    nvmlDeviceSetComputeMode: (device: Handle, mode: c_uint) |call| {
        let Device::Gpu(gpu) = call.device(device)? else { return Err(Code::NOT_SUPPORTED) };
        let mode = ComputeMode::from_number(mode).ok_or(Code::INVALID_ARGUMENT)?;
        call.change(|state| state.set_compute_mode(gpu, mode))
    };

    nvmlDeviceGetPersistenceMode: (device: Handle, on: Out<'_, c_uint>) |call| {
        put(on, u32::from(gpu(call, device)?.persistence))
    };

    nvmlDeviceSetPersistenceMode: (device: Handle, on: c_uint) |call| {
        let gpu = call.gpu(device)?;
        if on > 1 {
            return Err(Code::INVALID_ARGUMENT);
        }
        call.change(|state| state.set_persistence(gpu, on == 1))
    };

    nvmlDeviceGetMigMode: (device: Handle, current: Out<'_, c_uint>, pending: Out<'_, c_uint>) |call| {
        let gpu = call.gpu(device)?;
        let mode = call.state.mig_mode(gpu)?;
        put(current, u32::from(mode.current))?;
        put(pending, u32::from(mode.pending))
    };

    nvmlDeviceSetMigMode: (device: Handle, mode: c_uint, activation: Out<'_, c_uint>) |call| {
        let gpu = call.gpu(device)?;
        if mode > 1 {
            return Err(Code::INVALID_ARGUMENT);
        }
        let activation = activation.ok_or(Code::INVALID_ARGUMENT)?;
        let reason = call.change(|state| state.set_mig_mode(gpu, mode == 1))?;
        activation.write(reason.map_or(0, |code| code.0));
        Ok(())
    };
}
