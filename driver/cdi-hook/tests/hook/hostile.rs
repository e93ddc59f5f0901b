// SPDX-License-Identifier: Apache-2.0
//! Images that attack the hook. Each result is the same: nothing outside of the container's root changes, the hook ends in
//! time, and it refuses in words.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::cache;
use crate::image::{ARGUMENTS, Image, TIME_LIMIT, sparse};
use crate::listing;

struct Attack {
    name: String,
    prepare: Box<dyn Fn(&Image)>,
    /// Mounts that the image has.
    mounts: &'static str,
    /// A part of what the hook writes, or empty.
    expected: &'static str,
}

fn attack(name: impl Into<String>, expected: &'static str, prepare: impl Fn(&Image) + 'static) -> Attack {
    Attack { name: name.into(), prepare: Box::new(prepare), mounts: "", expected }
}

fn mounted(name: &str, expected: &'static str, mounts: &'static str) -> Attack {
    Attack { name: name.to_owned(), prepare: Box::new(|_| {}), mounts, expected }
}

/// Ways to name a directory of the host.
fn ways_out(host: &Path) -> Vec<String> {
    let host = host.display().to_string();
    vec![
        host.clone(),
        format!("../../../../../../../../../../../..{host}"),
        format!("/proc/self/root{host}"),
        format!("/proc/1/root{host}"),
        format!("/proc/self/cwd/../..{host}"),
        format!("/proc/thread-self/root/proc/self/root{host}"),
        format!("proc/self/../self/root{host}"),
        "/proc/self/cwd/../../host".to_owned(),
    ]
}

/// A link at every component of every path that the hook uses.
fn links() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for (component, below) in [
        ("etc", "/etc"),
        ("etc/ld.so.cache", "/etc/ld.so.cache"),
        ("usr", "/usr"),
        ("usr/lib64", "/usr/lib64"),
        ("usr/lib64/libcuda.so.1", "/usr/lib64/libcuda.so.1"),
        ("usr/lib64/libcuda.so", "/usr/lib64/libcuda.so"),
        ("usr/lib64/deep", "/data"),
        ("usr/lib64/deep/dir", "/data"),
        ("usr/lib64/deep/dir/libcuda.so", "/etc/ld.so.cache"),
    ] {
        for way in 0..ways_out(Path::new("")).len() {
            attacks.push(attack(format!("{component} is a link, way {way}"), "", move |image| {
                let target = format!("{}{below}", ways_out(&image.host())[way]);
                fs::create_dir_all(image.file(component).parent().unwrap()).unwrap();
                image.link(component, target);
            }));
        }
    }
    for target in
        ["/", "/etc", "etc", ".", "..", "/proc/self/fd/0", "/proc/self/exe", "/proc/self/map_files", "/dev/fd/3"]
    {
        for component in ["etc", "etc/ld.so.cache", "usr/lib64/deep"] {
            attacks.push(attack(format!("{component} -> {target}"), "", move |image| image.link(component, target)));
        }
    }
    attacks
}

