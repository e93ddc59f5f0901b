// SPDX-License-Identifier: Apache-2.0
//! Where an installed NVIDIA driver has its files, relative to its root. Every directory of every system is searched, so that no
//! setting names the system.
//!
//! | system | libraries | programs | data |
//! |---|---|---|---|
//! | NVIDIA's installer, Fedora, RHEL, SUSE | `usr/lib64` | `usr/bin` | `usr/share`, `etc` |
//! | Debian, Ubuntu | `usr/lib/<triplet>`, and `nvidia/current` below it | `usr/bin`, by `etc/alternatives` | `usr/share`, `etc` |
//! | GKE, whose driver root is `/home/kubernetes/bin/nvidia` or `/opt/nvidia` | `lib64` | `bin` | the root itself |
//! | Arch Linux, and trees with a prefix | `usr/lib`, `lib` | `usr/bin`, `bin` | `usr/share`, `share` |
//! | Talos (siderolabs/extensions) | `usr/local/glibc/usr/lib`, earlier `usr/local/glibc/lib` | `usr/local/bin` | `usr/local/share` |
//! | Bottlerocket (bottlerocket-core-kit) | `usr/lib/nvidia/tesla` | `usr/libexec/nvidia/tesla/bin` | `usr/share` |
//! | NixOS | `run/opengl-driver/lib` | `run/current-system/sw/bin` | `run/opengl-driver/share` |
//!
//! The directory that `libnvidia-ml.so.1` leads to is searched too: the older drivers of Debian have one each, as
//! `usr/lib/<triplet>/nvidia/tesla-470`, of which alternatives select one.
//!
//! Bottlerocket's `usr` is also below `<architecture>-bottlerocket-linux-gnu/sys-root`.

use std::env::consts::ARCH;
use std::path::PathBuf;

/// Earlier directories count first. `usr/lib` and `lib` are last: systems with `lib64` have the libraries of 32-bit programs there.
pub fn library_dirs() -> Vec<PathBuf> {
    let triplet = format!("{ARCH}-linux-gnu");
    let usual = ["usr/lib64".to_owned(), format!("usr/lib/{triplet}"), "lib64".to_owned(), format!("lib/{triplet}")];
    let usual = usual.into_iter().flat_map(|dir| [dir.clone(), dir + "/nvidia/current"]);
    let others = [
        "usr/local/glibc/usr/lib".to_owned(),
        "usr/local/glibc/lib".to_owned(),
        "usr/lib/nvidia/tesla".to_owned(),
        bottlerocket("lib/nvidia/tesla"),
        "run/opengl-driver/lib".to_owned(),
        "usr/lib".to_owned(),
        "lib".to_owned(),
    ];
    usual.chain(others).map(PathBuf::from).collect()
}

/// Earlier directories count first.
pub fn program_dirs() -> Vec<PathBuf> {
    let usual = ["usr/bin", "usr/sbin", "bin", "sbin", "usr/local/bin", "usr/libexec/nvidia/tesla/bin"];
    let usual = usual.into_iter().map(str::to_owned);
    let others = [bottlerocket("libexec/nvidia/tesla/bin"), "run/current-system/sw/bin".to_owned()];
    usual.chain(others).map(PathBuf::from).collect()
}

/// Of configuration and other data. Earlier directories count first.
pub fn data_dirs() -> Vec<PathBuf> {
    let dirs = ["etc", "usr/local/share", "usr/share", "run/opengl-driver/share", "share", ""];
    let sys_root = PathBuf::from(format!("{ARCH}-bottlerocket-linux-gnu/sys-root/usr/share"));
    dirs.into_iter().map(PathBuf::from).chain([sys_root]).collect()
}

/// Of firmware, in the order of the kernel (`fw_path` in `drivers/base/firmware_loader/main.c`).
pub fn firmware_dirs() -> Vec<PathBuf> {
    ["lib/firmware/updates", "lib/firmware", "usr/lib/firmware", "run/current-system/firmware"]
        .map(PathBuf::from)
        .into()
}

/// Of modules of the X server: those of the server itself, and those of packages that keep them apart.
pub fn x_module_dirs() -> Vec<PathBuf> {
    const BELOW: [&str; 4] = ["xorg/modules/drivers", "xorg/modules/extensions", "nvidia/xorg", "nvidia/current"];
    let dirs = library_dirs();
    let below = dirs.iter().flat_map(|dir| BELOW.map(|below| dir.join(below)));
    below.chain(dirs.iter().cloned()).collect()
}

/// Of sockets.
pub fn run_dirs() -> Vec<PathBuf> {
    ["run", "var/run"].map(PathBuf::from).into()
}

fn bottlerocket(below_usr: &str) -> String {
    format!("{ARCH}-bottlerocket-linux-gnu/sys-root/usr/{below_usr}")
}

/// The directories in a text, such as `usr/bin, usr/sbin`.
pub(crate) fn listed(dirs: &[PathBuf]) -> String {
    let name = |dir: &PathBuf| if dir.as_os_str().is_empty() { "/".to_owned() } else { dir.display().to_string() };
    dirs.iter().map(name).collect::<Vec<_>>().join(", ")
}
