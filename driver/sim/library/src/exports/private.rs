// SPDX-License-Identifier: Apache-2.0
//! The private table behind `nvmlInternalGetExportTable`, without which NVIDIA's nvidia-smi refuses to work.
//!
//! In: any table id. Out: a table of functions that answer `NOT_SUPPORTED`, except the two that `nvidia-smi compute-policy`
//! uses. What a slot means was found by watching nvidia-smi 535.261 and 550.163 call it, and both agree: 26 prints
//! messages, 81 opens a device, 192 and 193 set and get a compute policy. Slot 23, which `topo -m` calls for the distance of
//! two boards, is not answered.

use std::ffi::{c_uint, c_void};

use dra_sim::Code;

use crate::call::{Return, contain, guard};
use crate::ffi::{InOut, Out, put};
use crate::handle::Handle;

const COUNT: usize = 512;
const SET_POLICY: usize = 192;
const POLICIES: usize = 193;

/// A function of the table.
#[repr(C)]
#[derive(Clone, Copy)]
union Slot {
    /// For any signature: arguments are not read.
    silent: extern "C" fn() -> Return,
    set_policy: extern "C" fn(Handle, InOut<'_, Policy>) -> Return,
    policies: extern "C" fn(Handle, Out<'_, Policies>) -> Return,
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

static TABLE: [Slot; COUNT] = table();

#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlInternalGetExportTable(table: Out<'_, *const c_void>, _id: *const c_void) -> Return {
    contain(|| put(table, std::ptr::from_ref(&TABLE).cast()))
}

const fn table() -> [Slot; COUNT] {
    let mut table = [Slot { silent: not_supported }; COUNT];
    table[SET_POLICY] = Slot { set_policy };
    table[POLICIES] = Slot { policies };
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
