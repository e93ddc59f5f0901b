// SPDX-License-Identifier: Apache-2.0
//! Parsing and merging: caches that `ldconfig` wrote, the committed corpus of the fuzz target, and generated ones.

use std::fs;
use std::path::Path;
use std::process::Command;

use dra_cdi_hook::ld_cache::bytes::{EXTENSION_MAGIC, NEW_MAGIC};
use dra_cdi_hook::ld_cache::parse::MAX_ENTRIES;
use dra_cdi_hook::ld_cache::{Cache, CacheError, merge};
use proptest::prelude::*;

use crate::cache_rules::{check, libraries, library, resolved};

/// The cache of a directory with libraries of this machine, one of them for newer processors.
pub(crate) fn written_by_ldconfig(format: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let libraries = dir.path().join("opt/a");
    let newer = libraries.join("glibc-hwcaps/x86-64-v2");
    fs::create_dir_all(&newer).unwrap();
    fs::create_dir_all(dir.path().join("etc")).unwrap();
    fs::write(dir.path().join("etc/ld.so.conf"), "/opt/a\n").unwrap();
    for (from, to) in library_files() {
        fs::copy(&from, libraries.join(&to)).unwrap();
        fs::copy(&from, newer.join(&to)).unwrap();
    }
    let status = Command::new("/sbin/ldconfig").args(["-c", format, "-r"]).arg(dir.path()).status().unwrap();
    assert!(status.success());
    fs::read(dir.path().join("etc/ld.so.cache")).unwrap()
}

/// Some libraries of this machine, from its cache, and their SONAMEs.
fn library_files() -> Vec<(String, String)> {
    let bytes = fs::read("/etc/ld.so.cache").unwrap();
    let cache = Cache::parse(&bytes).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let entries = resolved(&cache).into_iter().filter(|entry| entry.0 == dra_cdi_hook::ld_cache::merge::FLAGS);
    let files: Vec<_> = entries.map(|entry| (text(entry.2), text(entry.1))).take(20).collect();
    assert!(files.len() > 3);
    files
}

#[test]
fn caches_of_ldconfig_keep_all_entries() {
    let new = written_by_ldconfig("new");
    let compat = written_by_ldconfig("compat");
    assert!(compat.len() > new.len() && compat.starts_with(b"ld.so-1.7.0"));
    for file in [&new, &compat, &fs::read("/etc/ld.so.cache").unwrap()] {
        assert!(!Cache::parse(file).unwrap().entries.is_empty());
        check(file);
    }
    let (new, compat) = (Cache::parse(&new).unwrap(), Cache::parse(&compat).unwrap());
    assert_eq!(resolved(&new), resolved(&compat));
    assert_eq!(new.hwcaps.as_ref().map(Vec::len), Some(1));
    assert_eq!(new.string(new.hwcaps.as_ref().unwrap()[0]), b"x86-64-v2");
    assert!(new.generator.unwrap().starts_with(b"ldconfig"));
    assert_eq!(Cache::parse(&written_by_ldconfig("old")), Err(CacheError::Magic));
}

#[test]
fn the_first_path_of_a_soname_is_used() {
    let file = written_by_ldconfig("new");
    let cache = Cache::parse(&file).unwrap();
    let given = ["/b/libcuda.so.1", "/a/libcuda.so.1", "/b/libcuda.so.1"].map(library);
    let bytes = merge(&cache, &given).unwrap();
    assert_eq!(Cache::parse(&bytes).unwrap().entries.len(), cache.entries.len() + 2);
    let paths: Vec<_> = resolved(&Cache::parse(&bytes).unwrap()).into_iter().map(|entry| entry.2).collect();
    let at = |path: &[u8]| paths.iter().position(|found| found == path).unwrap();
    assert!(at(b"/b/libcuda.so.1") < at(b"/a/libcuda.so.1"));
}

#[test]
fn the_corpus_of_the_fuzz_target_has_no_finding() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/ld_cache");
    let files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(files.len() > 10 && files.iter().any(|file| Cache::parse(file).is_ok()));
    for file in &files {
        check(file);
    }
}

