// SPDX-License-Identifier: Apache-2.0
//! The pointers of the caller as types with the operations that are valid for each. Only this file uses them.
//!
//! In: raw arguments. Out: checked access with NVML's buffer rules. An `Option<&mut T>` has the layout of a nullable
//! pointer, so single outputs need no code here; C callers pass aligned objects of the declared type.

use std::ffi::{CStr, c_char, c_uint};
use std::mem::MaybeUninit;

use dra_sim::Code;

/// A single output; null is `INVALID_ARGUMENT`.
pub(crate) type Out<'a, T> = Option<&'a mut MaybeUninit<T>>;
/// A single value read and written.
pub(crate) type InOut<'a, T> = Option<&'a mut T>;

/// Writes a single output.
pub(crate) fn put<T>(out: Out<'_, T>, value: T) -> Result<(), Code> {
    out.ok_or(Code::INVALID_ARGUMENT)?.write(value);
    Ok(())
}

/// A text buffer of the caller; its length comes as the next argument.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct TextOut(*mut c_char);

impl TextOut {
    /// Copies text and its final zero: `INSUFFICIENT_SIZE` if it does not fit.
    pub(crate) fn put(self, length: c_uint, text: &str) -> Result<(), Code> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        if size(length) <= text.len() {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        // SAFETY: NVML's contract: the buffer has `length` bytes, and text plus zero is at most that.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), self.0.cast(), text.len()) };
        // SAFETY: as above; `text.len()` is below `length`.
        let end = unsafe { self.0.add(text.len()) };
        // SAFETY: as above; `end` is inside the buffer.
        unsafe { end.write(0) };
        Ok(())
    }
}

/// A text argument.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct TextIn(*const c_char);

impl TextIn {
    /// The text; null or not UTF-8 is `INVALID_ARGUMENT`.
    pub(crate) fn text(&self) -> Result<&str, Code> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: NVML's contract: a string that ends with zero and is valid during the call.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map_err(|_not_text| Code::INVALID_ARGUMENT)
    }
}

/// An array of the caller; its length comes as another argument.
#[repr(transparent)]
pub(crate) struct ListOut<T>(*mut T);

impl<T> ListOut<T> {
    /// NVML's count-in, count-out rule: with room for all (or no array, to get the count alone) success, else
    /// `INSUFFICIENT_SIZE`; the count is set in both cases.
    pub(crate) fn put(self, count: InOut<'_, c_uint>, items: Vec<T>) -> Result<(), Code> {
        let count = count.ok_or(Code::INVALID_ARGUMENT)?;
        let room = size(*count);
        *count = narrow(items.len());
        if self.0.is_null() {
            return Ok(());
        }
        if room < items.len() {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        self.fill(items)
    }

    /// Writes all items; the caller has checked or prescribed the room.
    pub(crate) fn fill(self, items: Vec<T>) -> Result<(), Code> {
        if items.is_empty() {
            return Ok(());
        }
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        for (index, item) in items.into_iter().enumerate() {
            // SAFETY: NVML's contract: the array has the size that the caller passed, and the callers here checked it.
            let place = unsafe { self.0.add(index) };
            // SAFETY: as above.
            unsafe { place.write(item) };
        }
        Ok(())
    }
}

/// An array that is read and written, such as field values.
#[repr(transparent)]
pub(crate) struct ListInOut<T>(*mut T);

impl<T> ListInOut<T> {
    pub(crate) fn items(&mut self, count: usize) -> Result<&mut [T], Code> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: NVML's contract: the array has `count` initialised items and no other thread uses it during the call.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.0, count) })
    }
}

/// A structure that begins with its version word and whose size depends on it.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Versioned(*mut c_uint);

impl Versioned {
    pub(crate) fn version(self) -> Result<c_uint, Code> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: every versioned structure of NVML begins with an initialised `unsigned int version`.
        Ok(unsafe { self.0.read() })
    }

    /// Reads the structure, or answers `ARGUMENT_VERSION_MISMATCH`.
    pub(crate) fn read<T, R>(self, number: u32, look: impl FnOnce(&T) -> R) -> Result<R, Code> {
        if self.version()? != struct_version::<T>(number) {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        // SAFETY: the version word holds the size of `T`, so the caller's object is a `T`, initialised as an input.
        let value = unsafe { &*self.0.cast::<T>() };
        Ok(look(value))
    }

    /// Writes the structure if its version word is that of `T` in version `number`; returns whether it did.
    pub(crate) fn put_if<T>(self, number: u32, value: impl FnOnce(c_uint) -> T) -> Result<bool, Code> {
        let version = self.version()?;
        if version != struct_version::<T>(number) {
            return Ok(false);
        }
        // SAFETY: the version word holds the size of `T`, so the caller's object is a `T`.
        unsafe { self.0.cast::<T>().write(value(version)) };
        Ok(true)
    }

    /// Writes the structure, or answers `ARGUMENT_VERSION_MISMATCH`.
    pub(crate) fn put<T>(self, number: u32, value: impl FnOnce(c_uint) -> T) -> Result<(), Code> {
        if self.put_if(number, value)? { Ok(()) } else { Err(Code::ARGUMENT_VERSION_MISMATCH) }
    }
}

/// The version word of a structure: its size and, in the top byte, its number (nvml.h `NVML_STRUCT_VERSION`).
pub(crate) fn struct_version<T>(number: u32) -> c_uint {
    narrow(size_of::<T>()) | (number << 24)
}

/// A fixed text field of a structure, cut if need be, ended by zero.
pub(crate) fn text_field<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().take(N.saturating_sub(1)).zip(text.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    field
}

/// A count for C; NVML has no counts that large.
pub(crate) fn narrow(value: usize) -> c_uint {
    c_uint::try_from(value).unwrap_or(c_uint::MAX)
}

/// A count from C.
pub(crate) fn size(value: c_uint) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
