// SPDX-License-Identifier: Apache-2.0
//! The cache of built programs and unpacked packages, outside cargo's target directory.

use crate::{
    error::{ClusterError, Result},
    files,
};
use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
};

/// `$XDG_CACHE_HOME/gpu-dra-cluster`, or the same below `~/.cache`.
pub(crate) fn dir() -> PathBuf {
    home_dir("XDG_CACHE_HOME", ".cache").join("gpu-dra-cluster")
}

/// A directory that the XDG base directory specification names, with its default below the home directory.
pub(crate) fn home_dir(variable: &str, default: &str) -> PathBuf {
    env::var_os(variable).filter(|value| !value.is_empty()).map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(default),
        PathBuf::from,
    )
}

/// The cache key of a result: 64-bit FNV-1a over its inputs and their lengths.
pub(crate) fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    for part in parts {
        part.len().to_le_bytes().into_iter().for_each(&mut add);
        part.iter().copied().for_each(&mut add);
    }
    format!("{hash:016x}")
}

/// Locks a file until the result is dropped.
pub(crate) fn lock(path: &Path) -> Result<File> {
    if let Some(dir) = path.parent() {
        files::make_dir(dir)?;
    }
    let file = File::create(path).map_err(files::error("create", path))?;
    file.lock().map_err(files::error("lock", path))?;
    Ok(file)
}

/// The bytes of a file that a key is made of.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| ClusterError::File { operation: "read", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn keys_depend_on_every_part_and_on_where_parts_end() {
        let parts = |list: &[&str]| key(list.iter().map(|part| part.as_bytes()));
        assert_eq!(parts(&["go.mod", "go.sum"]), parts(&["go.mod", "go.sum"]));
        assert_ne!(parts(&["ab", "c"]), parts(&["a", "bc"]));
        assert_ne!(parts(&["ab"]), parts(&["ab", ""]));
    }
}
