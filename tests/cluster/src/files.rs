// SPDX-License-Identifier: Apache-2.0
//! File operations whose errors name the file.

use crate::error::{ClusterError, Result};
use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Writes a whole file and makes its directory.
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    fs::write(path, text).map_err(error("write", path))
}

/// Writes a file that only its owner may read.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).map_err(error("create", path))?;
    io::Write::write_all(&mut file, text.as_bytes()).map_err(error("write", path))
}

/// Reads a whole text file.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(error("read", path))
}

/// Makes a directory and those above it.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(error("create directory", path))
}

/// Turns an answer of the operating system into an error that names the file.
pub(crate) fn error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClusterError {
    let path = PathBuf::from(path);
    move |source| ClusterError::File { operation, path, source }
}
