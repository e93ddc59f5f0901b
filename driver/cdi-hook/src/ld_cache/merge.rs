// SPDX-License-Identifier: Apache-2.0
//! Adds libraries to a cache. All other entries stay as they are and in their order, and the loader finds an added library
//! before others of the same SONAME.
//!
//! Merging the result again gives the same bytes. An old part before the new one is left out, because every loader since glibc
//! 2.2 accepts a file without it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::bytes::{ENTRY_BYTES, EXTENSION_MAGIC, GENERATOR_TAG, HEADER_BYTES, HWCAPS_TAG, NEW_MAGIC, SECTION_BYTES};
use super::order::compare;
use super::parse::{Cache, CacheError, Entry};

/// A library for the loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// Has no NUL, as all that comes from a command line.
    pub soname: Vec<u8>,
    /// Absolute path in the container; has no NUL.
    pub path: Vec<u8>,
}

/// The flags of libraries of the instruction set that this program is built for: libc 6, and 64 bits of x86-64 or of aarch64.
/// Source: `FLAG_ELF_LIBC6`, `FLAG_X8664_LIB64` and `FLAG_AARCH64_LIB64` in `sysdeps/generic/ldconfig.h` of glibc.
pub const FLAGS: u32 = if cfg!(target_arch = "aarch64") { 0x0a03 } else { 0x0303 };

/// Bytes of a cache with these libraries. One that is given twice is added once.
pub fn merge(cache: &Cache<'_>, libraries: &[Library]) -> Result<Vec<u8>, CacheError> {
    let mut given = BTreeSet::new();
    let different = libraries.iter().filter(|library| given.insert((&library.soname, &library.path)));
    let mut added: Vec<Added<'_>> = different.map(|library| Added { library, equal: None }).collect();
    // The order is stable, so of two paths of one SONAME the first is used.
    added.sort_by(|left, right| compare(&right.library.soname, &left.library.soname));
    let others = without_equal(cache, &mut added);
    let mut merged =
        Merged { entries: Vec::with_capacity(others.len() + added.len()), strings: cache.strings.to_vec() };
    let mut added = added.into_iter().peekable();
    for entry in others {
        let soname = cache.string(entry.soname);
        while let Some(ours) = added.next_if(|ours| compare(&ours.library.soname, soname) != Ordering::Less) {
            merged.add(&ours)?;
        }
        merged.entries.push(entry);
    }
    for ours in added {
        merged.add(&ours)?;
    }
    merged.encode(cache)
}

/// A library, and the offsets of the strings of an equal entry of the cache.
struct Added<'a> {
    library: &'a Library,
    equal: Option<(u32, u32)>,
}

/// The entries of a cache but those that an earlier merge has added, whose strings are used again.
fn without_equal(cache: &Cache<'_>, added: &mut [Added<'_>]) -> Vec<Entry> {
    let mut by_soname: BTreeMap<&[u8], Vec<&mut Added<'_>>> = BTreeMap::new();
    for ours in added {
        by_soname.entry(&ours.library.soname).or_default().push(ours);
    }
    let mut is_other = |entry: &Entry| {
        let is_plain = entry.flags == FLAGS && entry.os_version == 0 && entry.hwcap == 0;
        let mut same_soname = by_soname.get_mut(cache.string(entry.soname)).into_iter().flatten();
        let equal = same_soname.find(|ours| is_plain && is_string(cache, entry.path, &ours.library.path));
        match equal {
            Some(ours) => ours.equal = ours.equal.or(Some((entry.soname, entry.path))),
            None => return true,
        }
        false
    };
    cache.entries.iter().filter(|entry| is_other(entry)).copied().collect()
}

/// Compares without reading more of a string than `expected` has, because a path of a cache may be long.
fn is_string(cache: &Cache<'_>, offset: u32, expected: &[u8]) -> bool {
    let rest = usize::try_from(offset).ok().and_then(|offset| cache.strings.get(offset..)).unwrap_or_default();
    rest.strip_prefix(expected).is_some_and(|rest| rest.first() == Some(&0))
}

/// A cache before it is encoded; offsets count from the start of the strings.
struct Merged {
    entries: Vec<Entry>,
    strings: Vec<u8>,
}

impl Merged {
    fn add(&mut self, Added { library, equal }: &Added<'_>) -> Result<(), CacheError> {
        let (soname, path) = match equal {
            Some(offsets) => *offsets,
            None => (self.add_string(&library.soname)?, self.add_string(&library.path)?),
        };
        self.entries.push(Entry { flags: FLAGS, soname, path, os_version: 0, hwcap: 0 });
        Ok(())
    }

    fn add_string(&mut self, string: &[u8]) -> Result<u32, CacheError> {
        let offset = small(self.strings.len())?;
        self.strings.extend_from_slice(string);
        self.strings.push(0);
        Ok(offset)
    }

    fn encode(&self, cache: &Cache<'_>) -> Result<Vec<u8>, CacheError> {
        let strings_at = HEADER_BYTES + self.entries.len() * ENTRY_BYTES;
        let extensions_at = (strings_at + self.strings.len()).next_multiple_of(4);
        let has_extensions = cache.generator.is_some() || cache.hwcaps.is_some();
        let base = small(strings_at)?;
        let mut file = Vec::with_capacity(extensions_at);
        file.extend_from_slice(NEW_MAGIC);
        put(&mut file, &[small(self.entries.len())?, small(self.strings.len())?]);
        file.extend_from_slice(&[cache.flags, 0, 0, 0]);
        put(&mut file, &[if has_extensions { small(extensions_at)? } else { 0 }, 0, 0, 0]);
        for Entry { flags, soname, path, os_version, hwcap } in &self.entries {
            put(&mut file, &[*flags, from_header(*soname, base)?, from_header(*path, base)?, *os_version]);
            file.extend_from_slice(&hwcap.to_le_bytes());
        }
        file.extend_from_slice(&self.strings);
        if has_extensions {
            file.resize(extensions_at, 0);
            extend(&mut file, cache, base)?;
        }
        Ok(file)
    }
}

/// Appends the extensions.
fn extend(file: &mut Vec<u8>, cache: &Cache<'_>, base: u32) -> Result<(), CacheError> {
    let mut hwcaps = Vec::new();
    for offset in cache.hwcaps.iter().flatten() {
        put(&mut hwcaps, &[from_header(*offset, base)?]);
    }
    let hwcaps = cache.hwcaps.is_some().then_some((HWCAPS_TAG, hwcaps.as_slice()));
    let generator = cache.generator.map(|text| (GENERATOR_TAG, text));
    // The numbers come first, because they must be aligned.
    let sections: Vec<(u32, &[u8])> = hwcaps.into_iter().chain(generator).collect();
    put(file, &[EXTENSION_MAGIC, small(sections.len())?]);
    let mut content_at = file.len() + sections.len() * SECTION_BYTES;
    for (tag, content) in &sections {
        put(file, &[*tag, 0, small(content_at)?, small(content.len())?]);
        content_at += content.len();
    }
    for (_, content) in sections {
        file.extend_from_slice(content);
    }
    Ok(())
}

fn put(file: &mut Vec<u8>, numbers: &[u32]) {
    for number in numbers {
        file.extend_from_slice(&number.to_le_bytes());
    }
}

fn small(size: usize) -> Result<u32, CacheError> {
    u32::try_from(size).or(Err(CacheError::TooLarge))
}

/// The offset from the header of a string.
fn from_header(offset: u32, base: u32) -> Result<u32, CacheError> {
    offset.checked_add(base).ok_or(CacheError::TooLarge)
}
