// SPDX-License-Identifier: Apache-2.0
//! Reads a cache: from the bytes of a file to entries whose strings are known to be there. Never panics, and needs memory in
//! proportion to the file.

use super::bytes::{
    ENTRY_BYTES, EXTENSION_HEADER_BYTES, EXTENSION_MAGIC, GENERATOR_TAG, HEADER_ALIGNMENT, HEADER_BYTES, HWCAPS_TAG,
    NEW_MAGIC, OLD_ENTRY_BYTES, OLD_HEADER_BYTES, OLD_MAGIC, SECTION_BYTES, size_at, slice_at, u32_at, u64_at,
};

/// Entries of a cache. Large images have some thousands.
pub const MAX_ENTRIES: usize = 65_536;

/// Bytes of a SONAME, which is the name of a file.
pub const MAX_SONAME_BYTES: usize = 255;

/// Sections of the extensions; glibc knows two.
const MAX_SECTIONS: usize = 64;

/// Subdirectories of `glibc-hwcaps`. The loader has a bit for each.
const MAX_HWCAPS: usize = 1024;

/// Bytes of the text about the writer.
const MAX_GENERATOR_BYTES: usize = 4096;

/// The file is not a cache that `ldconfig` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    #[error("the file does not begin as a cache of glibc 2.2 or later")]
    Magic,
    #[error("the file is shorter than its header announces")]
    Truncated,
    #[error("the cache is for machines of another byte order")]
    ByteOrder,
    #[error("the cache has more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    #[error("entry {0} of the cache refers to a string that is not there")]
    Entry(usize),
    #[error("the strings of the cache do not end with a NUL byte")]
    Strings,
    #[error("the extensions of the cache are damaged")]
    Extensions,
    #[error("the cache would be larger than 4 GiB")]
    TooLarge,
}

/// A cache of the new format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache<'a> {
    /// Byte order, as in the file.
    pub flags: u8,
    pub entries: Vec<Entry>,
    /// The strings as in the file.
    pub strings: &'a [u8],
    pub generator: Option<&'a [u8]>,
    /// Offsets in `strings`. `None` if the file has no such section.
    pub hwcaps: Option<Vec<u32>>,
}

/// Where one library is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Kind of library, and instruction set.
    pub flags: u32,
    /// Offset of the SONAME in the strings.
    pub soname: u32,
    /// Offset of the path in the strings.
    pub path: u32,
    pub os_version: u32,
    /// Bits of hardware capabilities, or a reference to the names in the extensions.
    pub hwcap: u64,
}

impl<'a> Cache<'a> {
    pub fn parse(file: &'a [u8]) -> Result<Self, CacheError> {
        let cache = new_part(file)?;
        let flags = byte_order(cache)?;
        let count = size_at(cache, 20).ok_or(CacheError::Truncated)?;
        let string_bytes = size_at(cache, 24).ok_or(CacheError::Truncated)?;
        if count > MAX_ENTRIES {
            return Err(CacheError::TooManyEntries);
        }
        let entry_bytes = slice_at(cache, HEADER_BYTES, count * ENTRY_BYTES).ok_or(CacheError::Truncated)?;
        let strings_at = HEADER_BYTES + entry_bytes.len();
        let strings = Strings {
            bytes: slice_at(cache, strings_at, string_bytes).ok_or(CacheError::Truncated)?,
            offset: u32::try_from(strings_at).or(Err(CacheError::Truncated))?,
        };
        if strings.bytes.last().is_some_and(|last| *last != 0) {
            return Err(CacheError::Strings);
        }
        let read = |(at, bytes)| entry(bytes, &strings).ok_or(CacheError::Entry(at));
        let entries = entry_bytes.chunks_exact(ENTRY_BYTES).enumerate().map(read).collect::<Result<_, _>>()?;
        let extensions_at = size_at(cache, 32).ok_or(CacheError::Truncated)?;
        let extensions = match extensions_at {
            0 => Extensions::default(),
            offset => extensions(file, offset, &strings).ok_or(CacheError::Extensions)?,
        };
        let Extensions { generator, hwcaps } = extensions;
        Ok(Cache { flags, entries, strings: strings.bytes, generator, hwcaps })
    }

