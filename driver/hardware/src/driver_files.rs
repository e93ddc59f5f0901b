// SPDX-License-Identifier: Apache-2.0
//! Finds the user-space part of an installed driver: the files that a container needs, each with the capabilities it is for.
//!
//! The result for a driver root has at least what CUDA and `nvidia-smi` need, or is an error. `libnvidia-ml.so.1` leads to
//! `libnvidia-ml.so.<version>`, and the version to the other files: what is looked for is in [`crate::driver_rules`], where in
//! [`crate::driver_dirs`], how in [`crate::driver_search`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dra_model::{Advice, DriverFile, DriverFiles, Place, PlacedFile};
use parking_lot::Mutex;

use crate::driver_dirs::{library_dirs, listed, program_dirs};
use crate::driver_root::{self, Found, Root};
use crate::driver_rules::Files;
use crate::driver_search::{Hit, Search, SearchError, regular_file};
use crate::elf::ElfError;

/// The user-space part of the driver is incomplete or unreadable.
#[derive(Debug, thiserror::Error)]
pub enum DriverFilesError {
    #[error("failed to open the driver root {}", path.display())]
    Root {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no {name} of the NVIDIA driver below {} in {}", root.display(), listed(&library_dirs()))]
    NoLibrary { name: &'static str, root: PathBuf },
    #[error("{} has the driver of {system}, which needs other files and device nodes and is not supported", root.display())]
    OtherSystem { system: &'static str, root: PathBuf },
    #[error("no {name} of the NVIDIA driver below {} in {}", root.display(), listed(&program_dirs()))]
    NoProgram { name: &'static str, root: PathBuf },
    #[error("{} does not end in the version of the driver, as in libnvidia-ml.so.550.54.15", path.display())]
    NoVersion { path: PathBuf },
    #[error("failed to read {} of the NVIDIA driver", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a usable library", path.display())]
    BadLibrary {
        path: PathBuf,
        #[source]
        source: ElfError,
    },
}

impl Advice for DriverFilesError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Root { .. } => Some(driver_root::ADVICE.into()),
            Self::NoLibrary { .. } => Some("install the NVIDIA driver there or correct the driver root".into()),
            Self::OtherSystem { .. } => {
                Some("keep the driver off this node, by nodeSelector or affinity of the chart".into())
            }
            Self::NoProgram { .. } => Some("install it there (on Debian the package nvidia-smi)".into()),
            Self::NoVersion { .. } | Self::Unreadable { .. } => None,
            Self::BadLibrary { .. } => Some("install the NVIDIA driver again".into()),
        }
    }
}

/// Systems with an NVIDIA driver of another kind, by what is below their root.
const OTHER_SYSTEMS: [(&str, &str); 2] = [
    // Its GPUs are behind /dev/dxg.
    ("usr/lib/wsl/lib", "the Windows Subsystem for Linux"),
    // Its GPUs are behind /dev/nvhost-* and /dev/nvmap.
    ("etc/nv_tegra_release", "Jetson (Tegra)"),
];

/// Its version selects the other libraries.
const NVML: &str = "libnvidia-ml.so.1";

const MANDATORY_LIBRARIES: [&str; 2] = ["libcuda.so.1", NVML];

const MANDATORY_PROGRAM: &str = "nvidia-smi";

/// The files found last, valid until they or their directories change.
#[derive(Debug, Default)]
pub struct DriverFilesCache(Mutex<Option<Cached>>);

#[derive(Debug)]
struct Cached {
    root: PathBuf,
    loaded: Option<String>,
    /// Every directory that was searched and every file that was found.
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
    files: DriverFiles,
}

/// Device, inode and modification time in seconds and nanoseconds.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

impl DriverFilesCache {
    /// All files of the driver that a container needs, of the version that is loaded if there are several.
    pub fn find(
        &self,
        root: &Path,
        root_on_host: &Path,
        loaded: Option<String>,
    ) -> Result<DriverFiles, DriverFilesError> {
        let opened = open(root)?;
        let mut cached = self.0.lock();
        let is_about = |cached: &&Cached| cached.root == opened.path() && cached.loaded == loaded;
        if let Some(hit) = cached.as_ref().filter(is_about).filter(|cached| cached.is_fresh()) {
            return Ok(hit.files.clone());
        }
        *cached = None;
        let installed = installed(&opened, loaded.as_deref())?;
        let search = search(&opened, &installed)?;
        let files = files(&search, &opened, &installed.version, root_on_host)?;
        let looked_at = search.looked_at().into_iter().map(|path| opened.outside(&path));
        let stamps = looked_at.map(|path| (path.clone(), Stamp::of(&path))).collect();
        *cached = Some(Cached { root: opened.path().to_owned(), loaded, stamps, files: files.clone() });
        Ok(files)
    }
}

impl Cached {
    fn is_fresh(&self) -> bool {
        self.stamps.iter().all(|(path, stamp)| Stamp::of(path) == *stamp)
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self(metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
    }
}

/// The path of `libnvidia-ml.so.1` of a driver root without symlinks, for this process.
pub fn nvml_path(root: &Path, loaded: Option<&str>) -> Result<PathBuf, DriverFilesError> {
    let root = open(root)?;
    Ok(root.outside(&find_nvml(&root, loaded)?.path))
}

/// What `libnvidia-ml.so.1` leads to.
#[derive(Debug)]
pub(crate) struct Installed {
    /// Of the files that containers get.
    pub(crate) version: String,
    /// Real path in the root.
    nvml_dir: PathBuf,
}

pub(crate) fn installed(root: &Root, loaded: Option<&str>) -> Result<Installed, DriverFilesError> {
    let path = find_nvml(root, loaded)?.path;
    let nvml_dir = path.parent().unwrap_or(&path).to_owned();
    Ok(Installed { version: version_of(&path)?, nvml_dir })
}

pub(crate) fn search<'a>(root: &'a Root, installed: &'a Installed) -> Result<Search<'a>, DriverFilesError> {
    Search::run(root, &installed.version, &installed.nvml_dir).map_err(|error| match error {
        SearchError::Unreadable { path, source } => DriverFilesError::Unreadable { path, source },
        SearchError::BadLibrary { path, source } => DriverFilesError::BadLibrary { path, source },
    })
}

pub(crate) fn open(path: &Path) -> Result<Root, DriverFilesError> {
    Root::open(path).map_err(|source| DriverFilesError::Root { path: path.to_owned(), source })
}

/// That of the loaded version, or the one that the driver's link names.
fn find_nvml(root: &Root, loaded: Option<&str>) -> Result<Found, DriverFilesError> {
    let names = [loaded.map(|version| versioned(NVML, version)), Some(NVML.to_owned())];
    let in_dirs = |name: String| library_dirs().into_iter().find_map(|dir| regular_file(root, &dir.join(&name)));
    let found = names.into_iter().flatten().find_map(in_dirs);
    found.ok_or_else(|| no_nvml(root))
}

fn no_nvml(root: &Root) -> DriverFilesError {
    let other = OTHER_SYSTEMS.iter().find(|(path, _)| root.find(path).is_ok());
    let root = root.path().to_owned();
    match other {
        Some((_, system)) => DriverFilesError::OtherSystem { system, root },
        None => DriverFilesError::NoLibrary { name: NVML, root },
    }
}

/// The file of a driver version, such as `libcuda.so.550.54.15` of `libcuda.so.1`.
pub(crate) fn versioned(soname: &str, version: &str) -> String {
    let (stem, _number) = soname.rsplit_once('.').unwrap_or((soname, ""));
    format!("{stem}.{version}")
}

/// What containers get of the files that were found; an error without those that each needs.
fn files(
    search: &Search<'_>,
    root: &Root,
    version: &str,
    root_on_host: &Path,
) -> Result<DriverFiles, DriverFilesError> {
    let root = || root.path().to_owned();
    if let Some(name) = MANDATORY_LIBRARIES.into_iter().find(|name| search.library(name).is_none()) {
        return Err(DriverFilesError::NoLibrary { name, root: root() });
    }
    if search.program(MANDATORY_PROGRAM).is_none() {
        return Err(DriverFilesError::NoProgram { name: MANDATORY_PROGRAM, root: root() });
    }
    let mut files =
        DriverFiles { version: version.to_owned(), libraries: Vec::new(), programs: Vec::new(), others: Vec::new() };
    for hit in search.hits() {
        let (host_path, capabilities) = (root_on_host.join(&hit.path), hit.rule.capabilities);
        let file = || DriverFile { name: hit.name.clone(), host_path: host_path.clone(), capabilities };
        match hit.rule.files {
            Files::Library(_) | Files::Libraries(_) | Files::Independent(_) | Files::Fixed(_) => {
                files.libraries.push(file());
            }
            Files::Program(_) => files.programs.push(file()),
            Files::Module { .. } | Files::XModule { .. } | Files::Data { .. } | Files::Firmware | Files::Socket(_) => {
                let places = places(hit, version).into_iter();
                files.others.extend(places.map(|place| PlacedFile {
                    place,
                    host_path: host_path.clone(),
                    capabilities,
                }));
            }
        }
    }
    Ok(files)
}

/// The places of a file in a container that its name alone does not determine.
fn places(hit: &Hit, version: &str) -> Vec<Place> {
    let name = &hit.name;
    match hit.rule.files {
        Files::Library(_) | Files::Libraries(_) | Files::Independent(_) | Files::Fixed(_) | Files::Program(_) => {
            Vec::new()
        }
        Files::Module { dir, .. } => vec![Place::Libraries(format!("{dir}/{name}"))],
        Files::XModule { paths, .. } => paths.map(|path| Place::Path(path.to_owned())).into(),
        Files::Data { dir, path } => vec![Place::Path(format!("{dir}/{path}"))],
        Files::Firmware => vec![Place::Path(format!("/lib/firmware/nvidia/{version}/{name}"))],
        Files::Socket(path) => vec![Place::Socket(format!("/run/{path}"))],
    }
}

/// `libnvidia-ml.so.550.54.15` is of version `550.54.15`.
fn version_of(path: &Path) -> Result<String, DriverFilesError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let version = name.and_then(|name| name.strip_prefix("libnvidia-ml.so."));
    let is_version = |text: &&str| text.contains('.') && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let version = version.filter(is_version).map(str::to_owned);
    version.ok_or_else(|| DriverFilesError::NoVersion { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use dra_model::Capability;

    use super::*;
    use crate::elf::tests::library;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn write(&self, path: &str, bytes: &[u8]) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn link(&self, target: &str, path: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        }

        fn remove(&self, path: &str) {
            std::fs::remove_file(self.0.path().join(path)).unwrap();
        }

        fn find(&self, cache: &DriverFilesCache) -> Result<DriverFiles, DriverFilesError> {
            cache.find(self.0.path(), Path::new("/run/nvidia/driver"), None)
        }
    }

    /// As NVIDIA's installer leaves it, with additional libraries of another kind and another version.
    fn installed(dir: &str) -> Tree {
        let tree = Tree(tempfile::tempdir().unwrap());
        for (name, soname) in [
            ("libcuda.so.550.54.15", "libcuda.so.1"),
            ("libcuda.so.535.261.03", "libcuda.so.1"),
            ("libnvidia-ml.so.550.54.15", "libnvidia-ml.so.1"),
            ("libnvidia-nvvm.so.550.54.15", "libnvidia-nvvm.so.4"),
            ("libnvidia-nvvm70.so.4", "libnvidia-nvvm70.so.4"),
            ("libnvidia-pkcs11-openssl3.so.550.54.15", "libnvidia-pkcs11-openssl3.so.550.54.15"),
            ("libnvidia-eglcore.so.550.54.15", "libnvidia-eglcore.so.550.54.15"),
        ] {
            tree.write(&format!("{dir}/{name}"), &library(soname));
        }
        tree.link("libnvidia-ml.so.550.54.15", &format!("{dir}/libnvidia-ml.so.1"));
        tree.write("usr/bin/nvidia-smi", b"#!/bin/sh\n");
        tree.write("usr/sbin/nvidia-cuda-mps-server", b"#!/bin/sh\n");
        tree
    }

    fn names(files: &[DriverFile]) -> Vec<&str> {
        files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn the_libraries_of_the_version_and_the_programs_are_found() {
        let files = installed("usr/lib64").find(&DriverFilesCache::default()).unwrap();
        assert_eq!(files.version, "550.54.15");
        assert_eq!(
            names(&files.libraries),
            [
                "libcuda.so.1",
                "libnvidia-eglcore.so.550.54.15",
                "libnvidia-ml.so.1",
                "libnvidia-nvvm.so.4",
                "libnvidia-nvvm70.so.4",
                "libnvidia-pkcs11-openssl3.so.550.54.15"
            ]
        );
        assert_eq!(files.libraries[0].capabilities, [Capability::Compute]);
        assert_eq!(names(&files.programs), ["nvidia-cuda-mps-server", "nvidia-smi"]);
        let cuda = &files.libraries[0];
        assert_eq!(cuda.host_path, Path::new("/run/nvidia/driver/usr/lib64/libcuda.so.550.54.15"));
    }

    #[test]
    fn files_with_a_place_of_their_own_are_found_with_it() {
        let tree = installed("usr/lib64");
        for (path, soname) in [
            ("usr/lib64/vdpau/libvdpau_nvidia.so.550.54.15", "libvdpau_nvidia.so.1"),
            ("usr/lib64/libnvidia-egl-gbm.so.1.1.0", "libnvidia-egl-gbm.so.1"),
        ] {
            tree.write(path, &library(soname));
        }
        tree.link("libnvidia-egl-gbm.so.1.1.0", "usr/lib64/libnvidia-egl-gbm.so.1");
        for path in [
            "usr/share/glvnd/egl_vendor.d/10_nvidia.json",
            "etc/vulkan/icd.d/nvidia_icd.json",
            "lib/firmware/nvidia/550.54.15/gsp_ga10x.bin",
            "lib/firmware/nvidia/550.54.15/readme.txt",
            "lib/firmware/nvidia/535.261.03/gsp_tu10x.bin",
            "usr/lib64/xorg/modules/drivers/nvidia_drv.so",
            "usr/lib64/xorg/modules/extensions/libglxserver_nvidia.so.550.54.15",
        ] {
            tree.write(path, b"");
        }
        let socket_path = tree.0.path().join("run/nvidia-persistenced");
        std::fs::create_dir_all(&socket_path).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(socket_path.join("socket")).unwrap();
        let files = tree.find(&DriverFilesCache::default()).unwrap();
        let path = |path: &str| Place::Path(path.to_owned());
        let places: Vec<Place> = files.others.iter().map(|file| file.place.clone()).collect();
        assert_eq!(
            places,
            [
                path("/usr/share/glvnd/egl_vendor.d/10_nvidia.json"),
                path("/lib/firmware/nvidia/550.54.15/gsp_ga10x.bin"),
                path("/usr/lib/xorg/modules/extensions/libglxserver_nvidia.so"),
                path("/usr/lib64/xorg/modules/extensions/libglxserver_nvidia.so"),
                Place::Libraries("vdpau/libvdpau_nvidia.so.1".to_owned()),
                Place::Socket("/run/nvidia-persistenced/socket".to_owned()),
                path("/usr/lib/xorg/modules/drivers/nvidia_drv.so"),
                path("/usr/lib64/xorg/modules/drivers/nvidia_drv.so"),
                path("/etc/vulkan/icd.d/nvidia_icd.json"),
            ]
        );
        let gbm = files.libraries.iter().find(|file| file.name == "libnvidia-egl-gbm.so.1").unwrap();
        assert!(gbm.host_path.ends_with("usr/lib64/libnvidia-egl-gbm.so.1.1.0"), "{gbm:?}");
    }

    #[test]
    fn the_alternatives_of_debian_are_followed_inside_the_root() {
        let triplet = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let tree = installed(&format!("{triplet}/nvidia/current"));
        tree.remove("usr/bin/nvidia-smi");
        tree.write("usr/lib/nvidia/current/nvidia-smi", b"#!/bin/sh\n");
        tree.link("/usr/lib/nvidia/current/nvidia-smi", "etc/alternatives/nvidia--nvidia-smi");
        tree.link("/etc/alternatives/nvidia--nvidia-smi", "usr/bin/nvidia-smi");
        tree.link(
            &format!("/{triplet}/nvidia/current/libnvidia-ml.so.1"),
            "etc/alternatives/nvidia--libnvidia-ml.so.1",
        );
        tree.link("/etc/alternatives/nvidia--libnvidia-ml.so.1", &format!("{triplet}/libnvidia-ml.so.1"));
        let files = tree.find(&DriverFilesCache::default()).unwrap();
        let ml = files.libraries.iter().find(|file| file.name == NVML).unwrap();
        let dir = Path::new("/run/nvidia/driver").join(&triplet).join("nvidia/current");
        assert_eq!(ml.host_path, dir.join("libnvidia-ml.so.550.54.15"));
        assert_eq!(files.programs[1].host_path, Path::new("/run/nvidia/driver/usr/lib/nvidia/current/nvidia-smi"));
    }

    #[test]
    fn a_driver_is_found_where_each_system_has_it() {
        let arch = std::env::consts::ARCH;
        let bottlerocket = format!("{arch}-bottlerocket-linux-gnu/sys-root/usr");
        let sys_root_share = format!("{arch}-bottlerocket-linux-gnu/sys-root/usr/share");
        for (system, libraries, programs, data) in [
            ("RHEL", "usr/lib64", "usr/bin", "usr/share"),
            ("Ubuntu", &format!("usr/lib/{arch}-linux-gnu"), "usr/bin", "usr/share"),
            ("Debian without links", &format!("usr/lib/{arch}-linux-gnu/nvidia/current"), "usr/bin", "usr/share"),
            ("driver container", &format!("lib/{arch}-linux-gnu"), "usr/bin", "usr/share"),
            ("GKE", "lib64", "bin", ""),
            ("Arch Linux", "usr/lib", "usr/bin", "usr/share"),
            ("prefix", "lib", "bin", "share"),
            ("Talos", "usr/local/glibc/usr/lib", "usr/local/bin", "usr/local/share"),
            ("earlier Talos", "usr/local/glibc/lib", "usr/local/bin", "usr/local/share"),
            (
                "Bottlerocket",
                &format!("{bottlerocket}/lib/nvidia/tesla"),
                &format!("{bottlerocket}/libexec/nvidia/tesla/bin"),
                &sys_root_share,
            ),
            ("Bottlerocket below usr", "usr/lib/nvidia/tesla", "usr/libexec/nvidia/tesla/bin", "usr/share"),
        ] {
            let tree = installed(libraries);
            tree.remove("usr/bin/nvidia-smi");
            tree.write(&format!("{programs}/nvidia-smi"), b"#!/bin/sh\n");
            let icd_path = Path::new(data).join("vulkan/icd.d/nvidia_icd.json");
            tree.write(icd_path.to_str().unwrap(), b"{}");
            let files = tree.find(&DriverFilesCache::default()).unwrap();
            assert_eq!((files.libraries.len(), files.version.as_str()), (6, "550.54.15"), "{system}");
            let smi = files.programs.iter().find(|file| file.name == MANDATORY_PROGRAM).unwrap();
            let root = Path::new("/run/nvidia/driver");
            assert_eq!(smi.host_path, root.join(programs).join("nvidia-smi"), "{system}");
            let icd = &files.others[0];
            assert_eq!(icd.host_path, root.join(icd_path), "{system}");
            assert_eq!(icd.place, Place::Path("/etc/vulkan/icd.d/nvidia_icd.json".to_owned()), "{system}");
        }
    }

    /// As Debian's older drivers, of which alternatives select one.
    #[test]
    fn a_driver_in_a_directory_of_its_own_is_found_through_the_link_of_nvml() {
        let dir = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let tree = installed(&format!("{dir}/nvidia/tesla-550"));
        let error = tree.find(&DriverFilesCache::default()).unwrap_err();
        assert!(matches!(error, DriverFilesError::NoLibrary { name: NVML, .. }), "{error}");
        let nvml = format!("/{dir}/nvidia/tesla-550/libnvidia-ml.so.1");
        tree.link(&nvml, "etc/alternatives/nvidia--libnvidia-ml.so.1");
        tree.link("/etc/alternatives/nvidia--libnvidia-ml.so.1", &format!("{dir}/libnvidia-ml.so.1"));
        let files = tree.find(&DriverFilesCache::default()).unwrap();
        assert_eq!(files.libraries.len(), 6, "{files:?}");
        let cuda = Path::new("/run/nvidia/driver").join(&dir).join("nvidia/tesla-550/libcuda.so.550.54.15");
        assert_eq!(files.libraries[0].host_path, cuda);
    }

    /// Its library has a version of its own.
    #[test]
    fn nvvm_of_r470_is_used_only_without_one_of_the_version() {
        let tree = installed("usr/lib64");
        tree.write("usr/lib64/libnvidia-nvvm.so.4.0.0", &library("libnvidia-nvvm.so.4"));
        let nvvm = || {
            let files = tree.find(&DriverFilesCache::default()).unwrap();
            let found = files.libraries.into_iter().find(|file| file.name == "libnvidia-nvvm.so.4").unwrap();
            found.host_path.file_name().unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(nvvm(), "libnvidia-nvvm.so.550.54.15");
        tree.remove("usr/lib64/libnvidia-nvvm.so.550.54.15");
        assert_eq!(nvvm(), "libnvidia-nvvm.so.4.0.0");
    }

    /// As of a root with packages of two architectures, and of an arm64 image on an x86 host.
    #[test]
    fn the_libraries_of_another_processor_are_left_out() {
        let foreign = |soname: &str| {
            let mut bytes = library(soname);
            // `e_machine`: AArch64 on x86-64, x86-64 on AArch64.
            bytes[18] = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
            bytes
        };
        let dir = "usr/lib64";
        let tree = installed(&format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
        for (name, soname) in [("libcuda", "libcuda.so.1"), ("libnvidia-nvvm", "libnvidia-nvvm.so.4")] {
            tree.write(&format!("{dir}/{name}.so.550.54.15"), &foreign(soname));
        }
        let files = tree.find(&DriverFilesCache::default()).unwrap();
        let of_own = files.libraries.iter().all(|file| !file.host_path.starts_with("/run/nvidia/driver/usr/lib64"));
        assert!(files.libraries.len() == 6 && of_own, "{files:?}");

        let tree = installed(dir);
        tree.write(&format!("{dir}/libcuda.so.550.54.15"), &foreign("libcuda.so.1"));
        let error = tree.find(&DriverFilesCache::default()).unwrap_err();
        assert!(matches!(error, DriverFilesError::NoLibrary { name: "libcuda.so.1", .. }), "{error}");
    }

    /// All is in the store, by absolute links.
    #[test]
    fn the_links_of_nixos_are_followed_inside_the_root() {
        let tree = installed("nix/store/h4sh-nvidia-x11/lib");
        tree.remove("usr/bin/nvidia-smi");
        tree.write("nix/store/h4sh-nvidia-x11/bin/nvidia-smi", b"#!/bin/sh\n");
        tree.link("/nix/store/h4sh-graphics-drivers", "run/opengl-driver");
        tree.link("/nix/store/h4sh-nvidia-x11/lib", "nix/store/h4sh-graphics-drivers/lib");
        tree.link("/nix/store/h4sh-nvidia-x11/bin/nvidia-smi", "run/current-system/sw/bin/nvidia-smi");
        tree.write("nix/store/h4sh-nvidia-x11/share/glvnd/egl_vendor.d/10_nvidia.json", b"{}");
        tree.link("/nix/store/h4sh-nvidia-x11/share", "nix/store/h4sh-graphics-drivers/share");
        tree.write("nix/store/h4sh-firmware/lib/firmware/nvidia/550.54.15/gsp_ga10x.bin", b"");
        tree.link("/nix/store/h4sh-firmware/lib/firmware", "run/current-system/firmware");
        let files = tree.find(&DriverFilesCache::default()).unwrap();
        let store = Path::new("/run/nvidia/driver/nix/store/h4sh-nvidia-x11");
        assert_eq!(files.libraries[0].host_path, store.join("lib/libcuda.so.550.54.15"));
        assert_eq!(files.programs[1].host_path, store.join("bin/nvidia-smi"));
        let firmware = "/run/nvidia/driver/nix/store/h4sh-firmware/lib/firmware/nvidia/550.54.15/gsp_ga10x.bin";
        let expect = [store.join("share/glvnd/egl_vendor.d/10_nvidia.json"), firmware.into()];
        assert_eq!(files.others.iter().map(|file| file.host_path.clone()).collect::<Vec<_>>(), expect);
    }

    /// As after an update of the packages, or with several packages of the driver.
    #[test]
    fn of_several_versions_the_loaded_one_is_found_alone() {
        let tree = installed("usr/lib64");
        for dir in ["usr/lib64", "usr/lib"] {
            tree.write(&format!("{dir}/libnvidia-ml.so.580.95.05"), &library("libnvidia-ml.so.1"));
            tree.write(&format!("{dir}/libcuda.so.580.95.05"), &library("libcuda.so.1"));
        }
        let cache = DriverFilesCache::default();
        for (loaded, expect) in [
            (Some("580.95.05"), "580.95.05"),
            (Some("550.54.15"), "550.54.15"),
            // Its files are gone: what is installed now is the best guess, and NVML says that it does not fit.
            (Some("470.1"), "550.54.15"),
            (None, "550.54.15"),
        ] {
            let root = Path::new("/r");
            let files = cache.find(tree.0.path(), root, loaded.map(str::to_owned)).unwrap();
            assert_eq!(files.version, expect, "{loaded:?}");
            let of_version = |file: &&DriverFile| file.host_path.to_string_lossy().ends_with(expect);
            let of_driver = ["libcuda.so.1", "libnvidia-ml.so.1"];
            assert_eq!(
                files.libraries.iter().filter(|file| of_driver.contains(&&*file.name)).filter(of_version).count(),
                2
            );
            let nvml = nvml_path(tree.0.path(), loaded).unwrap();
            assert_eq!(nvml, tree.0.path().canonicalize().unwrap().join(format!("usr/lib64/libnvidia-ml.so.{expect}")));
        }
    }

    #[test]
    fn the_libraries_of_32_bit_programs_are_left_out() {
        let tree = installed("usr/lib64");
        let mut other = library("libcuda.so.1");
        other[4] = 1;
        tree.write("usr/lib/libcuda.so.550.54.15", &other);
        let files = tree.find(&DriverFilesCache::default()).unwrap();
        assert_eq!(files.libraries[0].host_path, Path::new("/run/nvidia/driver/usr/lib64/libcuda.so.550.54.15"));
        tree.remove("usr/lib64/libcuda.so.550.54.15");
        let error = tree.find(&DriverFilesCache::default()).unwrap_err().to_string();
        assert!(
            error.starts_with("no libcuda.so.1 of the NVIDIA driver below ") && error.contains(", usr/lib, lib"),
            "{error}"
        );
    }

    #[test]
    fn an_incomplete_driver_is_an_error_that_names_what_is_missing() {
        for (missing, expect) in [
            ("usr/lib64/libcuda.so.550.54.15", "no libcuda.so.1"),
            ("usr/lib64/libnvidia-ml.so.1", "no libnvidia-ml.so.1"),
            ("usr/bin/nvidia-smi", "no nvidia-smi"),
        ] {
            let tree = installed("usr/lib64");
            tree.remove(missing);
            let error = tree.find(&DriverFilesCache::default()).unwrap_err().to_string();
            assert!(error.starts_with(expect), "{error}");
        }
        let tree = installed("usr/lib64");
        tree.write("usr/lib64/libnvidia-nvvm.so.550.54.15", b"");
        let error = tree.find(&DriverFilesCache::default()).unwrap_err();
        assert!(matches!(error, DriverFilesError::BadLibrary { .. }), "{error}");
    }

    /// Only containers with its capability lack it.
    #[test]
    fn a_broken_library_for_graphics_is_left_out() {
        let tree = installed("usr/lib64");
        let count = tree.find(&DriverFilesCache::default()).unwrap().libraries.len();
        tree.write("usr/lib64/libnvidia-eglcore.so.550.54.15", b"");
        assert_eq!(tree.find(&DriverFilesCache::default()).unwrap().libraries.len(), count - 1);
        let report = crate::driver_report::report(tree.0.path(), Path::new("/"), None).unwrap();
        let broken: Vec<_> = report.entries.iter().flat_map(|entry| &entry.unusable).collect();
        assert_eq!(broken, [&(PathBuf::from("/usr/lib64/libnvidia-eglcore.so.550.54.15"), ElfError::NotElf)]);
    }

    #[test]
    fn a_cached_answer_ends_with_the_files_it_is_about() {
        let tree = installed("usr/lib64");
        let cache = DriverFilesCache::default();
        let first = tree.find(&cache).unwrap();
        assert_eq!(tree.find(&cache).unwrap(), first);
        tree.remove("usr/lib64/libcuda.so.550.54.15");
        assert!(matches!(tree.find(&cache), Err(DriverFilesError::NoLibrary { name: "libcuda.so.1", .. })));
        tree.write("usr/lib64/libcuda.so.550.54.15", &library("libcuda.so.1"));
        assert_eq!(tree.find(&cache).unwrap(), first);
        for (at, path) in [
            "usr/share/glvnd/egl_vendor.d/10_nvidia.json",
            "run/opengl-driver/share/nvidia/nvoptix.bin",
            "usr/share/vulkan/icd.d/nvidia_icd.json",
        ]
        .into_iter()
        .enumerate()
        {
            tree.write(path, b"");
            assert_eq!(tree.find(&cache).unwrap().others.len(), at + 1, "{path}");
        }
        tree.remove("usr/lib64/libnvidia-ml.so.1");
        tree.write("usr/lib64/libnvidia-ml.so.560.1", &library("libnvidia-ml.so.1"));
        tree.write("usr/lib64/libcuda.so.560.1", &library("libcuda.so.1"));
        tree.link("libnvidia-ml.so.560.1", "usr/lib64/libnvidia-ml.so.1");
        assert_eq!(tree.find(&cache).unwrap().version, "560.1");
    }

    #[test]
    fn a_system_with_a_driver_of_another_kind_is_named() {
        for (path, system) in [
            ("usr/lib/wsl/lib/libcuda.so.1", "the Windows Subsystem for Linux"),
            ("etc/nv_tegra_release", "Jetson (Tegra)"),
        ] {
            let tree = Tree(tempfile::tempdir().unwrap());
            tree.write(path, b"");
            let error = tree.find(&DriverFilesCache::default()).unwrap_err();
            assert!(error.to_string().contains(system), "{error}");
            assert!(error.advice().is_some());
        }
    }

    #[test]
    fn a_driver_root_that_is_not_there_is_named() {
        let error = nvml_path(Path::new("/nonexistent/driver-root"), None).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/driver-root"), "{error}");
    }
}
