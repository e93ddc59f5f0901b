// SPDX-License-Identifier: Apache-2.0
//! Which files of the driver a container gets, by capability: one table, read from top to bottom.
//!
//! Sources:
//!
//! * libnvidia-container, `nvc_info.c`: the capability of each library and program that has one there;
//! * nvidia-container-toolkit, `pkg/nvcdi` (`driver-nvml.go`, `graphics.go`): the files that only CDI specs have;
//! * NVIDIA's driver README, "Installed Components": in which versions a library exists;
//! * Debian 12 (`nvidia-graphics-drivers`): the packages. Other distributions divide the driver into fewer.
//!
//! What NVIDIA's toolkit does otherwise, and why this driver differs, is in the documentation of `dra-cdi`.

use std::path::PathBuf;

use dra_model::Capability;
use dra_model::Capability::{Compute, Display, Graphics, Ipc, Ngx, Utility, Video};

use crate::driver_dirs::{data_dirs, firmware_dirs, library_dirs, program_dirs, run_dirs, x_module_dirs};

/// Files that a container with one of the capabilities gets if they are installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub files: Files,
    pub capabilities: &'static [Capability],
    /// The Debian package that brings them; for what Debian lacks, that of NVIDIA or Ubuntu.
    pub package: &'static str,
    /// Where alone they exist; absent if every installation of a driver since R450 can have them.
    pub only: Option<&'static str>,
}

