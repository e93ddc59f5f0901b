// SPDX-License-Identifier: Apache-2.0
//! Injected faults, and the state after a reboot.

use crate::node::Node;

const NAMES: [&str; 2] = ["--query-gpu=name", "--format=csv,noheader"];

#[test]
fn a_lost_gpu_spoils_only_itself_until_it_is_reset() {
    let node = Node::new("h100:2");
    node.gpu_sim("lose", &["-g", "0"]).ok();
    let text = node.python(
        "from pynvml import *\nnvmlInit()\nprint(nvmlDeviceGetCount())\n\
         try: nvmlDeviceGetHandleByIndex(0)\nexcept NVMLError as e: print(e)\n\
         print(nvmlDeviceGetName(nvmlDeviceGetHandleByIndex(1)))",
    );
    assert_eq!(text.ok(), "2\nGPU is lost\nNVIDIA H100 80GB HBM3\n");
    assert!(node.gpu_sim("status", &[]).ok().contains("lost"));
    node.gpu_sim("reset", &["-g", "0"]).ok();
    assert_eq!(node.smi(&NAMES).ok().lines().count(), 2);
}

#[test]
fn the_second_call_fails_once_and_only_for_that_gpu() {
    let node = Node::new("h100:2");
    node.gpu_sim("fail", &["nvmlDeviceGetName", "--code", "999", "--gpu", "1", "--at", "2", "--times", "1"]).ok();
    let text = node.python(
        "from pynvml import *\nnvmlInit()\nd = [nvmlDeviceGetHandleByIndex(i) for i in range(2)]\n\
         for i in (0, 0, 0, 1, 1, 1):\n\
         \ttry: print(i, nvmlDeviceGetName(d[i]))\n\texcept NVMLError as e: print(i, e)\n",
    );
    let name = "NVIDIA H100 80GB HBM3";
    assert_eq!(text.ok(), format!("0 {name}\n0 {name}\n0 {name}\n1 {name}\n1 Unknown Error\n1 {name}\n"));
    assert!(node.state().faults.is_empty());
}

#[test]
fn a_delay_is_applied_and_removed() {
    let node = Node::new("t4:1");
    node.gpu_sim("delay", &["nvmlDeviceGetName*", "120"]).ok();
    let script = "import time\nfrom pynvml import *\nnvmlInit()\nd = nvmlDeviceGetHandleByIndex(0)\n\
                  t = time.monotonic(); nvmlDeviceGetName(d); print(time.monotonic() - t >= 0.12)";
    assert_eq!(node.python(script).ok(), "True\n");
    node.gpu_sim("heal", &[]).ok();
    assert!(node.state().delays.is_empty());
}

#[test]
fn a_delay_applies_to_one_gpu_and_ends_when_it_is_removed() {
    let node = Node::new("t4:2");
    node.gpu_sim("delay", &["nvmlDeviceGetName", "3600000", "--gpu", "1"]).ok();
    assert!(node.gpu_sim("status", &[]).ok().contains("delay nvmlDeviceGetName on GPU 1: 3600000 ms"));
    let name = |gpu: u32| {
        let script =
            format!("from pynvml import *\nnvmlInit()\nprint(nvmlDeviceGetName(nvmlDeviceGetHandleByIndex({gpu})))");
        node.python(&script).ok()
    };
    assert_eq!(name(0), "Tesla T4\n");
    node.gpu_sim("delay", &["nvmlDeviceGetName", "0", "--gpu", "1"]).ok();
    assert_eq!(name(1), "Tesla T4\n");
}

#[test]
fn without_a_driver_nothing_answers() {
    let node = Node::new("h100:1");
    node.gpu_sim("remove-driver", &[]).ok();
    let gone = node.smi(&["-L"]);
    assert!(gone.code == Some(9), "{gone:?}");
    assert!(!node.path("proc/driver/nvidia/version").exists());
    assert!(!std::fs::read_to_string(node.path("proc/devices")).unwrap().contains("nvidia"));
    node.gpu_sim("restore-driver", &["--driver-version", "590.44.01"]).ok();
    assert!(node.smi(&[]).ok().contains("Driver Version: 590.44.01"));
    assert!(node.path("usr/lib/x86_64-linux-gnu/libcuda.so.590.44.01").exists());
    assert!(!node.path("usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05").exists());
}

/// Instances never survive; the mode does on Ampere only.
#[test]
fn a_reboot_forgets_what_lived_in_the_driver() {
    let node = Node::new("h100:1,a100:1");
    let boot_id = std::fs::read_to_string(node.path("proc/sys/kernel/random/boot_id")).unwrap();
    node.smi(&["-mig", "1"]).ok();
    node.gpu_sim("reset", &["-g", "1"]).ok();
    node.gpu_sim("mig", &["cgi", "19", "-C"]).ok();
    assert_eq!(node.smi(&["-L"]).ok().matches("MIG 1g.10gb").count(), 2);
    node.gpu_sim("reboot", &[]).ok();
    assert_ne!(std::fs::read_to_string(node.path("proc/sys/kernel/random/boot_id")).unwrap(), boot_id);
    assert_eq!(node.smi(&["-L"]).ok().matches("MIG").count(), 0);
    let modes = node.smi(&["--query-gpu=mig.mode.current", "--format=csv,noheader"]).ok();
    assert_eq!(modes, "Disabled\nEnabled\n");
    assert_eq!(std::fs::read_dir(node.path("dev/nvidia-caps")).unwrap().count(), 2);
}

#[test]
fn clients_keep_the_mode_pending() {
    let node = Node::new("h100:1");
    node.gpu_sim("clients", &["-g", "0", "1"]).ok();
    let text = node.smi(&["-mig", "1"]).text;
    assert!(text.contains("In use by another client"), "{text}");
    assert_eq!(node.state().gpus[0].mig.map(|mig| (mig.current, mig.pending)), Some((false, true)));
}

#[test]
fn mig_uuids_return_unless_they_are_to_be_fresh() {
    for (more, same) in [(&[][..], true), (&["--fresh-mig-uuids"][..], false)] {
        let node = Node::with("h100:1", more);
        node.gpu_sim("mig", &["mode", "on"]).ok();
        let uuid = || {
            node.gpu_sim("mig", &["cgi", "19:2", "-C"]).ok();
            let text = node.smi(&["-L"]).ok();
            node.gpu_sim("mig", &["dci"]).ok();
            node.gpu_sim("mig", &["dgi"]).ok();
            text
        };
        assert_eq!(uuid() == uuid(), same);
    }
}
