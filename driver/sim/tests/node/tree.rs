// SPDX-License-Identifier: Apache-2.0
//! The files of a node: devices, procfs, sysfs, libraries, and what a container sees of them.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use crate::node::Node;

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

#[test]
fn device_nodes_have_majors_of_their_own() {
    let node = Node::new("h100:2");
    for (name, major, minor) in [
        ("nvidiactl", 240, 255),
        ("nvidia0", 240, 0),
        ("nvidia1", 240, 1),
        ("nvidia-modeset", 240, 254),
        ("nvidia-uvm", 241, 0),
        ("nvidia-uvm-tools", 241, 1),
        ("nvidia-caps/nvidia-cap1", 242, 1),
        ("nvidia-caps/nvidia-cap2", 242, 2),
    ] {
        let found = std::fs::metadata(node.path("dev").join(name)).unwrap();
        let numbers = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
        assert!(found.file_type().is_char_device(), "{name}");
        assert_eq!(numbers, (major, minor), "{name}");
    }
    let majors = read(node.path("proc/devices"));
    for line in ["240 nvidia", "241 nvidia-uvm", "242 nvidia-caps"] {
        assert!(majors.lines().any(|found| found == line), "{majors}");
    }
}

#[test]
fn capabilities_come_and_go_with_instances() {
    let node = Node::new("h100:2");
    node.smi(&["-i", "1", "-mig", "1"]).ok();
    node.smi(&["mig", "-i", "1", "-cgi", "9", "-C"]).ok();
    // Board 1 counts its halves from above: 4:4 is instance 1. Minors: 3 + 1 * 135 + 1 * 9, and one more.
    let dir = node.path("proc/driver/nvidia/capabilities/gpu1/mig");
    assert!(read(dir.join("gi1/access")).starts_with("DeviceFileMinor: 147\n"));
    assert!(read(dir.join("gi1/ci0/access")).starts_with("DeviceFileMinor: 148\n"));
    let minors = read(node.path("proc/driver/nvidia-caps/mig-minors"));
    for line in ["config 1", "monitor 2", "gpu1/gi1/access 147", "gpu1/gi1/ci0/access 148"] {
        assert!(minors.lines().any(|found| found == line), "{line}");
    }
    assert!(node.path("dev/nvidia-caps/nvidia-cap147").exists() && node.path("dev/nvidia-caps/nvidia-cap148").exists());
    node.smi(&["mig", "-dci"]).ok();
    assert!(dir.join("gi1/access").exists() && !dir.join("gi1/ci0").exists());
    node.smi(&["mig", "-dgi"]).ok();
    assert!(dir.exists() && !dir.join("gi1").exists());
    assert!(!node.path("dev/nvidia-caps/nvidia-cap147").exists());
}

#[test]
fn sysfs_has_numa_node_and_root() {
    let node = Node::new("h100:4");
    for (index, gpu) in node.state().gpus.iter().enumerate() {
        let dir = node.path("sys/bus/pci/devices").join(gpu.pci.address());
        let real = dir.canonicalize().unwrap();
        let root = node.path("sys/devices").canonicalize().unwrap().join(&gpu.pci.root);
        assert!(real.starts_with(&root), "{}", real.display());
        assert_eq!(read(dir.join("vendor")), "0x10de\n");
        assert_eq!(read(dir.join("device")), "0x2330\n");
        assert_eq!(read(dir.join("numa_node")), format!("{}\n", index / 2));
        assert!(std::fs::read_link(dir.join("driver")).unwrap().ends_with("drivers/nvidia"));
        let bound = node.path("sys/bus/pci/drivers/nvidia").join(gpu.pci.address());
        assert_eq!(bound.canonicalize().unwrap(), real);
    }
    assert_eq!(node.state().gpus[0].pci.root, node.state().gpus[1].pci.root);
    assert_ne!(node.state().gpus[1].pci.root, node.state().gpus[2].pci.root);
}

#[test]
fn libraries_have_version_and_soname() {
    let node = Node::new("t4:1");
    let dir = node.path("usr/lib/x86_64-linux-gnu");
    for (name, soname) in [
        ("libnvidia-ml.so", 1),
        ("libcuda.so", 1),
        ("libnvidia-ptxjitcompiler.so", 1),
        ("libcudadebugger.so", 1),
        ("libnvidia-nvvm.so", 4),
        ("libnvidia-opencl.so", 1),
    ] {
        let soname = format!("{name}.{soname}");
        assert_eq!(std::fs::read_link(dir.join(&soname)).unwrap(), Path::new(&format!("{name}.580.95.05")));
        let bytes = std::fs::read(dir.join(&soname)).unwrap();
        assert!(bytes.windows(soname.len()).any(|window| window == soname.as_bytes()), "{soname}");
    }
}

