// SPDX-License-Identifier: Apache-2.0
//! Root directories of images, from Debian packages that `make setup` unpacks, with a program that loads libraries.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use dra_tests::chart::cache_dir;
use tempfile::TempDir;

/// How an image is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Libraries in the triplet directory, a cache of the loader, a shell.
    Debian,
    /// Libraries in `/usr/lib64`, a cache of the loader: Fedora, RHEL and its UBI, SUSE.
    Lib64,
    /// The C library in the triplet directory and nothing else: no cache, no shell, no `ldconfig`.
    Distroless,
}

impl Layout {
    /// Debian builds no glibc for `/lib64` on other processors.
    pub(crate) fn all() -> Vec<Self> {
        let all = [Self::Debian, Self::Lib64, Self::Distroless];
        all.into_iter().filter(|layout| cfg!(target_arch = "x86_64") || *layout != Self::Lib64).collect()
    }

    fn packages(self) -> PathBuf {
        let name = match self {
            Self::Debian => "demo",
            Self::Lib64 => "lib64",
            Self::Distroless => "base",
        };
        cache_dir().join("rootfs").join(name)
    }

    pub(crate) fn has_cache(self) -> bool {
        self != Self::Distroless
    }

    /// The directory that the loader trusts, as it is named in its answer.
    pub(crate) fn trusted_dir(self) -> String {
        match self {
            Self::Debian | Self::Distroless => format!("/lib/{}-linux-gnu", std::env::consts::ARCH),
            Self::Lib64 => "/lib64".to_owned(),
        }
    }
}

/// A copy of an image.
#[derive(Debug)]
pub(crate) struct Image {
    dir: TempDir,
    pub(crate) layout: Layout,
}

/// Prints the file that is loaded for each library and what its function answers; or a file.
const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
static void answer(const char *library, const char *name) {
    void *loaded = dlopen(library, RTLD_NOW);
    int (*function)(unsigned) = loaded ? (int (*)(unsigned))dlsym(loaded, name) : 0;
    struct link_map *map;
    if (!function || dlinfo(loaded, RTLD_DI_LINKMAP, &map)) printf("%s\n", dlerror());
    else printf("%s %d\n", map->l_name, function(0));
}
int main(int count, char **arguments) {
    if (count == 1) {
        answer("libcuda.so.1", "cuInit");
        answer("libnvidia-ml.so.1", "nvmlInit_v2");
        return 0;
    }
    FILE *file = fopen(arguments[1], "r");
    for (int byte; file && (byte = getc(file)) != EOF;) putchar(byte);
    return !file;
}"#;

impl Image {
    pub(crate) fn new(layout: Layout) -> Self {
        let packages = layout.packages();
        assert!(packages.is_dir(), "no {}: run `make setup` first", packages.display());
        let dir = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-a").arg(&packages).arg(dir.path().join("root")).status().unwrap();
        assert!(copied.success());
        // In a user namespace a runtime passes through it as another user.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let image = Self { dir, layout };
        compile(&image.file("program"), PROGRAM, &[]);
        image
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// A `libcuda.so.1` of the image, whose `cuInit` answers the number.
    pub(crate) fn add_cuda(&self, dir: &str, answers: u32) {
        fs::create_dir_all(self.file(dir)).unwrap();
        let source = format!("int cuInit(unsigned flags) {{ return {answers}; }}");
        compile(&self.file(dir).join("libcuda.so.1"), &source, &["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]);
    }

    /// Adds a directory to the configuration of the loader, as the scripts of packages do.
    pub(crate) fn configure_loader(&self, file_name: &str, dir: &str) {
        fs::write(self.file("etc/ld.so.conf.d").join(file_name), format!("{dir}\n")).unwrap();
        assert!(Command::new("/sbin/ldconfig").arg("-r").arg(self.root()).status().unwrap().success());
    }

    /// Gives all files to the user that is root in a user namespace.
    pub(crate) fn map_to(&self, uid: u32) {
        give(&self.root(), uid);
    }
}

fn give(path: &Path, uid: u32) {
    lchown(path, Some(uid), Some(uid)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), uid);
        }
    }
}

fn compile(output: &Path, source: &str, options: &[&str]) {
    let input = output.with_extension("c");
    fs::write(&input, source).unwrap();
    let mut command = Command::new("cc");
    command.args(options).arg("-o").arg(output).arg(&input);
    assert!(command.status().unwrap().success());
    fs::remove_file(input).unwrap();
}
