// SPDX-License-Identifier: Apache-2.0
//! The private table behind `nvmlInternalGetExportTable`, without which NVIDIA's nvidia-smi refuses to work.
//!
//! In: any table id. Out: a table of functions that answer `NOT_SUPPORTED`, except those below. What a slot means was found by
//! watching nvidia-smi 535.261 call it, and by what it prints of the answer. 26 prints messages, 81 opens a device, 192 and
//! 193 set and get a compute policy (550.163 uses these four alike); `nvidia-smi -q` asks 226 to 243. Slot 23, which `topo -m`
//! calls for the distance of two boards, is not answered.

use std::ffi::{c_int, c_uint, c_void};

use dra_sim::Code;

use crate::call::{Return, contain, guard};
use crate::ffi::{InOut, Out, TextOut, put};
use crate::handle::Handle;

use super::condition::margin_temperature;
use super::identity::{addressing, model, observed};

const COUNT: usize = 512;
const SET_POLICY: usize = 192;
const POLICIES: usize = 193;
const ATOMICS: usize = 226;
const PART_NUMBER: usize = 231;
const MARGIN_TEMPERATURE: usize = 240;
const ADDRESSING: usize = 242;
const SPARSE_OPERATION: usize = 243;

/// A function of the table.
#[repr(C)]
#[derive(Clone, Copy)]
union Slot {
    /// For any signature: arguments are not read.
    silent: extern "C" fn() -> Return,
    set_policy: extern "C" fn(Handle, InOut<'_, Policy>) -> Return,
    policies: extern "C" fn(Handle, Out<'_, Policies>) -> Return,
    atomics: extern "C" fn(Handle, Out<'_, Atomics>) -> Return,
    text: extern "C" fn(Handle, TextOut, c_uint) -> Return,
    number: extern "C" fn(Handle, Out<'_, c_uint>) -> Return,
    signed: extern "C" fn(Handle, Out<'_, c_int>) -> Return,
}

/// A compute policy and its value; 0 is the time-slice, the only one there is.
#[repr(C)]
pub(crate) struct Policy {
    kind: c_uint,
    value: c_uint,
}

#[repr(C)]
pub(crate) struct Policies {
    count: c_uint,
    first: Policy,
}

/// The PCIe atomic operations of both directions, as in `NVML_FI_DEV_PCIE_*_ATOMICS_MASK`.
#[repr(C)]
pub(crate) struct Atomics {
    outbound: c_uint,
    inbound: c_uint,
}

static TABLE: [Slot; COUNT] = table();

#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlInternalGetExportTable(table: Out<'_, *const c_void>, _id: *const c_void) -> Return {
    contain(|| put(table, std::ptr::from_ref(&TABLE).cast()))
}

const fn table() -> [Slot; COUNT] {
    let mut table = [Slot { silent: not_supported }; COUNT];
    table[SET_POLICY] = Slot { set_policy };
    table[POLICIES] = Slot { policies };
    table[ATOMICS] = Slot { atomics };
    table[PART_NUMBER] = Slot { text: part_number };
    table[MARGIN_TEMPERATURE] = Slot { signed: margin };
    table[ADDRESSING] = Slot { number: addressing_mode };
    table[SPARSE_OPERATION] = Slot { number: sparse_operation };
    table
}

extern "C" fn not_supported() -> Return {
    Code::NOT_SUPPORTED.0
}

extern "C" fn set_policy(device: Handle, policy: InOut<'_, Policy>) -> Return {
    guard("computePolicySet", |call| {
        let gpu = call.gpu(device)?;
        let policy = policy.filter(|policy| policy.kind == 0).ok_or(Code::INVALID_ARGUMENT)?;
        call.change(|state| state.set_time_slice(gpu, policy.value))
    })
}

extern "C" fn policies(device: Handle, policies: Out<'_, Policies>) -> Return {
    guard("computePolicyGet", |call| {
        let gpu = call.gpu(device)?;
        put(policies, Policies { count: 1, first: Policy { kind: 0, value: call.state.gpu(gpu)?.time_slice } })
    })
}

extern "C" fn atomics(device: Handle, masks: Out<'_, Atomics>) -> Return {
    guard("atomicsGet", |call| {
        let known = observed(call, device)?.atomics;
        if known.outbound.or(known.inbound).is_none() {
            return Err(Code::NOT_SUPPORTED);
        }
        // nvidia-smi prints `N/A` for none.
        put(masks, Atomics { outbound: known.outbound.unwrap_or(0), inbound: known.inbound.unwrap_or(0) })
    })
}

extern "C" fn part_number(device: Handle, number: TextOut, length: c_uint) -> Return {
    guard("partNumberGet", |call| number.put(length, &observed(call, device)?.gpu_part_number))
}

extern "C" fn margin(device: Handle, degrees: Out<'_, c_int>) -> Return {
    guard("marginTemperatureGet", |call| put(degrees, margin_temperature(call, device)?))
}

extern "C" fn addressing_mode(device: Handle, mode: Out<'_, c_uint>) -> Return {
    guard("addressingModeGet", |call| put(mode, addressing(model(call, device)?)))
}

extern "C" fn sparse_operation(device: Handle, mode: Out<'_, c_uint>) -> Return {
    guard("sparseOperationGet", |call| {
        if observed(call, device)?.sparse_operation { put(mode, 0) } else { Err(Code::NOT_SUPPORTED) }
    })
}