/// A container has the library, the state and the nodes it was given, nothing else.
#[test]
fn a_container_sees_only_what_it_was_given() {
    let node = Node::new("h100:3");
    node.smi(&["-i", "2", "-mig", "1"]).ok();
    node.smi(&["mig", "-i", "2", "-cgi", "19,19", "-C"]).ok();
    let inside = tempfile::tempdir().unwrap();
    let root = inside.path();
    std::fs::create_dir_all(root.join("dev/nvidia-caps")).unwrap();
    std::fs::create_dir_all(root.join("var/lib")).unwrap();
    std::os::unix::fs::symlink(node.path("var/lib/gpu-sim"), root.join("var/lib/gpu-sim")).unwrap();
    let list = || {
        let mut smi = node.program(node.path("usr/bin/nvidia-smi"));
        let output = smi.env("GPU_SIM_ROOT", root).arg("-L").output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(list().0, Some(9), "without the control node there is no driver");
    std::fs::write(root.join("dev/nvidiactl"), "").unwrap();
    std::fs::write(root.join("dev/nvidia1"), "").unwrap();
    let state = node.state();
    assert_eq!(list().1, format!("GPU 0: NVIDIA H100 80GB HBM3 (UUID: {})\n", state.gpus[1].uuid));

    std::fs::rename(root.join("dev/nvidia1"), root.join("dev/nvidia2")).unwrap();
    assert_eq!(list().1.matches("MIG").count(), 0, "a GPU without capabilities shows no MIG device");
    let (&id, instance) = state.gpus[2].instances.first_key_value().unwrap();
    for minor in [3 + 2 * 135 + id * 9, 3 + 2 * 135 + id * 9 + 1] {
        std::fs::write(root.join(format!("dev/nvidia-caps/nvidia-cap{minor}")), "").unwrap();
    }
    let text = list().1;
    assert!(text.matches("MIG 1g.10gb").count() == 1 && text.contains(&instance.compute[&0].uuid), "{text}");
}

/// A container may have the state read-only: it reads, and changes are refused.
#[test]
fn a_read_only_machine_can_be_read() {
    let node = Node::new("h100:1");
    let dir = node.dir().display();
    let script = format!(
        "mount --bind {dir} {dir} && mount -o remount,ro,bind {dir} && {dir}/usr/bin/nvidia-smi -L && {dir}/usr/bin/nvidia-smi -mig 1"
    );
    let mut shell = node.program("unshare");
    let output = shell.args(["--mount", "--propagation", "private", "sh", "-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("GPU 0: NVIDIA H100") && text.contains("Insufficient Permissions"), "{text}");
    assert!(!output.status.success());
    assert_eq!(node.state().generation, 1);
}

/// Only root can create device nodes. Other users get plain files and a message.
#[test]
fn without_root_a_tree_has_plain_files() {
    let node = Node::new("t4:1");
    let inside = tempfile::tempdir().unwrap();
    rustix::fs::chown(inside.path(), Some(rustix::fs::Uid::from_raw(65534)), None).unwrap();
    let mut program = node.program("setpriv");
    program.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(node.path("gpu-sim"));
    program.arg("init").arg(inside.path().join("node")).args(["--gpus", "t4:1", "--library"]);
    std::fs::copy(env!("CARGO_BIN_EXE_gpu-sim"), node.path("gpu-sim")).unwrap();
    let output = program.arg(node.path("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("plain files instead of device nodes"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::metadata(inside.path().join("node/dev/nvidia0")).unwrap().is_file());
}

/// NVIDIA's library makes missing nodes on the host, so the host sees a GPU without its node.
#[test]
fn the_host_sees_a_gpu_without_its_device_node() {
    let node = Node::new("h100:2");
    std::fs::remove_file(node.path("dev/nvidia0")).unwrap();
    std::fs::remove_file(node.path("dev/nvidiactl")).unwrap();
    assert_eq!(node.smi(&["-L"]).ok().lines().count(), 2);
}

#[test]
fn a_new_machine_leaves_nothing_of_the_old_one() {
    let node = Node::new("h100:3");
    node.gpu_sim("mig", &["mode", "on"]).ok();
    node.gpu_sim("mig", &["cgi", "19", "-C"]).ok();
    let library = node.path("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1").canonicalize().unwrap();
    let copy = node.path("library");
    std::fs::copy(library, &copy).unwrap();
    node.gpu_sim("init", &["--gpus", "t4:1", "--library", copy.to_str().unwrap()]).ok();
    assert!(!node.path("dev/nvidia1").exists() && node.path("dev/nvidia0").exists());
    assert_eq!(std::fs::read_dir(node.path("dev/nvidia-caps")).unwrap().count(), 2);
    assert_eq!(std::fs::read_dir(node.path("sys/bus/pci/devices")).unwrap().count(), 1);
    assert_eq!(node.smi(&["-L"]).ok().lines().count(), 1);
}
