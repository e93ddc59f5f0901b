// SPDX-License-Identifier: Apache-2.0
//! Kueue, which no cluster has unless a test installs it: an image with its program, and its Helm chart, both from its Go module.

use crate::{
    command,
    error::{ClusterError, Result},
    files,
    images::{self, Image},
    programs::{self, Module, PLAIN, Target},
};
use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

const PACKAGE: &str = "sigs.k8s.io/kueue/cmd/kueue";
const IMAGE: &str = "localhost/kueue:tested";
/// The chart starts `/manager` and forbids root.
const CONTAINERFILE: &str = "FROM scratch\nCOPY kueue /manager\nUSER 65532\n";

const MODULE: Module = Module {
    name: "kueue",
    takes: "about 6 minutes",
    targets: &[Target { package: PACKAGE, names: &["kueue"], ..PLAIN }],
};

/// What is needed to install Kueue.
#[derive(Debug)]
pub struct Kueue {
    pub image: Image,
    /// Of Kueue's own Helm chart, of the same version.
    pub chart_dir: PathBuf,
}

/// Builds the program, unless the cache holds it, and writes its image to a directory.
pub fn build_kueue(target_dir: &Path) -> Result<Kueue> {
    let program_dir = programs::build_further(&MODULE)?;
    files::make_dir(target_dir)?;
    let containerfile_path = target_dir.join("kueue.containerfile");
    files::write(&containerfile_path, CONTAINERFILE)?;
    let image = images::build_image(IMAGE, &containerfile_path, &program_dir, target_dir)?;
    Ok(Kueue { image, chart_dir: module_dir()?.join("charts/kueue") })
}

/// The directory of the sources, which `go` downloads if they are not in its cache.
fn module_dir() -> Result<PathBuf> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Downloaded {
        dir: PathBuf,
    }
    let mut go = Command::new("go");
    go.current_dir(programs::source_dir(&MODULE)).env("GOFLAGS", "");
    let answer = command::output(go.args(["mod", "download", "-json", "sigs.k8s.io/kueue"]))?;
    let downloaded: Downloaded = serde_json::from_str(&answer)
        .map_err(|source| ClusterError::Json { what: "the answer of go mod download".to_owned(), source })?;
    Ok(downloaded.dir)
}
