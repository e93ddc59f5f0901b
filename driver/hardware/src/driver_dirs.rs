// SPDX-License-Identifier: Apache-2.0
//! Where an installed NVIDIA driver has its files, relative to its root. Every directory of every system is searched, so that no
//! setting names the system.
//!
//! | system | libraries | programs |
//! |---|---|---|
//! | NVIDIA's installer, Fedora, RHEL, SUSE | `usr/lib64` | `usr/bin` |
//! | Debian, Ubuntu | `usr/lib/<triplet>`, and `nvidia/current` below it | `usr/bin`, by `etc/alternatives` |
//! | GKE, whose driver root is `/home/kubernetes/bin/nvidia` or `/opt/nvidia` | `lib64` | `bin` |
//! | Arch Linux, and trees with a prefix | `usr/lib`, `lib` | `usr/bin`, `bin` |
//! | Talos (siderolabs/extensions) | `usr/local/glibc/usr/lib`, earlier `usr/local/glibc/lib` | `usr/local/bin` |
//! | Bottlerocket (bottlerocket-core-kit) | `usr/lib/nvidia/tesla` | `usr/libexec/nvidia/tesla/bin` |
//! | NixOS | `run/opengl-driver/lib` | `run/current-system/sw/bin` |
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

fn bottlerocket(below_usr: &str) -> String {
    format!("{ARCH}-bottlerocket-linux-gnu/sys-root/usr/{below_usr}")
}

/// The directories in a text, such as `usr/bin, usr/sbin`.
pub(crate) fn listed(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
}
