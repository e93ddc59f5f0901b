// SPDX-License-Identifier: Apache-2.0
//! The library over time: it may be missing at first, be replaced by another version, or lose its driver.
//!
//! A function locates the library; the session returns a usable [`Nvml`] or the reason why there is none. Callers use the
//! returned library for one query only, because the next query may need a newly loaded one.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::LoadError;
use crate::library::Nvml;

/// Returns the path of the library without symlinks, or the reason why there is none.
pub type Locate = dyn Fn() -> Result<PathBuf, String> + Send + Sync;

/// Loads the library when it is needed, and again after the file or the driver changed.
pub struct Session {
    locate: Box<Locate>,
    loaded: Mutex<Option<Loaded>>,
}

struct Loaded {
    file: File,
    nvml: Arc<Nvml>,
}

/// The identity of a file, to detect a replaced library.
#[derive(Debug, PartialEq, Eq)]
struct File {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Session {
    pub fn new(locate: Box<Locate>) -> Self {
        Self { locate, loaded: Mutex::new(None) }
    }

    /// The library, loaded now if it was not, or if its file or its driver changed.
    pub fn nvml(&self) -> Result<Arc<Nvml>, LoadError> {
        let mut loaded = self.loaded.lock();
        let file = (self.locate)().and_then(|path| File::of(&path)).map_err(|reason| {
            *loaded = None;
            LoadError::Missing { reason }
        })?;
        if let Some(current) = loaded.as_ref().filter(|current| current.is_usable(&file)) {
            return Ok(Arc::clone(&current.nvml));
        }
        // The old library is unloaded first, so that the process never has two versions of it.
        *loaded = None;
        let nvml = Arc::new(Nvml::load(&file.path)?);
        *loaded = Some(Loaded { file, nvml: Arc::clone(&nvml) });
        Ok(nvml)
    }
}

impl Loaded {
    fn is_usable(&self, file: &File) -> bool {
        self.file == *file && !self.nvml.is_driver_gone()
    }
}

impl File {
    fn of(path: &Path) -> Result<Self, String> {
        let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.loaded.try_lock().and_then(|loaded| loaded.as_ref().map(|loaded| loaded.file.path.clone()));
        f.debug_struct("Session").field("loaded", &file).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_starts_without_a_library_and_returns_the_reason() {
        let session = Session::new(Box::new(|| Err("nothing below /driver-root".to_owned())));
        let missing = LoadError::Missing { reason: "nothing below /driver-root".to_owned() };
        assert_eq!(session.nvml().unwrap_err(), missing);
    }

    #[test]
    fn a_path_that_leads_nowhere_is_a_missing_library() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("libnvidia-ml.so.1");
        let session = Session::new(Box::new(move || Ok(path.clone())));
        assert!(matches!(session.nvml(), Err(LoadError::Missing { .. })));
    }
}
