// SPDX-License-Identifier: Apache-2.0
//! What must hold for every file that is taken for an `ld.so.cache`. The fuzz target checks the same.

use dra_cdi_hook::ld_cache::parse::{Entry, MAX_ENTRIES};
use dra_cdi_hook::ld_cache::{Cache, Library, merge};

/// The libraries that are added: before, between and after those of an image, and one of a name that images have.
pub(crate) fn libraries() -> Vec<Library> {
    let paths = [
        "/usr/lib64/libcuda.so.1",
        "/usr/lib64/libnvidia-ml.so.1",
        "/opt/driver/libc.so.6",
        "/usr/lib64/libcuda.so",
        "/usr/lib64/1.so",
        "/usr/lib64/zz.so.10",
    ];
    paths.map(library).to_vec()
}

pub(crate) fn library(path: &str) -> Library {
    let soname = path.rsplit('/').next().unwrap_or_default();
    Library { soname: soname.into(), path: path.into() }
}

/// An entry with its strings.
pub(crate) type Resolved = (u32, Vec<u8>, Vec<u8>, u32, u64);

pub(crate) fn resolved(cache: &Cache<'_>) -> Vec<Resolved> {
    let resolve = |entry: &Entry| {
        let Entry { flags, soname, path, os_version, hwcap } = *entry;
        (flags, cache.string(soname).to_vec(), cache.string(path).to_vec(), os_version, hwcap)
    };
    cache.entries.iter().map(resolve).collect()
}

fn hwcaps(cache: &Cache<'_>) -> Option<Vec<Vec<u8>>> {
    cache.hwcaps.as_ref().map(|hwcaps| hwcaps.iter().map(|offset| cache.string(*offset).to_vec()).collect())
}

/// Parses and merges a file, and compares the result with the file.
pub(crate) fn check(file: &[u8]) {
    let Ok(old) = Cache::parse(file) else { return };
    assert!(old.entries.len() <= MAX_ENTRIES);
    let libraries = libraries();
    let merged = merge(&old, &libraries);
    assert!(merged.is_ok(), "a cache that was parsed can be merged: {merged:?}");
    let bytes = merged.unwrap_or_default();
    let added: usize = libraries.iter().map(|library| 26 + library.soname.len() + library.path.len()).sum();
    // The extensions of a crafted cache may lie within other parts; their size is bounded.
    assert!(bytes.len() <= file.len() + added + 2 * 4096 + 64, "the result grows by what was added");
    let Ok(new) = Cache::parse(&bytes) else {
        assert!(old.entries.len() + libraries.len() > MAX_ENTRIES, "the result is a cache");
        return;
    };
    let ours = |entry: &Resolved| {
        libraries.iter().any(|library| *entry == (merge_flags(), library.soname.clone(), library.path.clone(), 0, 0))
    };
    let others = |cache| resolved(cache).into_iter().filter(|entry| !ours(entry)).collect::<Vec<_>>();
    assert_eq!(others(&old), others(&new), "entries of the image stay in their order");
    assert_eq!(
        resolved(&new).iter().filter(|entry| ours(entry)).count(),
        libraries.len(),
        "each library is there once"
    );
    for library in &libraries {
        let found =
            resolved(&new).into_iter().find(|(flags, soname, ..)| *flags == merge_flags() && *soname == library.soname);
        let is_sorted = resolved(&old).is_sorted_by(|left, right| {
            dra_cdi_hook::ld_cache::order::compare(&left.1, &right.1) != std::cmp::Ordering::Less
        });
        assert!(!is_sorted || found.is_some_and(|found| found.2 == library.path), "ours is the first of its SONAME");
    }
    assert_eq!((new.generator, hwcaps(&new), new.flags), (old.generator, hwcaps(&old), old.flags));
    assert_eq!(merge(&new, &libraries).as_ref(), Ok(&bytes), "merging again changes nothing");
}

fn merge_flags() -> u32 {
    dra_cdi_hook::ld_cache::merge::FLAGS
}
