// SPDX-License-Identifier: Apache-2.0
//! The file of a unix socket: its longest path, bound in place of a stale one, removed at the end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;
use tracing::{info, warn};

/// Bytes of the longest socket path. Linux has 108, of which the last one is zero (`unix(7)`).
pub const MAX_SOCKET_PATH: usize = 107;

/// A socket that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {}", path.display())]
pub struct BindError {
    /// Path of the socket.
    pub path: PathBuf,
    #[source]
    source: io::Error,
}

/// Listens on a socket. Replaces the file that an earlier process left there.
pub fn bind(path: &Path) -> Result<UnixListener, BindError> {
    remove_if_there(path);
    UnixListener::bind(path).map_err(|source| BindError { path: path.to_owned(), source })
}

/// Removes a file. Logs the removal and a failure, not that there is no file.
pub fn remove_if_there(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => info!(path = %path.display(), "removed"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => warn!(path = %path.display(), %error, "failed to remove a file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(bind(&path).unwrap());
        assert!(path.exists());
        bind(&path).unwrap();
        remove_if_there(&path);
        remove_if_there(&path);
        assert!(!path.exists());
        let path = dir.path().join("missing/x.sock");
        assert_eq!(bind(&path).unwrap_err().to_string(), format!("failed to listen on {}", path.display()));
    }
}
