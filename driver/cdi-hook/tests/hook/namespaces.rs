// SPDX-License-Identifier: Apache-2.0
//! User namespaces, overlay roots, and the parameters of the driver.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use crate::completes::ldconfig;
use crate::image::{ARGUMENTS, Image};
use crate::listing;

/// A procfs file that may have any content, in a UTS namespace of its own. NVIDIA's file has the same rules.
const MASKED: &str = "--mask-params=/proc/sys/kernel/domainname";

const SET: &str = "echo 'ModifyDeviceFiles: 1' > /proc/sys/kernel/domainname";

const SHOW: &str = "cat \"$ROOT/proc/sys/kernel/domainname\" /proc/sys/kernel/domainname; \
    grep -c 'domainname ro\\?.*gpu-cdi-hook ro' /proc/self/mountinfo; grep -c gpu-cdi-hook /proc/self/mountinfo";

#[test]
fn the_parameters_are_covered_by_a_copy() {
    let image = Image::new();
    let twice = "\"$PROGRAM\" \"$@\" < \"$HOST/state\"; \"$PROGRAM\" \"$@\" < \"$HOST/state\"";
    fs::write(image.host().join("state"), image.state()).unwrap();
    let script = format!(
        "{SET}; mount -t proc proc \"$ROOT/proc\"; {twice}; {SHOW}; \
         ! echo x > \"$ROOT/proc/sys/kernel/domainname\" && ls \"$ROOT/proc/sys/kernel\" | wc -l && ls /proc/sys/kernel | wc -l"
    );
    let ended = image.shell(&["--mount", "--uts"], &script, &[MASKED]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("Read-only file system") && !ended.stderr.contains("gpu-cdi-hook"), "{ended:?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines[..4], ["ModifyDeviceFiles: 0", "ModifyDeviceFiles: 1", "1", "1"], "{ended:?}");
    assert_eq!(lines[4], lines[5], "a mount hides other files: {ended:?}");
}

#[test]
fn a_container_of_a_user_namespace_is_completed() {
    let image = Image::new();
    // As containerd prepares a bundle: the mapped root passes through it, and cannot read it.
    for (path, mode) in
        [(image.dir.path().to_owned(), 0o711), (image.bundle(), 0o711), (image.bundle().join("config.json"), 0o600)]
    {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    for path in listing::of(&image.root()).into_keys() {
        lchown(path, Some(100_000), Some(100_000)).unwrap();
    }
    let program = image.dir.path().join("hook");
    fs::copy(env!("CARGO_BIN_EXE_gpu-cdi-hook"), &program).unwrap();
    let inner = format!(
        "mount --bind \"$ROOT\" \"$ROOT\"; mount -t proc proc \"$ROOT/proc\"; cd \"$ROOT\"; \"$HOST/../hook\" \"$@\"; {SHOW}"
    );
    let script = format!(
        "{SET}; exec setpriv --reuid 100000 --regid 100000 --clear-groups \
         unshare --user --map-root-user --mount --pid --fork -- sh -ec '{}' sh \"$@\"",
        inner.replace('\'', "'\\''")
    );
    let ended = image.shell(&["--mount", "--uts"], &script, &[&ARGUMENTS[..], &[MASKED]].concat());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    assert_eq!(ended.stdout, "ModifyDeviceFiles: 0\nModifyDeviceFiles: 1\n1\n1\n");
    assert!(ldconfig(&image).contains("libcuda.so.1"));
    let owners =
        ["etc/ld.so.cache", "usr/lib64/libcuda.so"].map(|path| fs::symlink_metadata(image.file(path)).unwrap().uid());
    assert_eq!(owners, [100_000; 2]);
}

#[test]
fn an_overlay_keeps_its_lower_layer() {
    let image = Image::new();
    let lower = listing::of(&image.root());
    fs::create_dir_all(image.host().join("layers/upper")).unwrap();
    fs::create_dir_all(image.host().join("layers/work")).unwrap();
    let overlay = "umount \"$ROOT/proc\"; mount -t tmpfs tmpfs \"$HOST/layers\"; mkdir \"$HOST/layers/upper\" \"$HOST/layers/work\"; \
        mount -t overlay overlay -o \"lowerdir=$ROOT,upperdir=$HOST/layers/upper,workdir=$HOST/layers/work\" \"$ROOT\"; \
        mount -t proc proc \"$ROOT/proc\"";
    let script = format!(
        "mount -t proc proc \"$ROOT/proc\"; {overlay}; cd \"$ROOT\"; \"$PROGRAM\" \"$@\"; cd \"$HOST/layers/upper\"; find . | sort"
    );
    let ended = image.shell(&["--mount"], &script, &ARGUMENTS);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    let files: Vec<&str> = ended.stdout.lines().collect();
    let expected = [
        ".",
        "./etc",
        "./etc/ld.so.cache",
        "./usr",
        "./usr/lib64",
        "./usr/lib64/deep",
        "./usr/lib64/deep/dir",
        "./usr/lib64/deep/dir/libcuda.so",
        "./usr/lib64/libcuda.so",
    ];
    assert_eq!(files, expected);
    assert_eq!(listing::of(&image.root()), lower);
    assert!(Path::new("/etc/ld.so.cache").exists());
}
