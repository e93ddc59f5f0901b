// SPDX-License-Identifier: Apache-2.0
//! Container images, made with buildah from files of the machine: no registry is used.
//!
//! Root directories unpacked by `setup.sh` are the input, OCI archives for `ctr images import` the output.

use crate::{
    cache, command,
    error::{ClusterError, Result},
    files,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The image of every pod's sandbox.
pub(crate) const PAUSE_NAME: &str = "localhost/pause:latest";
/// glibc and nothing else: `FROM ${BASE}` of the driver's image.
const BASE_NAME: &str = "localhost/gpu-driver-base:latest";
/// glibc, a shell, coreutils and busybox, for test pods.
const DEMO_NAME: &str = "localhost/gpu-demo:latest";

/// An image as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The name it has on a node.
    pub name: String,
    /// An OCI archive.
    pub archive_path: PathBuf,
}

/// `localhost/gpu-demo:latest`, built once.
pub fn demo_image() -> Result<Image> {
    from_root(DEMO_NAME, "demo", "ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin\nCMD [\"/bin/bash\"]\n")
}

/// The sandbox's image, built once.
pub(crate) fn pause_image() -> Result<Image> {
    from_root(PAUSE_NAME, "pause", "CMD [\"/bin/busybox\", \"sleep\", \"inf\"]\n")
}

/// Builds an image from a Containerfile whose base is the argument `BASE`, and
/// writes it to `<target dir>/<name>.tar`.
///
/// `--build-arg BASE` is the minimal glibc image unless the Containerfile names another.
pub fn build_image(name: &str, containerfile_path: &Path, context_dir: &Path, target_dir: &Path) -> Result<Image> {
    let _lock = cache::lock(&cache::dir().join("images.lock"))?;
    build_locked(BASE_NAME, &root_dir("base")?, "")?;
    let mut bud = buildah();
    bud.args(["bud", "--isolation", "chroot", "--layers=false", "--pull-never", "-t", name]);
    bud.arg("--build-arg").arg(format!("BASE={BASE_NAME}"));
    bud.arg("-f").arg(containerfile_path).arg(context_dir);
    command::output(&mut bud)?;
    let file_name = name.replace(['/', ':'], "_");
    let image = push(name, &target_dir.join(format!("{file_name}.tar")))?;
    // Remove the previous image of this name.
    command::output(buildah().args(["rmi", "--prune"]))?;
    Ok(image)
}

/// An image of one layer with the files of `<cache>/rootfs/<root>`, cached by its inputs.
fn from_root(name: &str, root: &str, settings: &str) -> Result<Image> {
    let _lock = cache::lock(&cache::dir().join("images.lock"))?;
    build_locked(name, &root_dir(root)?, settings)
}

fn build_locked(name: &str, root_dir: &Path, settings: &str) -> Result<Image> {
    let packages = cache::bytes(&root_dir.with_extension("packages"))?;
    let containerfile = format!("FROM scratch\nCOPY . /\n{settings}");
    let key = cache::key([name.as_bytes(), &packages, containerfile.as_bytes()]);
    let archive_path = cache::dir().join("images").join(format!("{key}.tar"));
    if archive_path.exists() {
        let name = name.to_owned();
        return Ok(Image { name, archive_path });
    }
    eprintln!("building the image {name}");
    let file_path = cache::dir().join("images").join(format!("{key}.containerfile"));
    files::write(&file_path, containerfile)?;
    let mut bud = buildah();
    bud.args(["bud", "--isolation", "chroot", "--layers=false", "-t", name, "-f"]);
    command::output(bud.arg(&file_path).arg(root_dir))?;
    push(name, &archive_path)
}

/// A root directory that `setup.sh` unpacked.
fn root_dir(name: &str) -> Result<PathBuf> {
    let dir = cache::dir().join("rootfs").join(name);
    fs::metadata(&dir).map_err(|source| ClusterError::File {
        operation: "find (run tests/cluster/setup.sh)",
        path: dir.clone(),
        source,
    })?;
    Ok(dir)
}

fn push(name: &str, archive_path: &Path) -> Result<Image> {
    let new_path = archive_path.with_extension("new");
    fs::remove_file(&new_path).ok(); // left by a build that was cut
    if let Some(dir) = archive_path.parent() {
        files::make_dir(dir)?;
    }
    let target = format!("oci-archive:{}:{name}", new_path.display());
    command::output(buildah().args(["push", "-q", name, &target]))?;
    fs::rename(&new_path, archive_path).map_err(files::error("rename", &new_path))?;
    Ok(Image { name: name.to_owned(), archive_path: archive_path.to_owned() })
}

/// buildah with a store of its own in the cache.
fn buildah() -> Command {
    let mut buildah = Command::new("buildah");
    buildah.args(["--storage-driver", "vfs", "--root"]);
    buildah.arg(cache::dir().join("buildah/root"));
    buildah.arg("--runroot").arg(cache::dir().join("buildah/run"));
    buildah
}