/// Other kinds of files where the hook expects a file or a directory.
fn kinds() -> Vec<Attack> {
    let node = |path: &'static str, arguments: &'static [&'static str]| {
        move |image: &Image| {
            image.remove(path);
            let status = Command::new("mknod").arg(image.file(path)).args(arguments).status().unwrap();
            assert!(status.success());
        }
    };
    let cache = "etc/ld.so.cache";
    let no_dir = "failed to open the directory /etc of the root filesystem: Not a directory";
    vec![
        attack("cache is a FIFO", "is a FIFO", node(cache, &["p"])),
        attack("cache is /dev/zero", "is a device", node(cache, &["c", "1", "5"])),
        attack("cache is a terminal", "is a device", node(cache, &["c", "5", "0"])),
        attack("cache is a disk", "is a device", node(cache, &["b", "7", "0"])),
        attack("cache is a socket", "is a socket", move |image| {
            image.remove(cache);
            UnixListener::bind(image.file(cache)).unwrap();
        }),
        attack("cache is a directory", "is a directory", move |image| {
            image.remove(cache);
            fs::create_dir(image.file(cache)).unwrap();
        }),
        attack("cache is huge", "more than", move |image| sparse(&image.file(cache), 1 << 40)),
        attack("cache is a little too large", "more than", move |image| sparse(&image.file(cache), (1 << 24) + 1)),
        attack("cache is sparse", "unknown format", move |image| sparse(&image.file(cache), 1 << 24)),
        attack("cache is unreadable", "", move |image| {
            let nothing = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o000);
            fs::set_permissions(image.file(cache), nothing).unwrap();
        }),
        attack("/etc is a FIFO", no_dir, node("etc", &["p"])),
        attack("/etc is a device", no_dir, node("etc", &["c", "1", "5"])),
        attack("/etc is a file", no_dir, |image| image.write("etc", "x")),
        attack("/etc is missing", "No such file", |image| image.remove("etc")),
        attack("link is a FIFO", "another file", node("usr/lib64/libcuda.so", &["p"])),
        attack("link is a device", "another file", node("usr/lib64/libcuda.so", &["c", "1", "5"])),
        attack("link is a directory", "another file", |image| image.write("usr/lib64/libcuda.so/a", "x")),
        attack("directory of the link is a FIFO", "Not a directory", node("usr/lib64/deep", &["p"])),
        attack("library is a FIFO", "the container lacks", node("usr/lib64/libcuda.so.1", &["p"])),
        attack("library is a device", "the container lacks", node("usr/lib64/libcuda.so.1", &["c", "1", "5"])),
    ]
}

/// One file with a name in the image and one outside.
fn hard_links() -> Vec<Attack> {
    let linked = |path: &'static str, outside: &'static str| {
        move |image: &Image| {
            image.remove(path);
            fs::hard_link(image.host().join(outside), image.file(path)).unwrap();
        }
    };
    vec![
        attack("cache is a hard link", "", linked("etc/ld.so.cache", "etc/ld.so.cache")),
        attack("library is a hard link", "", linked("usr/lib64/libcuda.so.1", "usr/lib64/libcuda.so.1")),
        attack("link is a hard link", "another file", linked("usr/lib64/libcuda.so", "usr/lib64/libcuda.so.1")),
    ]
}

/// Directories of the host or of others in the container, as volumes are.
fn mounts() -> Vec<Attack> {
    // glibc writes "Invalid cross-device link", musl "Cross-device link".
    let other_filesystem = "ross-device link";
    vec![
        mounted("volume over /etc", other_filesystem, "mount --bind \"$HOST/etc\" \"$ROOT/etc\""),
        mounted("tmpfs over /etc", other_filesystem, "mount -t tmpfs tmpfs \"$ROOT/etc\""),
        mounted("procfs over /etc", other_filesystem, "mount -t proc proc \"$ROOT/etc\""),
        mounted(
            "file over the cache",
            "another filesystem",
            "mount --bind \"$HOST/etc/ld.so.cache\" \"$ROOT/etc/ld.so.cache\"",
        ),
        mounted("volume over the libraries", other_filesystem, "mount --bind \"$HOST/usr/lib64\" \"$ROOT/usr/lib64\""),
        mounted("host over /usr", other_filesystem, "mount --bind \"$HOST/usr\" \"$ROOT/usr\""),
        mounted(
            "link to a volume",
            other_filesystem,
            "mount --bind \"$HOST/etc\" \"$ROOT/data\"; rm -r \"$ROOT/etc\"; ln -s data \"$ROOT/etc\"",
        ),
        mounted(
            "link for a directory to a volume",
            other_filesystem,
            "mount --bind \"$HOST/data\" \"$ROOT/data\"; ln -s /data \"$ROOT/usr/lib64/deep\"",
        ),
        mounted(
            "file over the link",
            "another file",
            "touch \"$ROOT/usr/lib64/libcuda.so\"; mount --bind \"$HOST/usr/lib64/libcuda.so.1\" \"$ROOT/usr/lib64/libcuda.so\"",
        ),
        mounted(
            "empty file over the link",
            "Device or resource busy",
            "touch \"$ROOT/usr/lib64/libcuda.so\" \"$ROOT/x\"; mount --bind \"$ROOT/x\" \"$ROOT/usr/lib64/libcuda.so\"",
        ),
    ]
}

