// SPDX-License-Identifier: Apache-2.0
//! The SONAME of a shared library, read from its dynamic section.
//!
//! In comes a file nobody has to trust, out goes the name or the reason why there is none. Only the few hundred bytes on
//! the way to the name are read (a driver library has up to 100 MB); every offset and count is bounded.
//! Format: System V ABI, chapters 4 and 5; 64-bit little-endian, which every platform of the driver is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file without a readable SONAME.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It cannot be read, or ends too early.
    #[error("unable to read it as an ELF file")]
    Unreadable(#[source] io::Error),
    /// It is something else.
    #[error("it is not a 64-bit little-endian ELF file")]
    NotElf,
    /// Its tables contradict each other.
    #[error("its dynamic section is malformed")]
    Malformed,
    /// It names itself nothing.
    #[error("it has no SONAME")]
    NoSoname,
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_NULL: u64 = 0;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;

/// More program headers than any driver library has (they have about ten).
const MAX_SEGMENTS: u16 = 128;
/// More dynamic entries than any driver library has (they have about forty).
const MAX_DYNAMIC: usize = 1024;
/// File names are not longer on Linux.
const MAX_NAME: usize = 255;

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

/// Reads the SONAME, such as `libcuda.so.1`.
pub fn soname(file: &File) -> Result<String, ElfError> {
    let segments = segments(file)?;
    let dynamic = segments.iter().find(|segment| segment.kind == PT_DYNAMIC).ok_or(ElfError::NoSoname)?;
    let (name, strings) = name_and_strings(file, dynamic)?;
    let strings = segments.iter().find_map(|segment| segment.offset_of(strings)).ok_or(ElfError::Malformed)?;
    text_at(file, strings.checked_add(name).ok_or(ElfError::Malformed)?)
}

fn segments(file: &File) -> Result<Vec<Segment>, ElfError> {
    let header: [u8; 64] = bytes_at(file, 0)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(ElfError::NotElf);
    }
    let table = number(&header, 32);
    let (size, count) = (short(&header, 54), short(&header, 56));
    if size < 56 || count > MAX_SEGMENTS {
        return Err(ElfError::Malformed);
    }
    (0..u64::from(count)).map(|index| segment(file, table, u64::from(size) * index)).collect()
}

fn segment(file: &File, table: u64, skip: u64) -> Result<Segment, ElfError> {
    let header: [u8; 56] = bytes_at(file, table.checked_add(skip).ok_or(ElfError::Malformed)?)?;
    let (offset, address, size) = (number(&header, 8), number(&header, 16), number(&header, 32));
    Ok(Segment { kind: word(&header, 0), offset, address, size })
}

impl Segment {
    /// Where an address of memory lies in the file.
    fn offset_of(&self, address: u64) -> Option<u64> {
        let skip = address.checked_sub(self.address).filter(|skip| self.kind == PT_LOAD && *skip < self.size)?;
        self.offset.checked_add(skip)
    }
}

/// The offset of the name in the string table and the address of that table.
fn name_and_strings(file: &File, dynamic: &Segment) -> Result<(u64, u64), ElfError> {
    let (mut name, mut strings) = (None, None);
    let mut offset = dynamic.offset;
    for _ in 0..MAX_DYNAMIC.min(usize::try_from(dynamic.size / 16).unwrap_or(MAX_DYNAMIC)) {
        let entry: [u8; 16] = bytes_at(file, offset)?;
        match number(&entry, 0) {
            DT_NULL => break,
            DT_STRTAB => strings = Some(number(&entry, 8)),
            DT_SONAME => name = Some(number(&entry, 8)),
            _ => {}
        }
        offset = offset.checked_add(16).ok_or(ElfError::Malformed)?;
    }
    Ok((name.ok_or(ElfError::NoSoname)?, strings.ok_or(ElfError::Malformed)?))
}

/// A name: what a file in a directory may be called, and nothing that could lead elsewhere.
fn text_at(file: &File, offset: u64) -> Result<String, ElfError> {
    let mut buffer = [0; MAX_NAME + 1];
    let length = file.read_at(&mut buffer, offset).map_err(ElfError::Unreadable)?;
    let bytes: Vec<u8> = buffer.into_iter().take(length).take_while(|byte| *byte != 0).collect();
    let is_name = (1..=MAX_NAME).contains(&bytes.len()) && bytes.len() < length;
    let name = String::from_utf8(bytes).ok().filter(|name| is_name && !name.contains('/') && !name.starts_with('.'));
    name.ok_or(ElfError::Malformed)
}

fn bytes_at<const N: usize>(file: &File, offset: u64) -> Result<[u8; N], ElfError> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, offset).map_err(ElfError::Unreadable)?;
    Ok(bytes)
}

fn short(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u16::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u32::from_le_bytes)
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    /// The smallest library with a SONAME: header, two segments, three dynamic entries, strings.
    pub(crate) fn library(soname: &str) -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        elf[32] = 64; // program headers follow the header
        elf[54] = 56;
        elf[56] = 2;
        for (kind, offset, size) in [(PT_LOAD, 0_u64, 4096_u64), (PT_DYNAMIC, 176, 48)] {
            elf.extend(kind.to_le_bytes());
            elf.extend(0_u32.to_le_bytes());
            elf.extend([offset, offset + 0x1000, 0, size, size, 8].into_iter().flat_map(u64::to_le_bytes));
        }
        for (tag, value) in [(DT_STRTAB, 224 + 0x1000), (DT_SONAME, 1), (DT_NULL, 0)] {
            elf.extend([tag, value].into_iter().flat_map(u64::to_le_bytes));
        }
        elf.push(0);
        elf.extend(soname.as_bytes());
        elf.push(0);
        elf
    }

    fn read(bytes: &[u8]) -> Result<String, ElfError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        soname(&file)
    }

    #[test]
    fn the_soname_is_found() {
        assert_eq!(read(&library("libcuda.so.1")).unwrap(), "libcuda.so.1");
    }

    #[test]
    fn a_real_library_has_the_name_the_linker_gave_it() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path =
            maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("/libc.so"));
        assert_eq!(soname(&File::open(path.unwrap()).unwrap()).unwrap(), "libc.so.6");
    }

    #[test]
    fn names_that_would_lead_elsewhere_are_refused() {
        for bad in ["", "../libcuda.so.1", "/etc/passwd", ".hidden", &"x".repeat(300)] {
            assert!(matches!(read(&library(bad)), Err(ElfError::Malformed)), "{bad}");
        }
    }

    #[test]
    fn no_truncation_and_no_flipped_byte_is_a_panic_or_a_hang() {
        let whole = library("libcuda.so.1");
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "cut to {length} bytes");
        }
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0xff;
            drop(read(&broken));
        }
        assert!(matches!(
            read(b"#!/bin/sh\n# not a library, but long enough to be taken for one.....\n"),
            Err(ElfError::NotElf)
        ));
    }
}
