// SPDX-License-Identifier: Apache-2.0
//! Tiny real shared objects, written byte by byte, that stand for the driver's other libraries.
//!
//! In: a SONAME and functions that return a constant. Out: an ELF64 file that `ld.so` loads, `ldconfig` indexes and
//! `readelf -d` prints. No compiler is needed where the tree is made. Source: System V gABI, chapters 4 and 5.

/// A function without arguments that returns a constant.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    pub name: &'static str,
    /// The return value, in `eax`.
    pub returns: u32,
}

const EHDR_SIZE: u64 = 64;
const PHDR_SIZE: u64 = 56;
const SYMBOL_SIZE: u64 = 24;
const PAGE: u64 = 0x1000;
const PROGRAM_HEADERS: u64 = 4;

/// The bytes of a shared object: headers, tables and code in a first, executable page range, `.dynamic` in a second,
/// writable one, since the loader relocates it in place.
pub fn shared_object(soname: &str, functions: &[Function]) -> Vec<u8> {
    let mut names = vec![0_u8];
    let soname_at = push_name(&mut names, soname);
    let name_offsets: Vec<u64> = functions.iter().map(|function| push_name(&mut names, function.name)).collect();

    let symbols = len(functions) + 1;
    let hash_at = EHDR_SIZE + PROGRAM_HEADERS * PHDR_SIZE;
    let symbols_at = align(hash_at + 4 * (3 + symbols), 8);
    let names_at = symbols_at + SYMBOL_SIZE * symbols;
    let code_at = align(names_at + len(&names), 16);
    let code: Vec<[u8; 8]> = functions.iter().map(|function| machine_code(function.returns)).collect();
    let text_end = code_at + 8 * len(&code);
    let dynamic_at = align(text_end, PAGE);

    let dynamic: [(u64, u64); 7] = [
        (14, soname_at),   // DT_SONAME
        (4, hash_at),      // DT_HASH
        (5, names_at),     // DT_STRTAB
        (6, symbols_at),   // DT_SYMTAB
        (10, len(&names)), // DT_STRSZ
        (11, SYMBOL_SIZE), // DT_SYMENT
        (0, 0),            // DT_NULL
    ];
    let dynamic_size = 16 * len(&dynamic);

    let mut out = header();
    program_header(&mut out, 1, 5, (0, 0, text_end), PAGE); // PT_LOAD, read and execute
    program_header(&mut out, 1, 6, (dynamic_at, dynamic_at, dynamic_size), PAGE); // PT_LOAD, read and write
    program_header(&mut out, 2, 6, (dynamic_at, dynamic_at, dynamic_size), 8); // PT_DYNAMIC
    program_header(&mut out, 0x6474_e551, 6, (0, 0, 0), 16); // PT_GNU_STACK, not executable
    hash_table(&mut out, symbols);
    pad(&mut out, symbols_at);
    out.extend([0; 24]);
    for (index, name_at) in (0_u64..).zip(&name_offsets) {
        word(&mut out, *name_at);
        out.extend([0x12, 0, 1, 0]); // STB_GLOBAL STT_FUNC, default visibility, a section that is not undefined
        long(&mut out, code_at + 8 * index);
        long(&mut out, 8);
    }
    out.extend(&names);
    pad(&mut out, code_at);
    out.extend(code.iter().flatten());
    pad(&mut out, dynamic_at);
    for (tag, value) in dynamic {
        long(&mut out, tag);
        long(&mut out, value);
    }
    out
}

fn header() -> Vec<u8> {
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend(3_u16.to_le_bytes()); // ET_DYN
    out.extend(MACHINE.to_le_bytes());
    word(&mut out, 1);
    long(&mut out, 0); // no entry
    long(&mut out, EHDR_SIZE); // program headers follow
    long(&mut out, 0); // no section headers
    word(&mut out, 0);
    for half in [64_u16, 56, 4, 64, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    out
}

/// `place` is offset, address and size.
fn program_header(out: &mut Vec<u8>, kind: u64, flags: u64, place: (u64, u64, u64), alignment: u64) {
    let (offset, address, size) = place;
    word(out, kind);
    word(out, flags);
    for value in [offset, address, address, size, size, alignment] {
        long(out, value);
    }
}

/// One bucket that chains all symbols: short, and right for any name.
fn hash_table(out: &mut Vec<u8>, symbols: u64) {
    word(out, 1);
    word(out, symbols);
    word(out, u64::from(symbols > 1));
    word(out, 0);
    for symbol in 1..symbols {
        word(out, if symbol + 1 < symbols { symbol + 1 } else { 0 });
    }
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// `mov eax, value; ret`.
#[cfg(target_arch = "x86_64")]
fn machine_code(value: u32) -> [u8; 8] {
    let [a, b, c, d] = value.to_le_bytes();
    [0xb8, a, b, c, d, 0xc3, 0x90, 0x90]
}

/// `mov w0, value; ret`, for values below 65536.
#[cfg(target_arch = "aarch64")]
fn machine_code(value: u32) -> [u8; 8] {
    let [a, b, c, d] = (0x5280_0000_u32 | ((value & 0xffff) << 5)).to_le_bytes();
    [a, b, c, d, 0xc0, 0x03, 0x5f, 0xd6]
}

fn push_name(names: &mut Vec<u8>, name: &str) -> u64 {
    let at = len(names);
    names.extend(name.bytes().chain([0]));
    at
}

fn len<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

const fn align(value: u64, to: u64) -> u64 {
    value.div_ceil(to) * to
}

fn pad(out: &mut Vec<u8>, to: u64) {
    out.resize(usize::try_from(to).unwrap_or(usize::MAX), 0);
}

fn word(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_le_bytes().iter().take(4));
}

fn long(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_le_bytes());
}
