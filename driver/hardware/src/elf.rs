// SPDX-License-Identifier: Apache-2.0
//! The SONAME of a shared library, read from its dynamic section.
//!
//! The file need not be trusted. Only the tables on the way to the name are read, since a driver library has up to 100 MB;
//! every size that the file chooses is bounded. Format: System V ABI, chapters 4 and 5; 64-bit little-endian, as on every
//! platform of the driver.

use std::fs::File;

use object::LittleEndian;
use object::elf::{
    DT_NULL, DT_SONAME, DT_STRTAB, ELFCLASS32, EM_AARCH64, EM_X86_64, FileHeader64, PT_DYNAMIC, PT_LOAD,
    ProgramHeader64,
};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use object::read::{ReadCache, ReadRef};

/// A file without a readable SONAME.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    #[error("not a readable 64-bit little-endian ELF file")]
    NotElf,
    /// Not this architecture, or of 32 bits.
    #[error("a library for another kind of processor")]
    OtherMachine,
    #[error("malformed or truncated dynamic section")]
    Malformed,
    #[error("no SONAME")]
    NoSoname,
}

/// Driver libraries have about ten segments.
const MAX_SEGMENTS: u16 = 128;

/// Bytes of the dynamic section; driver libraries have about forty entries of 16 bytes.
const MAX_DYNAMIC: u64 = 16 << 10;

/// File names are not longer on Linux.
const MAX_NAME: u64 = 255;

/// Reads the SONAME, such as `libcuda.so.1`.
pub fn soname(file: &File) -> Result<String, ElfError> {
    let data = &ReadCache::new(file);
    if is_of_other_machine(data) {
        return Err(ElfError::OtherMachine);
    }
    let header = FileHeader64::<LittleEndian>::parse(data).map_err(|_unsupported| ElfError::NotElf)?;
    let endian = header.endian().map_err(|_big| ElfError::NotElf)?;
    if header.e_phnum(endian) > MAX_SEGMENTS {
        return Err(ElfError::Malformed);
    }
    let segments = header.program_headers(endian, data).map_err(|_bounds| ElfError::Malformed)?;
    let dynamic = segments.iter().find(|segment| segment.p_type(endian) == PT_DYNAMIC).ok_or(ElfError::NoSoname)?;
    if dynamic.p_filesz(endian) > MAX_DYNAMIC {
        return Err(ElfError::Malformed);
    }
    let entries = dynamic.dynamic(endian, data).map_err(|_bounds| ElfError::Malformed)?.unwrap_or_default();
    let entries = entries.iter().take_while(|entry| entry.d_tag(endian) != DT_NULL);
    let value = |tag: i64| entries.clone().find(|entry| entry.d_tag(endian) == tag).map(|entry| entry.d_val(endian));
    let name = value(DT_SONAME).ok_or(ElfError::NoSoname)?;
    let address = value(DT_STRTAB).and_then(|strings| strings.checked_add(name)).ok_or(ElfError::Malformed)?;
    let offset = segments.iter().find_map(|segment| file_offset(segment, address)).ok_or(ElfError::Malformed)?;
    file_name(data, offset).ok_or(ElfError::Malformed)
}

/// `e_machine` of the libraries of this process.
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { EM_AARCH64 } else { EM_X86_64 };

/// Whether it is an ELF file whose class, at byte 4, or machine, at byte 18, is another one.
fn is_of_other_machine<'data>(data: impl ReadRef<'data>) -> bool {
    match data.read_bytes_at(0, 20) {
        Ok(&[0x7f, b'E', b'L', b'F', class, .., low, high]) => {
            class == ELFCLASS32 || u16::from_le_bytes([low, high]) != MACHINE
        }
        Ok(_) | Err(()) => false,
    }
}

/// The offset in the file of an address in memory.
fn file_offset(segment: &ProgramHeader64<LittleEndian>, address: u64) -> Option<u64> {
    let (offset, size) = segment.file_range(LittleEndian);
    let skip = address.checked_sub(segment.p_vaddr(LittleEndian)).filter(|skip| *skip < size)?;
    offset.checked_add(skip).filter(|_offset| segment.p_type(LittleEndian) == PT_LOAD)
}

/// A text that can be the name of a file in a directory, and that does not lead to another directory.
fn file_name<'data>(data: impl ReadRef<'data>, offset: u64) -> Option<String> {
    let end = data.len().ok()?.min(offset.checked_add(MAX_NAME + 1)?);
    let bytes = data.read_bytes_at_until(offset..end, 0).ok()?;
    let name = std::str::from_utf8(bytes).ok()?;
    let is_name = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    is_name.then(|| name.to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    /// The smallest library with a SONAME: header, two segments, three dynamic entries, strings.
    pub(crate) fn library(soname: &str) -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        elf[18..20].copy_from_slice(&MACHINE.to_le_bytes());
        elf[32] = 64; // program headers follow the header
        elf[54] = 56;
        elf[56] = 2;
        for (kind, offset, size) in [(PT_LOAD, 0_u64, 4096_u64), (PT_DYNAMIC, 176, 48)] {
            elf.extend(kind.to_le_bytes());
            elf.extend(0_u32.to_le_bytes());
            elf.extend([offset, offset + 0x1000, 0, size, size, 8].into_iter().flat_map(u64::to_le_bytes));
        }
        for (tag, value) in [(DT_STRTAB, 224 + 0x1000), (DT_SONAME, 1), (DT_NULL, 0)] {
            elf.extend([tag, value].into_iter().flat_map(i64::to_le_bytes));
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
