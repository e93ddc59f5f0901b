// SPDX-License-Identifier: Apache-2.0
//! Finds the repository at run time.

use crate::error::{DemoError, Result};
use std::{env, path::PathBuf};

/// The root directory of the repository.
#[derive(Debug, Clone)]
pub struct Repository {
    root: PathBuf,
}

impl Repository {
    /// The first parent directory of this program, or else of the current directory, that contains the chart.
    pub fn find() -> Result<Self> {
        let program = env::current_exe().unwrap_or_default();
        let here = env::current_dir().unwrap_or_default();
        let root =
            program.ancestors().chain(here.ancestors()).find(|dir| dir.join("deploy/chart/Chart.yaml").is_file());
        root.map(|root| Self { root: root.to_owned() })
            .ok_or_else(|| DemoError::NoRepository { program: program.clone() })
    }

    /// A file of `demo/workloads`.
    pub fn workload_path(&self, file_name: &str) -> PathBuf {
        self.root.join("demo/workloads").join(file_name)
    }

    /// The Helm chart.
    pub fn chart_dir(&self) -> PathBuf {
        self.root.join("deploy/chart")
    }

    /// The Containerfile of the driver's image.
    pub fn containerfile_path(&self) -> PathBuf {
        self.root.join("deploy/Containerfile")
    }

    /// A program of the repository: from the directory of this program, or else from the release build.
    /// `GPU_DRA_PROGRAM_DIR` overrides the directory.
    pub fn program_path(&self, name: &str) -> Result<PathBuf> {
        if let Some(dir) = env::var_os("GPU_DRA_PROGRAM_DIR") {
            return Ok(PathBuf::from(dir).join(name));
        }
        let beside = env::current_exe().ok().map(|program| program.with_file_name(name));
        let released = self.root.join("target/release").join(name);
        match beside.filter(|path| path.is_file()) {
            Some(path) => Ok(path),
            None if released.is_file() => Ok(released),
            None => Err(DemoError::NotBuilt { path: released }),
        }
    }
}
