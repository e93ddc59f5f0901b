// SPDX-License-Identifier: Apache-2.0
//! What the hook does for an ordinary image, and when it fails the container.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;

use crate::image::{ARGUMENTS, Image, run};
use crate::listing;

#[test]
fn the_cache_and_the_links_are_there() {
    let image = Image::new();
    fs::set_permissions(image.file("etc/ld.so.cache"), fs::Permissions::from_mode(0o640)).unwrap();
    chown(image.file("etc/ld.so.cache"), Some(1234), Some(5678)).unwrap();
    let (before, outside) = (image.cache(), image.outside());
    let ended = image.run(&ARGUMENTS);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    let listed = ldconfig(&image);
    assert!(listed.contains("libcuda.so.1 (libc6,x86-64) => /usr/lib64/libcuda.so.1\n"), "{listed}");
    assert!(listed.contains("libc.so.6 (libc6"), "{listed}");
    let file = fs::metadata(image.file("etc/ld.so.cache")).unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o640, 1234, 5678));
    assert_eq!(fs::read_link(image.file("usr/lib64/libcuda.so")).unwrap().to_str(), Some("libcuda.so.1"));
    assert_eq!(fs::read_link(image.file("usr/lib64/deep/dir/libcuda.so")).unwrap().to_str(), Some("../libcuda.so.1"));
    assert_eq!(fs::metadata(image.file("usr/lib64/deep")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(image.outside(), outside);
    assert_ne!(image.cache(), before);
    // A second hook of the container, or a restart, writes nothing.
    let complete = listing::of(&image.root());
    assert_eq!(image.run(&ARGUMENTS).stderr, "");
    assert_eq!(listing::of(&image.root()), complete);
}

/// What `ldconfig -p` reads from the cache of an image.
pub(crate) fn ldconfig(image: &Image) -> String {
    let output =
        Command::new("/sbin/ldconfig").arg("-p").arg("-C").arg(image.file("etc/ld.so.cache")).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn only_links_and_empty_files_are_replaced() {
    let image = Image::new();
    image.link("usr/lib64/libcuda.so", "stubs/libcuda.so");
    image.write("usr/lib64/deep/dir/libcuda.so", "");
    assert_eq!(image.run(&ARGUMENTS).stderr, "");
    assert_eq!(fs::read_link(image.file("usr/lib64/libcuda.so")).unwrap().to_str(), Some("libcuda.so.1"));
    assert!(fs::symlink_metadata(image.file("usr/lib64/deep/dir/libcuda.so")).unwrap().is_symlink());
    image.write("usr/lib64/libcuda.so", "a library of the image");
    let ended = image.run(&ARGUMENTS);
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.stderr, "gpu-cdi-hook: the image has another file at /usr/lib64/libcuda.so\n");
    assert_eq!(fs::read(image.file("usr/lib64/libcuda.so")).unwrap(), b"a library of the image");
}

#[test]
fn an_image_without_a_cache_gets_none() {
    let image = Image::new();
    image.remove("etc/ld.so.cache");
    let ended = image.run(&ARGUMENTS);
    assert_eq!(ended.code, Some(0));
    let expected = "the libraries of the driver are not in the loader's cache: the image has no ld.so.cache";
    assert_eq!(ended.stderr, format!("gpu-cdi-hook: {expected}\n"));
    assert_eq!(fs::read_dir(image.file("etc")).unwrap().count(), 0);
}

#[test]
fn only_a_container_without_any_library_fails() {
    let image = Image::new();
    let ended = image.run(&[&ARGUMENTS[..], &["--library=libmissing.so.1"]].concat());
    assert_eq!(ended.code, Some(0));
    let line = "the container lacks 1 of 2 libraries that its CDI spec mounts, such as libmissing.so.1";
    assert!(ended.stderr.contains(line), "{ended:?}");
    assert!(ldconfig(&image).contains("libcuda.so.1"));

    let image = Image::new();
    // As a runtime leaves it where a library was mounted.
    image.write("usr/lib64/libcuda.so.1", "");
    let before = listing::of(&image.root());
    let ended = image.run(&ARGUMENTS);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("the container lacks 1 of 1 libraries that its CDI spec mounts, such as libcuda.so.1"),
        "{ended:?}"
    );
    assert_eq!(listing::of(&image.root()), before);
}

#[test]
fn an_invalid_command_line_changes_nothing() {
    let image = Image::new();
    let before = listing::of(&image.root());
    let ended = image.run(&[&ARGUMENTS[..], &["--help"]].concat());
    assert_eq!(ended.code, Some(0));
    let expected = "the root filesystem of the container is unchanged, because the command line of the hook is invalid: `--help` is no option";
    assert!(ended.stderr.contains(expected), "{ended:?}");
    assert_eq!(listing::of(&image.root()), before);
}

#[test]
fn nothing_to_do_is_done_silently() {
    let image = Image::new();
    let before = listing::of(&image.root());
    let ended = image.run(&["--mask-params=/proc/driver/nvidia/params"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(listing::of(&image.root()), before);
}

#[test]
fn variables_of_an_image_have_no_effect() {
    let image = Image::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-cdi-hook"));
    command.args(ARGUMENTS).env_clear().current_dir(image.root());
    for (name, value) in [
        ("RUST_MIN_STACK", "18446744073709551615"),
        ("RUST_BACKTRACE", "full"),
        ("GLIBC_TUNABLES", "glibc.malloc.check=3:glibc.malloc.mmap_max=0"),
        ("MALLOC_ARENA_MAX", "0"),
        ("LANG", "../../../../../x"),
        ("PATH", "/proc/self/cwd"),
    ] {
        command.env(name, value);
    }
    let ended = run(&mut command, image.state().as_bytes());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(ldconfig(&image).contains("libcuda.so.1"));
}
