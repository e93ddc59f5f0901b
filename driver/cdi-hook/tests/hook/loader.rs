// SPDX-License-Identifier: Apache-2.0
//! glibc's own loader uses the merged cache: programs in a container find the driver's library by its SONAME.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dra_cdi_hook::ld_cache::Cache;

use crate::cache_rules::resolved;
use crate::image::{Ended, Image};

/// A program that is linked with `libcuda.so.1` and loads it a second time by name; prints what both libraries answer.
const PROGRAM: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
int cuda(void); int other(void);
int main(void) {
    void *loaded = dlopen("libcuda.so.1", RTLD_NOW);
    int (*answer)(void) = loaded ? (int (*)(void))dlsym(loaded, "cuda") : 0;
    printf("%d %d %d\n", cuda(), answer ? answer() : -1, other());
    return 0;
}"#;

/// An image with that program, libraries in directories that no loader trusts, and the cache that `ldconfig` makes of them.
pub(crate) struct Programs {
    pub(crate) image: Image,
}

impl Programs {
    pub(crate) fn new() -> Self {
        let image = Image::new();
        for dir in ["lib64", "opt/driver", "opt/other", "opt/stale", "bin"] {
            fs::create_dir_all(image.file(dir)).unwrap();
        }
        let programs = Self { image };
        programs.copy_loader();
        programs.library("opt/driver/libcuda.so.1", "int cuda(void) { return 1; }");
        programs.library("opt/other/libother.so.1", "int other(void) { return 3; }");
        let linked = ["opt/driver/libcuda.so.1", "opt/other/libother.so.1"].map(|path| programs.image.file(path));
        compile(&programs.image.file("bin/program"), PROGRAM, &linked, &[]);
        programs.image.write("etc/ld.so.conf", "/opt/other\n/opt/stale\n");
        programs
    }

    /// The loader and the C library of this machine, at their own paths.
    fn copy_loader(&self) {
        let bytes = fs::read("/etc/ld.so.cache").unwrap();
        let entries = resolved(&Cache::parse(&bytes).unwrap());
        let libc = entries.iter().find(|entry| entry.1 == b"libc.so.6").unwrap();
        let libc = String::from_utf8(libc.2.clone()).unwrap();
        let loader =
            if cfg!(target_arch = "aarch64") { "/lib/ld-linux-aarch64.so.1" } else { "/lib64/ld-linux-x86-64.so.2" };
        for path in [libc.as_str(), loader] {
            self.image.write(&path[1..], fs::read(path).unwrap());
            let program = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
            fs::set_permissions(self.image.file(&path[1..]), program).unwrap();
        }
    }

    pub(crate) fn library(&self, path: &str, source: &str) {
        let path = self.image.file(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let soname = format!("-Wl,-soname,{}", path.file_name().unwrap().to_str().unwrap());
        compile(&path, source, &[], &["-shared", "-fPIC", &soname]);
    }

    pub(crate) fn ldconfig(&self, format: &str) {
        let status = Command::new("/sbin/ldconfig").args(["-c", format, "-r"]).arg(self.image.root()).status().unwrap();
        assert!(status.success());
    }

    pub(crate) fn hook(&self) -> Ended {
        self.image.run(&["--library-dir=/opt/driver", "--library=libcuda.so.1"])
    }

    /// What the program prints in the container, or the error of the loader.
    pub(crate) fn run(&self) -> Result<String, String> {
        let output =
            Command::new("/usr/sbin/chroot").arg(self.image.root()).arg("/bin/program").env_clear().output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

fn compile(output: &Path, source: &str, libraries: &[PathBuf], options: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("source.c");
    fs::write(&input, source).unwrap();
    let mut command = Command::new("cc");
    command.args(options).arg("-o").arg(output).arg(&input).args(libraries);
    assert!(command.status().unwrap().success());
}

#[test]
fn programs_find_the_library_through_the_merged_cache() {
    for format in ["new", "compat"] {
        let programs = Programs::new();
        programs.ldconfig(format);
        let error = programs.run().unwrap_err();
        assert!(error.contains("libcuda.so.1: cannot open shared object file"), "{error}");
        let ended = programs.hook();
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
        assert_eq!(programs.run().as_deref(), Ok("1 1 3"), "{format}");
    }
}

#[test]
fn the_library_of_the_driver_is_used_before_one_of_the_image() {
    let programs = Programs::new();
    programs.library("opt/stale/libcuda.so.1", "int cuda(void) { return 2; }");
    programs.library("opt/stale/glibc-hwcaps/x86-64-v2/libcuda.so.1", "int cuda(void) { return 5; }");
    programs.ldconfig("new");
    let before = programs.run().unwrap();
    assert!(before == "2 2 3" || before == "5 5 3", "{before}");
    assert_eq!(programs.hook().stderr, "");
    assert_eq!(programs.run().as_deref(), Ok("1 1 3"));
}

#[test]
fn a_read_only_root_stays_and_the_library_is_found_in_a_trusted_directory() {
    let programs = Programs::new();
    programs.ldconfig("new");
    programs.library("usr/lib/x86_64-linux-gnu/libcuda.so.1", "int cuda(void) { return 1; }");
    programs.library("usr/lib64/libcuda.so.1", "int cuda(void) { return 1; }");
    let before = crate::listing::of(&programs.image.root());
    let read_only = "mount --bind \"$ROOT\" \"$ROOT\"; mount -o remount,bind,ro \"$ROOT\"";
    let arguments =
        ["--library-dir=/usr/lib64", "--library=libcuda.so.1", "--symlink=libcuda.so.1::/usr/lib64/libcuda.so"];
    let ended = programs.image.run_after(read_only, &arguments);
    assert_eq!(ended.code, Some(0));
    let expected = "gpu-cdi-hook: failed to create the symbolic link /usr/lib64/libcuda.so: Read-only file system (os error 30)\n\
        gpu-cdi-hook: the libraries of the driver are not in the loader's cache: the root filesystem is read-only\n";
    assert_eq!(ended.stderr, expected);
    assert_eq!(crate::listing::of(&programs.image.root()), before);
    assert_eq!(programs.run().as_deref(), Ok("1 1 3"));
}