/// Caches that make a parser fail. The file of one attack is not read by another.
fn crafted() -> Vec<Attack> {
    let crafted = cache::crafted_caches().into_iter().map(|(name, file, _)| {
        attack(format!("cache with {name}"), "unknown format", move |image| image.write("etc/ld.so.cache", &file))
    });
    // Not refused, but the most work for their size.
    let sonames: Vec<String> = (0..65_000).rev().map(|number| format!("{}{number}", "9".repeat(240))).collect();
    let most = cache::encode(&sonames[..30_000], true);
    let names = move |image: &Image| image.write("etc/ld.so.cache", &most);
    crafted.chain([attack("cache of long numbers", "", names)]).collect()
}

#[test]
fn nothing_outside_of_the_root_changes_and_the_hook_ends() {
    for attacks in [links(), kinds(), hard_links(), mounts(), crafted()] {
        for Attack { name, prepare, mounts, expected } in attacks {
            let image = Image::new();
            prepare(&image);
            let outside = image.outside();
            let ended = image.run_after(mounts, &ARGUMENTS);
            assert!(matches!(ended.code, Some(0 | 1)), "{name}: {ended:?}");
            assert!(ended.elapsed < TIME_LIMIT * 2, "{name}: {ended:?}");
            assert!(ended.stderr.contains(expected), "{name}: {ended:?}");
            assert!(ended.stderr.lines().all(|line| line.starts_with("gpu-cdi-hook: ")), "{name}: {ended:?}");
            let changed: Vec<_> = differences(&outside, &image.outside());
            assert!(changed.is_empty(), "{name} changed {changed:?}");
            assert_eq!(listing::temporary_files(&image.root()), Vec::<std::path::PathBuf>::new(), "{name}");
        }
    }
}

fn differences(before: &listing::Listing, after: &listing::Listing) -> Vec<std::path::PathBuf> {
    let paths = before.keys().chain(after.keys());
    paths.filter(|path| before.get(*path) != after.get(*path)).cloned().collect()
}

#[test]
fn only_a_procfs_of_the_container_is_covered() {
    let masked = "--mask-params=/proc/sys/kernel/domainname";
    let set = "echo 'ModifyDeviceFiles: 1' > /proc/sys/kernel/domainname";
    let fake = "mkdir -p \"$ROOT/proc/sys/kernel\"; echo 'ModifyDeviceFiles: 1' > \"$ROOT/proc/sys/kernel/domainname\"";
    for (name, setup, expected) in [
        ("directory of the image", fake.to_owned(), "/proc of the container is not a procfs"),
        ("tmpfs", format!("mount -t tmpfs tmpfs \"$ROOT/proc\"; {fake}"), "/proc of the container is not a procfs"),
        ("link to the host", "rmdir \"$ROOT/proc\"; ln -s /proc \"$ROOT/proc\"".to_owned(), "is not a procfs"),
        ("link", "rmdir \"$ROOT/proc\"; ln -s ../../host/etc \"$ROOT/proc\"".to_owned(), "is not a procfs"),
        (
            "volume with /proc of the host",
            "mount --make-rshared /; mount --rbind /proc \"$ROOT/proc\"".to_owned(),
            "/proc of the container is that of the host",
        ),
        ("tmpfs below", "mount -t proc proc \"$ROOT/proc\"; mount -t tmpfs tmpfs \"$ROOT/proc/sys/kernel\"".to_owned(), ""),
        (
            "file over it",
            "mount -t proc proc \"$ROOT/proc\"; mount --bind \"$HOST/usr/lib64/libcuda.so.1\" \"$ROOT/proc/sys/kernel/domainname\"".to_owned(),
            "",
        ),
    ] {
        let image = Image::new();
        let outside = image.outside();
        let mounts = "grep -c gpu-cdi-hook /proc/self/mountinfo || true";
        let script = format!("{set}; {setup}; \"$PROGRAM\" \"$@\"; {mounts}");
        let ended = image.shell(&["--mount", "--uts"], &script, &[masked]);
        assert_eq!((ended.code, ended.stdout.trim()), (Some(0), "0"), "{name}: {ended:?}");
        assert!(ended.stderr.contains(expected), "{name}: {ended:?}");
        assert!(differences(&outside, &image.outside()).is_empty(), "{name}");
    }
}
