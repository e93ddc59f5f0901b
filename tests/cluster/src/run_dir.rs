// SPDX-License-Identifier: Apache-2.0
//! The directory of a running cluster.
//!
//! ```text
//! <state>/lock                 held while a cluster starts and while leftovers are swept
//! <state>/<name>/lock          held by the watchdog as long as the cluster runs
//!                cluster.json  what `open` needs
//!                init.pid  watchdog.pid  init.sh  clean.sh
//!                pki/  admin.kubeconfig  etcd/  logs/
//!                nodes/<node>/{etc,var-lib,var-log,bin,gpu,init.pid}
//! ```

use crate::{
    cache,
    error::{ClusterError, Result},
    files,
    network::Subnet,
};
use serde::{Deserialize, Serialize};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    time::SystemTime,
};

/// What another process needs to use a running cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub name: String,
    pub subnet: Subnet,
    pub nodes: Vec<String>,
    pub programs_dir: PathBuf,
    pub gpu_sim: Option<PathBuf>,
}

/// The directory of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct RunDir(PathBuf);

impl RunDir {
    /// The directory that a cluster of this name has or would have.
    pub(crate) fn of(name: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 10 || !name.chars().all(allowed) {
            return Err(ClusterError::BadName { name: name.to_owned() });
        }
        Ok(Self(state_dir().join(name)))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn logs_dir(&self) -> PathBuf {
        self.0.join("logs")
    }

    pub(crate) fn pki_dir(&self) -> PathBuf {
        self.0.join("pki")
    }

    pub(crate) fn node_dir(&self, node: &str) -> PathBuf {
        self.0.join("nodes").join(node)
    }

    pub(crate) fn kubeconfig_path(&self) -> PathBuf {
        self.0.join("admin.kubeconfig")
    }

    pub(crate) fn init_pid_path(&self) -> PathBuf {
        self.0.join("init.pid")
    }

    pub(crate) fn write_record(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_string_pretty(record)
            .map_err(|source| ClusterError::Json { what: "the cluster's record".to_owned(), source })?;
        files::write(&self.0.join("cluster.json"), text)
    }

    pub(crate) fn read_record(&self) -> Result<Record> {
        let path = self.0.join("cluster.json");
        serde_json::from_str(&files::read(&path)?)
            .map_err(|source| ClusterError::Json { what: path.display().to_string(), source })
    }

    /// Whether a watchdog holds the directory.
    pub(crate) fn is_held(&self) -> bool {
        fs::File::open(self.0.join("lock")).is_ok_and(|file| file.try_lock().is_err())
    }
}

/// Where the directories of all running clusters are.
pub(crate) fn state_dir() -> PathBuf {
    env::var_os("GPU_CLUSTER_STATE")
        .map_or_else(|| cache::home_dir("XDG_STATE_HOME", ".local/state").join("gpu-dra-cluster"), PathBuf::from)
}

/// The existing directories, also of clusters that do not run.
pub(crate) fn all() -> Vec<RunDir> {
    let entries = fs::read_dir(state_dir()).into_iter().flatten().flatten();
    let mut dirs: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    dirs.sort();
    dirs.into_iter().map(RunDir).collect()
}

/// A name for a cluster that got none, different in every process and start.
pub(crate) fn fresh_name() -> String {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos());
    let key = cache::key([process::id().to_le_bytes().as_slice(), nanos.to_le_bytes().as_slice()]);
    format!("r{}", key.get(..7).unwrap_or(&key))
}

#[cfg(test)]
mod tests {
    use super::{RunDir, fresh_name};

    #[test]
    fn names_fit_into_a_link_name_and_a_path() {
        for good in ["demo", "a-1", &fresh_name()] {
            RunDir::of(good).unwrap();
        }
        for bad in ["", "eleven-char", "Upper", "../up", "a b"] {
            RunDir::of(bad).unwrap_err();
        }
    }
}