    /// The string at an offset of this cache, without its NUL.
    pub fn string(&self, offset: u32) -> &'a [u8] {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.strings.get(offset..)).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

/// The part that loaders since glibc 2.2 read.
fn new_part(file: &[u8]) -> Result<&[u8], CacheError> {
    let cache = if file.starts_with(OLD_MAGIC) {
        let count = size_at(file, 12).ok_or(CacheError::Truncated)?;
        let end = count.checked_mul(OLD_ENTRY_BYTES).and_then(|bytes| bytes.checked_add(OLD_HEADER_BYTES));
        let start = end.and_then(|end| end.checked_next_multiple_of(HEADER_ALIGNMENT));
        start.and_then(|start| file.get(start..)).ok_or(CacheError::Truncated)?
    } else {
        file
    };
    if !cache.starts_with(NEW_MAGIC) {
        return Err(CacheError::Magic);
    }
    if cache.len() < HEADER_BYTES {
        return Err(CacheError::Truncated);
    }
    Ok(cache)
}

/// The two lowest bits of the flags: 0 for unknown, 2 for little endian, 3 for big endian. Every supported machine is little endian.
fn byte_order(cache: &[u8]) -> Result<u8, CacheError> {
    let flags = cache.get(28).copied().ok_or(CacheError::Truncated)?;
    if matches!(flags & 3, 0 | 2) { Ok(flags) } else { Err(CacheError::ByteOrder) }
}

/// The strings and their offset from the header.
struct Strings<'a> {
    bytes: &'a [u8],
    offset: u32,
}

impl Strings<'_> {
    /// The offset in the strings for one from the header, if there is a string; it ends, because the last byte is NUL.
    fn position(&self, offset: u32) -> Option<u32> {
        let position = offset.checked_sub(self.offset)?;
        self.bytes.get(usize::try_from(position).ok()?)?;
        Some(position)
    }

    /// Bounded, because one long string could be the SONAME of every entry, and each of them is compared.
    fn has_short_string(&self, position: u32) -> Option<()> {
        let start = self.bytes.get(usize::try_from(position).ok()?..)?;
        start.iter().take(MAX_SONAME_BYTES + 1).any(|byte| *byte == 0).then_some(())
    }
}

fn entry(bytes: &[u8], strings: &Strings<'_>) -> Option<Entry> {
    let soname = strings.position(u32_at(bytes, 4)?)?;
    strings.has_short_string(soname)?;
    let path = strings.position(u32_at(bytes, 8)?)?;
    Some(Entry { flags: u32_at(bytes, 0)?, soname, path, os_version: u32_at(bytes, 12)?, hwcap: u64_at(bytes, 16)? })
}

#[derive(Default)]
struct Extensions<'a> {
    generator: Option<&'a [u8]>,
    hwcaps: Option<Vec<u32>>,
}

/// Sections of other tags are left out: only who knows them can say which of their numbers are offsets. The loader ignores
/// sections that it does not know, so none is needed.
fn extensions<'a>(file: &'a [u8], offset: usize, strings: &Strings<'_>) -> Option<Extensions<'a>> {
    if u32_at(file, offset)? != EXTENSION_MAGIC {
        return None;
    }
    let count = size_at(file, offset.checked_add(4)?).filter(|count| *count <= MAX_SECTIONS)?;
    let headers = slice_at(file, offset.checked_add(EXTENSION_HEADER_BYTES)?, count * SECTION_BYTES)?;
    let mut found = Extensions::default();
    for header in headers.chunks_exact(SECTION_BYTES) {
        let section = slice_at(file, size_at(header, 8)?, size_at(header, 12)?)?;
        match u32_at(header, 0)? {
            GENERATOR_TAG if section.len() <= MAX_GENERATOR_BYTES && found.generator.is_none() => {
                found.generator = Some(section);
            }
            HWCAPS_TAG if found.hwcaps.is_none() => found.hwcaps = Some(hwcaps(section, strings)?),
            GENERATOR_TAG | HWCAPS_TAG => return None,
            _ => {}
        }
    }
    Some(found)
}

fn hwcaps(section: &[u8], strings: &Strings<'_>) -> Option<Vec<u32>> {
    let (offsets, rest) = section.as_chunks();
    if !rest.is_empty() || offsets.len() > MAX_HWCAPS {
        return None;
    }
    offsets.iter().map(|offset| strings.position(u32::from_le_bytes(*offset))).collect()
}
