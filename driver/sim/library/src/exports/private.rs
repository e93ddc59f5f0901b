// SPDX-License-Identifier: Apache-2.0
//! The private table behind `nvmlInternalGetExportTable`, without which NVIDIA's nvidia-smi refuses to work.
//!
//! In: any table id. Out: a table whose first word is its size and whose other slots are functions. All answer
//! `NOT_SUPPORTED` but those in [`SLOTS`] that nvidia-smi needs; what they mean was found by running it.

use std::ffi::c_void;

use dra_sim::Code;

use crate::call::{Return, contain};
use crate::ffi::{Out, put};

const COUNT: usize = 512;

/// A table of function pointers that never changes.
struct Table([Slot; COUNT]);

/// A function of any shape: the caller passes arguments that are not looked at.
type Slot = extern "C" fn() -> Return;

static TABLE: Table = Table(slots());

#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlInternalGetExportTable(table: Out<'_, *const c_void>, _id: *const c_void) -> Return {
    contain(|| put(table, std::ptr::from_ref(&TABLE.0).cast()))
}

const fn slots() -> [Slot; COUNT] {
    [not_supported; COUNT]
}

extern "C" fn not_supported() -> Return {
    Code::NOT_SUPPORTED.0
}