/// How the files of a rule are named in the driver root and in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// `lib<stem>.so.<driver version>`, under its SONAME.
    Library(&'static str),
    /// `lib<stem>….so.<driver version>`, each under its SONAME.
    Libraries(&'static str),
    /// `lib<stem>.so.<version of its own>`, under its SONAME.
    Independent(&'static str),
    /// A library by its file name, under its SONAME.
    Fixed(&'static str),
    /// `lib<stem>.so.<driver version>`, which another library opens in a directory below its own.
    Module {
        stem: &'static str,
        dir: &'static str,
    },
    Program(&'static str),
    /// A module of the X server: its file name, with `*` for the driver version, and its paths in a container.
    XModule {
        file: &'static str,
        paths: [&'static str; 2],
    },
    /// A path below `usr/share`, `etc` or the like, and the directory of a container in which it has the same path.
    Data {
        dir: &'static str,
        path: &'static str,
    },
    /// `nvidia/<driver version>/gsp….bin`.
    Firmware,
    /// Path of a socket below `/run`.
    Socket(&'static str),
}

/// Versions as far as they are known from Debian's packages of R470 and R535.
const UNTIL_470: &str = "R470 and earlier versions";
const FROM_535: &str = "R535 and later versions";
const AFTER_535: &str = "versions after R535";
const FROM_590: &str = "R590 and later versions";
const SOME: &str = "some versions";
const FOR_NVSWITCH: &str = "installations for NVSwitch";
const FEDORA: &str = "packages of Fedora";

const EVERY: &[Capability] = &Capability::ALL;

const fn rule(files: Files, capabilities: &'static [Capability], package: &'static str) -> Rule {
    Rule { files, capabilities, package, only: None }
}

const fn only(place: &'static str, rule: Rule) -> Rule {
    Rule { only: Some(place), ..rule }
}

const fn library(stem: &'static str, capabilities: &'static [Capability], package: &'static str) -> Rule {
    rule(Files::Library(stem), capabilities, package)
}

const fn independent(stem: &'static str, package: &'static str) -> Rule {
    rule(Files::Independent(stem), &[Graphics], package)
}

const fn program(name: &'static str, capabilities: &'static [Capability], package: &'static str) -> Rule {
    rule(Files::Program(name), capabilities, package)
}

const fn share(path: &'static str, capabilities: &'static [Capability], package: &'static str) -> Rule {
    rule(Files::Data { dir: "/usr/share", path }, capabilities, package)
}

const fn etc(path: &'static str, capabilities: &'static [Capability], package: &'static str) -> Rule {
    rule(Files::Data { dir: "/etc", path }, capabilities, package)
}

pub const RULES: &[Rule] = &[
    // utility, as `utility_libs` and `utility_bins`
    library("nvidia-ml", &[Utility], "libnvidia-ml1"),
    library("nvidia-cfg", &[Utility], "libnvidia-cfg1"),
    only(FOR_NVSWITCH, library("nvidia-nscq", &[Utility], "libnvidia-nscq")),
    only(AFTER_535, library("nvidia-sandboxutils", &[Utility], "libnvidia-ml1")),
    program("nvidia-smi", &[Utility], "nvidia-smi"),
    only("NVIDIA's installer and packages of Ubuntu", program("nvidia-debugdump", &[Utility], "nvidia-utils")),
    program("nvidia-persistenced", &[Utility], "nvidia-persistenced"),
    // compute, as `compute_libs` and `compute_bins`
    library("cuda", &[Compute], "libcuda1"),
    library("cudadebugger", &[Compute], "libcudadebugger1"),
    library("nvidia-ptxjitcompiler", &[Compute], "libnvidia-ptxjitcompiler1"),
    library("nvidia-nvvm", &[Compute], "libnvidia-nvvm4"),
    only(UNTIL_470, rule(Files::Fixed("libnvidia-nvvm.so.4.0.0"), &[Compute], "libnvidia-nvvm4")),
    library("nvidia-opencl", &[Compute], "nvidia-opencl-icd"),
    library("nvidia-allocator", &[Compute, Graphics], "libnvidia-allocator1"),
    only(AFTER_535, library("nvidia-gpucomp", &[Compute, Graphics], "libnvidia-gpucomp")),
    only(FROM_590, library("nvidia-tileiras", &[Compute], "libnvidia-tileiras")),
    only(FROM_590, rule(Files::Independent("nvidia-nvvm70"), &[Compute], "libnvidia-nvvm70")),
    only(FROM_535, rule(Files::Libraries("nvidia-pkcs11"), &[Compute], "libnvidia-pkcs11-openssl3")),
    only(UNTIL_470, library("nvidia-compiler", &[Compute], "libnvidia-compiler")),
    only("versions before R450", library("nvidia-fatbinaryloader", &[Compute], "libnvidia-fatbinaryloader")),
    program("nvidia-cuda-mps-control", &[Compute], "nvidia-cuda-mps"),
    program("nvidia-cuda-mps-server", &[Compute], "nvidia-cuda-mps"),
    only("installations for multi-node NVLink", program("nvidia-imex", &[Compute], "nvidia-imex")),
    only("installations for multi-node NVLink", program("nvidia-imex-ctl", &[Compute], "nvidia-imex")),
    etc("OpenCL/vendors/nvidia.icd", &[Compute], "nvidia-opencl-common"),
    // video, as `video_libs`
    library("nvcuvid", &[Video], "libnvcuvid1"),
    library("nvidia-encode", &[Video], "libnvidia-encode1"),
    library("nvidia-opticalflow", &[Video], "libnvidia-opticalflow1"),
    rule(Files::Module { stem: "vdpau_nvidia", dir: "vdpau" }, &[Video], "nvidia-vdpau-driver"),
    // graphics, as `graphics_libs` and `graphics_libs_glvnd`
    library("GLX_nvidia", &[Graphics], "libglx-nvidia0"),
    library("EGL_nvidia", &[Graphics], "libegl-nvidia0"),
    library("GLESv1_CM_nvidia", &[Graphics], "libgles-nvidia1"),
    library("GLESv2_nvidia", &[Graphics], "libgles-nvidia2"),
    library("nvidia-glcore", &[Graphics], "libnvidia-glcore"),
    library("nvidia-eglcore", &[Graphics], "libnvidia-eglcore"),
    library("nvidia-glsi", &[Graphics], "libnvidia-eglcore"),
    library("nvidia-tls", &[Graphics], "libnvidia-glcore"),
    library("nvidia-glvkspirv", &[Graphics], "libnvidia-glvkspirv"),
    library("nvidia-rtcore", &[Graphics], "libnvidia-rtcore"),
    library("nvoptix", &[Graphics], "libnvoptix1"),
    library("nvidia-fbc", &[Graphics], "libnvidia-fbc1"),
    only(UNTIL_470, library("nvidia-cbl", &[Graphics], "libnvidia-cbl")),
    only(UNTIL_470, library("nvidia-ifr", &[Graphics], "libnvidia-ifr1")),
    // graphics, as nvcdi
    only(FROM_535, independent("nvidia-api", "libnvidia-api1")),
    only(AFTER_535, library("nvidia-present", &[Graphics], "libnvidia-present")),
    only(SOME, library("nvidia-vulkan-producer", &[Graphics], "libegl-nvidia0")),
    only(SOME, library("nvidia-vksc-core", &[Graphics], "libnvidia-vksc-core")),
    independent("nvidia-egl-gbm", "libnvidia-egl-gbm1"),
    independent("nvidia-egl-wayland", "libnvidia-egl-wayland1"),
    only(SOME, independent("nvidia-egl-wayland2", "libnvidia-egl-wayland2")),
    only(AFTER_535, independent("nvidia-egl-xcb", "libnvidia-egl-xcb1")),
    only(AFTER_535, independent("nvidia-egl-xlib", "libnvidia-egl-xlib1")),
    share("glvnd/egl_vendor.d/10_nvidia.json", &[Graphics], "nvidia-egl-common"),
    share("egl/egl_external_platform.d/15_nvidia_gbm.json", &[Graphics], "libnvidia-egl-gbm1"),
    share("egl/egl_external_platform.d/10_nvidia_wayland.json", &[Graphics], "libnvidia-egl-wayland1"),
    only(SOME, share("egl/egl_external_platform.d/09_nvidia_wayland2.json", &[Graphics], "libnvidia-egl-wayland2")),
    only(AFTER_535, share("egl/egl_external_platform.d/20_nvidia_xcb.json", &[Graphics], "libnvidia-egl-xcb1")),
    only(AFTER_535, share("egl/egl_external_platform.d/20_nvidia_xlib.json", &[Graphics], "libnvidia-egl-xlib1")),
    share("nvidia/nvoptix.bin", &[Graphics], "libnvoptix1"),
    etc("vulkan/icd.d/nvidia_icd.json", &[Graphics], "nvidia-vulkan-common"),
    only(FEDORA, etc("vulkan/icd.d/nvidia_icd.x86_64.json", &[Graphics], "nvidia-vulkan-common")),
    only(FEDORA, etc("vulkan/icd.d/nvidia_icd.aarch64.json", &[Graphics], "nvidia-vulkan-common")),
    etc("vulkan/implicit_layer.d/nvidia_layers.json", &[Graphics], "nvidia-vulkan-common"),
    only("installations of GKE", etc("vulkan/icd.d/nvidia_layers.json", &[Graphics], "nvidia-vulkan-common")),
    // display, as nvcdi
    rule(
        Files::XModule {
            file: "nvidia_drv.so",
            paths: ["/usr/lib/xorg/modules/drivers/nvidia_drv.so", "/usr/lib64/xorg/modules/drivers/nvidia_drv.so"],
        },
        &[Display],
        "xserver-xorg-video-nvidia",
    ),
    rule(
        Files::XModule {
            file: "libglxserver_nvidia.so.*",
            paths: [
                "/usr/lib/xorg/modules/extensions/libglxserver_nvidia.so",
                "/usr/lib64/xorg/modules/extensions/libglxserver_nvidia.so",
            ],
        },
        &[Display],
        "xserver-xorg-video-nvidia",
    ),
    program("nvidia-xconfig", &[Display], "nvidia-xconfig"),
    share("X11/xorg.conf.d/nvidia-drm-outputclass.conf", &[Display], "xserver-xorg-video-nvidia"),
    only(FEDORA, share("X11/xorg.conf.d/10-nvidia.conf", &[Display], "xserver-xorg-video-nvidia")),
    // ngx, as `ngx_libs`
    library("nvidia-ngx", &[Ngx], "libnvidia-ngx1"),
    // ipc, as `lookup_ipcs`
    rule(Files::Socket("nvidia-persistenced/socket"), &[Ipc], "nvidia-persistenced"),
    only(FOR_NVSWITCH, rule(Files::Socket("nvidia-fabricmanager/socket"), &[Ipc], "nvidia-fabricmanager")),
    // Read by the kernel; older kernels read them in the mount namespace of the process that opens a GPU first.
    rule(Files::Firmware, EVERY, "firmware-nvidia-gsp"),
];

impl Rule {
    /// The name of its files in the driver root, for texts.
    pub fn file_name(&self, version: &str) -> String {
        match self.files {
            Files::Library(stem) | Files::Module { stem, .. } => format!("lib{stem}.so.{version}"),
            Files::Libraries(stem) => format!("lib{stem}*.so.{version}"),
            Files::Independent(stem) => format!("lib{stem}.so.*"),
            Files::Program(name) | Files::Fixed(name) => name.to_owned(),
            Files::XModule { file, .. } => file.replace('*', version),
            Files::Data { path, .. } | Files::Socket(path) => path.to_owned(),
            Files::Firmware => format!("nvidia/{version}/gsp*.bin"),
        }
    }

    /// Where its files are searched, below the driver root.
    pub fn dirs(&self) -> Vec<PathBuf> {
        match self.files {
            Files::Library(_)
            | Files::Libraries(_)
            | Files::Independent(_)
            | Files::Fixed(_)
            | Files::Module { .. } => library_dirs(),
            Files::Program(_) => program_dirs(),
            Files::XModule { .. } => x_module_dirs(),
            Files::Data { .. } => data_dirs(),
            Files::Firmware => firmware_dirs(),
            Files::Socket(_) => run_dirs(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_has_two_rules() {
        for (at, one) in RULES.iter().enumerate() {
            assert!(RULES[at + 1..].iter().all(|other| other.files != one.files), "{:?}", one.files);
            assert!(!one.capabilities.is_empty(), "{:?}", one.files);
        }
    }

    #[test]
    fn every_capability_has_files() {
        for capability in Capability::ALL {
            let is_own =
                |rule: &&Rule| rule.capabilities.len() < EVERY.len() && rule.capabilities.contains(&capability);
            assert!(RULES.iter().any(|rule| is_own(&rule)), "{capability}");
        }
    }
}
