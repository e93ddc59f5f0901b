// SPDX-License-Identifier: Apache-2.0
//! The files of real drivers, as Debian's packages install them and `make setup` unpacks them: what is found is complete, of one
//! version, and what glibc loads in a container without a cache.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its builders too")]

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use dra_hardware::{Files, Host, NvmlMachine, ProcessRoots, Roots};
use dra_model::{Capability, DriverFiles, Place};

/// An unpacked driver.
struct Driver {
    /// Where `make setup` unpacks it.
    dir: &'static str,
    branch: &'static str,
    /// Begins of the files without which it is complete: OptiX and some firmware, which are large and not unpacked, sockets of
    /// daemons that do not run, and what the branch does not have.
    missing: &'static [&'static str],
}

const DRIVERS: [Driver; 3] = [
    Driver {
        dir: "nvidia-driver",
        branch: "535.",
        missing: &["libnvoptix.so", "nvidia/nvoptix.bin", "nvidia-persistenced/socket"],
    },
    Driver {
        dir: "nvidia-driver-550",
        branch: "550.",
        missing: &["libnvoptix.so", "nvidia/nvoptix.bin", "nvidia-persistenced/socket", "nvidia/550"],
    },
    Driver {
        dir: "nvidia-driver-470",
        branch: "470.",
        missing: &[
            "nvidia-persistenced",
            "libcudadebugger.so",
            "libnvidia-nvvm.so.470",
            "nvidia-cuda-mps-control",
            "nvidia-cuda-mps-server",
            "libnvoptix.so",
            "libnvidia-egl-gbm.so",
            "libnvidia-egl-wayland.so",
            "egl/egl_external_platform.d/15_nvidia_gbm.json",
            "egl/egl_external_platform.d/10_nvidia_wayland.json",
            "nvidia/nvoptix.bin",
            "nvidia_drv.so",
            "libglxserver_nvidia.so",
            "nvidia-xconfig",
            "X11/xorg.conf.d/nvidia-drm-outputclass.conf",
            "nvidia-persistenced/socket",
            "nvidia/470",
        ],
    },
];

impl Driver {
    fn root(&self) -> PathBuf {
        let home_dir = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
        let cache = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty());
        let dir = cache.map_or_else(home_dir, PathBuf::from).join("gpu-dra-cluster").join(self.dir);
        assert!(dir.is_dir(), "no {}: run `make setup` first", dir.display());
        dir.canonicalize().unwrap()
    }

    fn host(&self) -> Host {
        let root = self.root();
        let nothing = root.join("nothing");
        let roots = Roots {
            driver: root.clone(),
            driver_on_host: root,
            proc: nothing.clone(),
            sys: nothing.clone(),
            processes: ProcessRoots { proc: nothing.clone(), pod_logs: nothing },
        };
        Host::new(Arc::new(NvmlMachine::new(&roots.driver, &roots.proc)), roots)
    }

    fn files(&self) -> DriverFiles {
        self.host().driver_files().unwrap()
    }
}

#[test]
fn an_ordinary_installation_is_found_completely() {
    for driver in &DRIVERS {
        let report = driver.host().driver_report().unwrap();
        let is_missing = |entry: &&dra_hardware::DriverReportEntry| entry.found.is_empty() && entry.rule.only.is_none();
        let missing: Vec<String> =
            report.entries.iter().filter(is_missing).map(|entry| entry.rule.file_name(&report.version)).collect();
        assert_eq!(missing.len(), driver.missing.len(), "{}: {missing:#?}", driver.dir);
        assert!(missing.iter().zip(driver.missing).all(|(name, expect)| name.starts_with(expect)), "{missing:#?}");
    }
}

