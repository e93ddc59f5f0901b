// SPDX-License-Identifier: Apache-2.0
//! The content of an `ld.so.cache`, from which the dynamic loader of glibc learns where the library of a SONAME is.
//!
//! ```text
//! [old header, old entries, padding]   since glibc 2.32 only with `ldconfig -c compat`; ignored by every loader since 2.2
//! header      48 bytes    magic, number of entries, bytes of strings, byte order, offset of the extensions
//! entries     24 bytes    flags, offset of the SONAME, offset of the path, OS version, hardware capabilities
//! strings                 each ends with NUL; offsets count from the header, and one string may be the end of another
//! extensions              sections of a tag, an offset and a size; these offsets count from the start of the file
//! ```
//!
//! Source: `sysdeps/generic/dl-cache.h`, `elf/cache.c` and `elf/dl-cache.c` of glibc 2.36, and files that `ldconfig -c new` and
//! `-c compat` of that version wrote. A cache is hostile until it is parsed: every number is checked before it is used, and
//! what `ldconfig` never writes is refused.

pub mod bytes;

pub mod order;

pub mod parse;

pub mod merge;

pub use merge::{Library, merge};
pub use parse::{Cache, CacheError};
