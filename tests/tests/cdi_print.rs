// SPDX-License-Identifier: Apache-2.0
//! `gpu-kubelet-plugin cdi print` on a simulated node: what an administrator reads, and that a runtime reads the specs.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::process::{Command, Output};

use dra_tests::chart::cache_dir;
use dra_tests::machine::Gpus;
use dra_tests::programs::built;
use serde_json::Value;

/// The output for the machine, whose driver root is another one on the host.
fn print(gpus: &Gpus, arguments: &[&str]) -> Output {
    let mut command = Command::new(built("gpu-kubelet-plugin"));
    command.env_clear().args(["cdi", "print", "--driver-root-host=/run/nvidia/driver"]);
    for (flag, below) in [("--driver-root", ""), ("--proc-root", "proc"), ("--sys-root", "sys")] {
        command.arg(flag).arg(gpus.dir().join(below));
    }
    command.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The specs by file name: sections that begin with it.
fn specs(output: &str) -> Vec<(String, Value)> {
    let sections = output.split("\n\n").filter(|section| section.starts_with("k8s."));
    let spec = |section: &str| {
        let (name, body) = section.split_once('\n').unwrap();
        (name.to_owned(), serde_json::from_str(body).unwrap())
    };
    sections.map(spec).collect()
}

#[test]
fn files_are_named_as_found_or_missing_and_specs_as_they_would_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let gpus = Gpus::create(dir.path(), "h100:2", "cdi-print");
    std::fs::remove_file(dir.path().join("usr/lib/x86_64-linux-gnu/libnvidia-nvvm.so.580.95.05")).unwrap();
    let name = gpus.name(1);
    let done = print(&gpus, &[&name, "--capabilities=compute,utility,graphics"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let printed = text(&done.stdout);
    for expect in [
        "NVIDIA driver 580.95.05\n\ncompute\n  found    /run/nvidia/driver/usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05\n",
        "\n  missing  libnvidia-nvvm.so.580.95.05: usually in the Debian package libnvidia-nvvm4\n",
        "\ngraphics\n  found    /run/nvidia/driver/usr/lib/x86_64-linux-gnu/libGLX_nvidia.so.580.95.05\n",
        "\n  libraries: /usr/lib64, ",
    ] {
        assert!(printed.contains(expect), "{expect} in\n{printed}");
    }

    let specs = specs(printed);
    let [(_, base), (_, claim)] = specs.as_slice() else { panic!("{} specs", specs.len()) };
    let names: Vec<&Value> = base["devices"].as_array().unwrap().iter().map(|device| &device["name"]).collect();
    assert_eq!(names, ["580.95.05", "580.95.05-graphics"]);
    let nodes = claim["devices"][0]["containerEdits"]["deviceNodes"].as_array().unwrap();
    let paths: Vec<&str> = nodes.iter().map(|node| node["path"].as_str().unwrap()).collect();
    assert_eq!(paths, [gpus.node(1).as_str(), "/dev/dri/card1", "/dev/dri/renderD129"]);

    let cdi_dir = tempfile::tempdir().unwrap();
    for (file_name, spec) in &specs {
        std::fs::write(cdi_dir.path().join(file_name), spec.to_string()).unwrap();
    }
    let reference = cache_dir().join("cdi/cdi-reference");
    assert!(reference.is_file(), "no {}: run `make setup` first", reference.display());
    let read = Command::new(reference).arg("validate").arg(cdi_dir.path()).output().unwrap();
    assert!(read.status.success(), "{}", text(&read.stderr));
    assert_eq!(text(&read.stdout).lines().count(), 3);
}

#[test]
fn what_cannot_be_printed_is_an_error_after_what_can() {
    let dir = tempfile::tempdir().unwrap();
    let gpus = Gpus::create(dir.path(), "h100:1", "cdi-print-errors");
    let error = |arguments: &[&str]| {
        let done = print(&gpus, arguments);
        assert_eq!(done.status.code(), Some(1));
        assert!(text(&done.stdout).starts_with("NVIDIA driver 580.95.05\n"));
        text(&done.stderr).to_owned()
    };
    assert_eq!(
        error(&["gpu-ffffffff"]),
        "error: gpu-ffffffff is not a device of this host; name one of its ResourceSlices, or none to see all that exist\n"
    );
    let partition = format!("{}-mig-19-0", gpus.name(0));
    assert!(error(&[&partition]).contains("is created when a claim for it is prepared"));
    std::fs::remove_file(dir.path().join("dev/nvidia-uvm")).unwrap();
    assert!(error(&[]).contains("run `nvidia-modprobe -u -c 0`"));
}
