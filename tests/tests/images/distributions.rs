// SPDX-License-Identifier: Apache-2.0
//! Images of each layout, by every kind of user, with the hook of the specs and without it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use dra_tests::programs::built;
use dra_tests::{Mode, NewClaim, Node};

use crate::image::{Image, Layout};
use crate::podman::Podman;

/// Root of the containers in a user namespace.
const MAPPED: u32 = 100_000;

const AS_ROOT: [&str; 0] = [];
const AS_USER: [&str; 3] = ["--user=1000:1000", "--cap-drop=all", "--security-opt=no-new-privileges"];
const READ_ONLY: [&str; 2] = ["--read-only", "--read-only-tmpfs=false"];
const IN_USER_NAMESPACE: [&str; 2] = ["--uidmap=0:100000:65536", "--gidmap=0:100000:65536"];

/// A node with one GPU, and the CDI names of a claim for it.
pub(crate) async fn prepared(with_hook: bool) -> (Node, Vec<String>) {
    let mut node = Node::new("h100:1");
    fs::set_permissions(node.dir(), fs::Permissions::from_mode(0o711)).unwrap();
    node.machine_on_host = node.gpus.dir().to_owned();
    if with_hook {
        let dir = node.dir().join("h");
        node.flags.push(format!("--cdi-hook-dir={}", dir.display()));
        node.flags.push(format!("--cdi-hook-program={}", built("gpu-cdi-hook").display()));
    }
    let mut plugin = node.start(Mode::Process).await;
    let claim = NewClaim::of("train", &node.gpus.name(0)).create(&node.api);
    let devices = node.kubelet.prepare(&claim).await.unwrap();
    assert!(plugin.stop().await);
    (node, devices.into_iter().flat_map(|device| device.cdi_device_ids).collect())
}

/// The simulated `libcuda.so.1` has no device, and the other library has no simulated machine in a container.
fn check(podman: &Podman<'_>, image: &Image, options: &[&str], dir: &str) {
    let expect = [format!("{dir}/libcuda.so.1 100"), format!("{dir}/libnvidia-ml.so.1 9")];
    assert_eq!(podman.answers(image, options), expect, "{:?} {options:?}", image.layout);
}

fn check_all(podman: &Podman<'_>, dir: impl Fn(Layout) -> String) {
    for layout in Layout::all() {
        let image = Image::new(layout);
        for options in [&AS_ROOT[..], &AS_USER, &READ_ONLY] {
            check(podman, &image, options, &dir(layout));
        }
        image.map_to(MAPPED);
        check(podman, &image, &IN_USER_NAMESPACE, &dir(layout));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_hook_the_loader_finds_the_libraries_in_the_directory_that_it_trusts() {
    let (node, devices) = prepared(false).await;
    let (cdi_dir, device_dir) = (node.cdi_dir(), node.gpus.dir().join("dev"));
    check_all(&Podman { cdi_dir: &cdi_dir, device_dir: Some(&device_dir), devices }, Layout::trusted_dir);
}

/// Both directories have the libraries, and the hook names the first.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_hook_the_loader_finds_the_libraries_in_the_cache_of_the_image() {
    let (node, devices) = prepared(true).await;
    let (cdi_dir, device_dir) = (node.cdi_dir(), node.gpus.dir().join("dev"));
    let podman = Podman { cdi_dir: &cdi_dir, device_dir: Some(&device_dir), devices };
    let first_dir = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    check_all(&podman, |layout| if layout.has_cache() { first_dir.clone() } else { layout.trusted_dir() });

    for layout in Layout::all().into_iter().filter(|layout| layout.has_cache()) {
        let image = Image::new(layout);
        let cache = node.dir().join("cache");
        fs::write(&cache, podman.run(&image, &[], &["/program", "/etc/ld.so.cache"])).unwrap();
        let listed = Command::new("/sbin/ldconfig").arg("-p").arg("-C").arg(&cache).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        for expect in [format!("libcuda.so.1 (libc6,x86-64) => {first_dir}/libcuda.so.1\n"), "libc.so.6 (".to_owned()] {
            let expect = if cfg!(target_arch = "aarch64") { expect.replace("x86-64", "AArch64") } else { expect };
            assert!(listed.contains(&expect), "{layout:?}: {expect} in {listed}");
        }
    }
    let image = Image::new(Layout::Debian);
    let listed = String::from_utf8(podman.run(&image, &[], &["ldconfig", "-p"])).unwrap();
    assert!(listed.contains("libnvidia-ml.so.1"), "{listed}");
}