/// A cache with an entry for each SONAME, sorted as given.
pub(crate) fn encode(sonames: &[String], has_extensions: bool) -> Vec<u8> {
    let empty = Cache { flags: 2, entries: Vec::new(), strings: b"", generator: None, hwcaps: None };
    let generator = has_extensions.then_some(b"a test".as_slice());
    let libraries: Vec<_> = sonames.iter().map(|soname| library(&format!("/usr/lib/{soname}"))).collect();
    merge(&Cache { generator, ..empty }, &libraries).unwrap()
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A header with any numbers, and what follows.
pub(crate) fn crafted(entries: u32, string_bytes: u32, extensions: u32, rest: &[u8]) -> Vec<u8> {
    [NEW_MAGIC.as_slice(), &numbers(&[entries, string_bytes, 2, extensions, 0, 0, 0]), rest].concat()
}

/// Crafted to overflow a number, to leave the file or to need much time, with the fault that is found.
pub(crate) fn crafted_caches() -> Vec<(&'static str, Vec<u8>, CacheError)> {
    let most = u32::MAX;
    let entry = |soname: u32, path: u32| numbers(&[0x0303, soname, path, 0, 0, 0]);
    let too_many = u32::try_from(MAX_ENTRIES + 1).unwrap();
    let one = |soname, path, strings: &[u8], string_bytes| {
        crafted(1, string_bytes, 0, &[entry(soname, path), strings.to_vec()].concat())
    };
    let extended = |offset, rest: &[u32]| crafted(0, 0, offset, &numbers(rest));
    let long = vec![b'9'; 1 << 24];
    let many: Vec<u8> = (0..60_000).flat_map(|_| entry(48 + 24 * 60_000, 48 + 24 * 60_000)).collect();
    let long_strings = [&many, &long[..15_000_000], &[0]].concat();
    let old = |count: u32, rest: &[u8]| [b"ld.so-1.7.0\0".as_slice(), &numbers(&[count]), rest].concat();
    vec![
        ("number of entries", crafted(most, 0, 0, b""), CacheError::TooManyEntries),
        ("entries times their size", crafted(most / 24 + 2, 0, 0, b""), CacheError::TooManyEntries),
        ("one entry too many", crafted(too_many, 0, 0, b""), CacheError::TooManyEntries),
        ("entries past the end", crafted(3, 0, 0, &[0; 48]), CacheError::Truncated),
        ("strings past the end", crafted(0, most, 0, b"a\0"), CacheError::Truncated),
        ("strings without end", one(72, 72, b"ab", 2), CacheError::Strings),
        ("SONAME in the header", one(0, 72, b"a\0", 2), CacheError::Entry(0)),
        ("SONAME past the strings", one(74, 72, b"a\0", 2), CacheError::Entry(0)),
        ("path past 4 GiB", one(72, most, b"a\0", 2), CacheError::Entry(0)),
        ("path in the entries", one(72, 71, b"a\0", 2), CacheError::Entry(0)),
        ("long SONAMEs", crafted(60_000, 15_000_001, 0, &long_strings), CacheError::Entry(0)),
        ("extensions past the end", extended(most, &[]), CacheError::Extensions),
        ("extensions in the header", extended(20, &[]), CacheError::Extensions),
        ("number of sections", extended(48, &[EXTENSION_MAGIC, most]), CacheError::Extensions),
        ("section past the end", extended(48, &[EXTENSION_MAGIC, 1, 0, 0, most, most]), CacheError::Extensions),
        ("section of odd size", extended(48, &[EXTENSION_MAGIC, 1, 1, 0, 0, 3]), CacheError::Extensions),
        ("section twice", extended(48, &[EXTENSION_MAGIC, 2, 0, 0, 0, 4, 0, 0, 0, 4]), CacheError::Extensions),
        ("hwcaps without strings", extended(48, &[EXTENSION_MAGIC, 1, 1, 0, 0, 4]), CacheError::Extensions),
        ("big endian", [NEW_MAGIC.as_slice(), &numbers(&[0, 0, 3, 0, 0, 0, 0])].concat(), CacheError::ByteOrder),
        ("header alone", NEW_MAGIC.to_vec(), CacheError::Truncated),
        ("nothing", Vec::new(), CacheError::Magic),
        ("zeros", vec![0; 1 << 20], CacheError::Magic),
        ("old entries", old(most, b""), CacheError::Truncated),
        ("old entries that wrap around", old(most / 12 + 1, &[0; 64]), CacheError::Truncated),
        ("no new part", old(0, b"something else of the file"), CacheError::Magic),
    ]
}

#[test]
fn crafted_caches_are_refused() {
    for (name, file, expected) in crafted_caches() {
        assert_eq!(Cache::parse(&file), Err(expected), "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(file in proptest::collection::vec(any::<u8>(), 0..512)) {
        check(&file);
    }

    #[test]
    fn damaged_caches_are_parsed_or_refused(
        sonames in proptest::collection::vec("lib[a-z0-9]{0,4}(\\.so)?(\\.[0-9]{1,3}){0,2}", 0..12),
        has_extensions in any::<bool>(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        length in any::<Option<proptest::sample::Index>>(),
    ) {
        let mut file = encode(&sonames, has_extensions);
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Some(length) = length {
            file.truncate(length.index(file.len()));
        }
        check(&file);
    }

    #[test]
    fn entries_stay_and_merging_twice_is_merging_once(
        mut sonames in proptest::collection::vec("lib[a-z0-9]{0,4}(\\.so)?(\\.[0-9]{1,3}){0,2}", 0..40),
        has_extensions in any::<bool>(),
    ) {
        sonames.push("libc.so.6".to_owned());
        sonames.push("libcuda.so.1".to_owned());
        let file = encode(&sonames, has_extensions);
        prop_assert!(Cache::parse(&file).is_ok());
        check(&file);
        let once = merge(&Cache::parse(&file).unwrap(), &libraries()).unwrap();
        let twice = merge(&Cache::parse(&once).unwrap(), &libraries()).unwrap();
        prop_assert_eq!(once, twice);
    }
}
