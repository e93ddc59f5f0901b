// SPDX-License-Identifier: Apache-2.0
//! Sizes and numbers of the format, and reading them at an offset without ever reading past the end.

/// Magic and version of the format that loaders since glibc 2.2 read.
pub const NEW_MAGIC: &[u8; 20] = b"glibc-ld.so.cache1.1";

/// Magic of the format before it.
pub const OLD_MAGIC: &[u8; 11] = b"ld.so-1.7.0";

pub const OLD_HEADER_BYTES: usize = 16;

pub const OLD_ENTRY_BYTES: usize = 12;

/// The new header after the old entries begins at a multiple of this.
pub const HEADER_ALIGNMENT: usize = 8;

pub const HEADER_BYTES: usize = 48;

pub const ENTRY_BYTES: usize = 24;

/// First number of the extensions.
pub const EXTENSION_MAGIC: u32 = 0xeaa4_2174;

/// Magic and number of sections.
pub const EXTENSION_HEADER_BYTES: usize = 8;

/// Tag, flags, offset and size.
pub const SECTION_BYTES: usize = 16;

/// Text about the `ldconfig` that wrote the file.
pub const GENERATOR_TAG: u32 = 0;

/// Offsets of the names of the subdirectories of `glibc-hwcaps`, which entries refer to by their index.
pub const HWCAPS_TAG: u32 = 1;

pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}

pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().copied().map(u64::from_le_bytes)
}

/// A number of 32 bits as an offset or size.
pub fn size_at(bytes: &[u8], offset: usize) -> Option<usize> {
    u32_at(bytes, offset).and_then(|number| usize::try_from(number).ok())
}

/// `size` bytes at `offset`.
pub fn slice_at(bytes: &[u8], offset: usize, size: usize) -> Option<&[u8]> {
    bytes.get(offset..)?.get(..size)
}