#[test]
fn all_files_are_of_one_version() {
    for driver in &DRIVERS {
        let files = driver.files();
        assert!(files.version.starts_with(driver.branch), "{}", files.version);
        let of_its_own = |name: &str| {
            dra_hardware::RULES.iter().any(|rule| {
                matches!(rule.files, Files::Independent(stem) if name.contains(stem))
                    || matches!(rule.files, Files::Fixed(file_name) if file_name.starts_with(name))
            })
        };
        for library in files.libraries.iter().filter(|library| !of_its_own(&library.name)) {
            let suffix = format!(".so.{}", files.version);
            assert!(library.host_path.to_str().unwrap().ends_with(&suffix), "{}", library.host_path.display());
        }
    }
}

#[test]
fn data_and_firmware_have_the_places_that_programs_and_the_kernel_read() {
    let files = DRIVERS[0].files();
    let places: Vec<&Place> = files.others.iter().map(|file| &file.place).collect();
    for expect in ["/etc/vulkan/icd.d/nvidia_icd.json", "/usr/share/glvnd/egl_vendor.d/10_nvidia.json"] {
        assert!(places.contains(&&Place::Path(expect.to_owned())), "{expect} in {places:?}");
    }
    let gsp = format!("/lib/firmware/nvidia/{}/gsp_ga10x.bin", files.version);
    assert!(places.contains(&&Place::Path(gsp)), "{places:?}");
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let (dirs, files): (Vec<_>, Vec<_>) = entries.filter(|path| !path.is_symlink()).partition(|path| path.is_dir());
    files.into_iter().chain(dirs.iter().flat_map(|dir| files_below(dir))).collect()
}

/// A kind of library without a rule would be in no container.
#[test]
fn every_library_of_the_driver_has_a_rule() {
    for driver in &DRIVERS {
        let files = driver.files();
        let libraries = files.libraries.iter().map(|file| &file.host_path);
        let found: Vec<&PathBuf> = libraries.chain(files.others.iter().map(|file| &file.host_path)).collect();
        let is_of_driver = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.ends_with(&files.version) || (name.starts_with("libnvidia-") && name.contains(".so."))
        };
        let of_driver: Vec<PathBuf> =
            files_below(&driver.root()).into_iter().filter(is_of_driver).filter(|path| path.is_file()).collect();
        assert!(of_driver.len() > 25, "{of_driver:?}");
        for path in of_driver {
            assert!(found.contains(&&path), "{}", path.display());
        }
    }
}

/// Links, as the mounts of a container that gets some capabilities.
fn library_dir(files: &DriverFiles, capabilities: &[Capability]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for library in &files.libraries {
        if library.capabilities.iter().any(|capability| capabilities.contains(capability)) {
            symlink(&library.host_path, dir.path().join(&library.name)).unwrap();
        }
    }
    dir
}

/// Calls a function in a new process whose loader searches the directory first.
fn call(dir: &Path, library: &str, function: &str) -> String {
    let program = format!("import ctypes; print(ctypes.CDLL({library:?}).{function})");
    let output = Command::new("python3").env("LD_LIBRARY_PATH", dir).args(["-c", &program]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).trim().to_owned()
}

#[test]
fn glibc_loads_the_libraries_under_their_sonames() {
    for driver in &DRIVERS {
        let files = driver.files();
        let usual = library_dir(&files, &[Capability::Compute, Capability::Utility]);
        // No device, and no loaded driver: the library itself has answered.
        assert_eq!(call(usual.path(), "libcuda.so.1", "cuInit(0)"), "100", "{}", driver.dir);
        assert_eq!(call(usual.path(), "libnvidia-ml.so.1", "nvmlInit_v2()"), "9", "{}", driver.dir);
        let missing = call(usual.path(), "libnvcuvid.so.1", "_name");
        assert!(missing.contains("cannot open shared object file"), "{missing}");

        let video = library_dir(&files, &[Capability::Compute, Capability::Video]);
        for capability in [Capability::Compute, Capability::Video] {
            let of_it = files.libraries.iter().filter(|library| library.capabilities.contains(&capability));
            for library in of_it.map(|library| library.name.as_str()) {
                assert_eq!(call(video.path(), library, "_name"), library);
            }
        }
    }
}
