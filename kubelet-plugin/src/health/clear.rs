// SPDX-License-Identifier: Apache-2.0
//! `--clear-health`: an administrator declares a GPU well. The request is a file, which the running plugin carries out.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dra_model::GpuUuid;

/// What is declared well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clear {
    Gpu(GpuUuid),
    /// Every GPU of the node.
    All,
}

#[derive(Debug, thiserror::Error)]
#[error("`{text}` is neither the UUID of a GPU, such as GPU-12345678-1111-2222-3333-444444444444, nor `all`")]
pub struct ClearError {
    text: String,
}

impl fmt::Display for Clear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpu(gpu) => gpu.fmt(f),
            Self::All => f.write_str(ALL),
        }
    }
}

impl FromStr for Clear {
    type Err = ClearError;

    fn from_str(text: &str) -> Result<Self, ClearError> {
        match text.parse() {
            Ok(gpu) => Ok(Self::Gpu(gpu)),
            Err(_) if text == ALL => Ok(Self::All),
            Err(_) => Err(ClearError { text: text.to_owned() }),
        }
    }
}

const ALL: &str = "all";

/// The directory of the requests.
#[derive(Debug)]
pub struct ClearRequests {
    dir: PathBuf,
}

/// A request could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write {}", path.display())]
pub struct ClearRequestError {
    path: PathBuf,
    source: io::Error,
}

impl ClearRequests {
    pub fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("clear-health") }
    }

    /// Asks the running plugin.
    pub fn add(&self, clear: &Clear) -> Result<(), ClearRequestError> {
        let path = self.path(clear);
        let written = fs::create_dir_all(&self.dir).and_then(|()| fs::write(&path, ""));
        written.map_err(|source| ClearRequestError { path, source })
    }

    /// The requests that wait; none where the directory cannot be read.
    pub fn list(&self) -> Vec<Clear> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Removes a request that was carried out.
    pub fn remove(&self, clear: &Clear) {
        fs::remove_file(self.path(clear)).ok();
    }

    fn path(&self, clear: &Clear) -> PathBuf {
        self.dir.join(match clear {
            Clear::Gpu(gpu) => gpu.as_str(),
            Clear::All => ALL,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_wait_until_they_are_carried_out() {
        let dir = tempfile::tempdir().unwrap();
        let requests = ClearRequests::new(dir.path());
        assert_eq!(requests.list(), []);
        let gpu: Clear = "GPU-12345678-1111-2222-3333-444444444444".parse().unwrap();
        for clear in [&gpu, &Clear::All] {
            requests.add(clear).unwrap();
        }
        assert_eq!(requests.list().len(), 2);
        requests.remove(&gpu);
        assert_eq!(requests.list(), [Clear::All]);
        for text in ["", "ALL", "../all", "MIG-12345678-1111-2222-3333-444444444444"] {
            assert!(text.parse::<Clear>().unwrap_err().to_string().contains("nor `all`"), "{text}");
        }
    }
}
