// SPDX-License-Identifier: Apache-2.0
//! The CDI specs of a node: valid, of the capabilities that a class names, and of the version of the driver that is loaded.

use crate::{
    arena::{Arena, checked},
    pods,
};
use dra_demo::{driver, published};
use dra_tests::chart::cache_dir;
use serde_json::json;
use std::{fs, process::Command};

crate::case::cases![
    a_class_with_video_brings_the_libraries_for_video,
    the_specs_of_a_node_are_valid,
    a_new_version_of_the_driver_is_for_new_claims_and_others_keep_theirs,
];

const NODE: &str = "node-2";
const SPEC_DIR: &str = "/var/run/cdi";
const CLASS: &str = "video.example.com";
const OLD: &str = "580.95.05";
const NEW: &str = "590.44.01";

/// The names of a library in the directories of libraries, as far as the container has it.
fn library(arena: &Arena, pod: &str, name: &str) -> String {
    checked(arena.stage().run_in("default", pod, &format!("ls /usr/lib64 | grep '^{name}' || :")))
}

fn a_class_with_video_brings_the_libraries_for_video(arena: &Arena) {
    let parameters = json!({
        "apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig",
        "driverCapabilities": ["compute", "utility", "video"],
    });
    let expression = "device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == 'gpu'";
    let class = json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": CLASS},
        "spec": {
            "selectors": [{"cel": {"expression": expression}}],
            "config": [{"opaque": {"driver": published::DRIVER, "parameters": parameters}}],
        },
    });
    arena.apply(&class.to_string());
    let mut video = pods::gpu("");
    video["requests"][0]["exactly"]["deviceClassName"] = json!(CLASS);
    pods::start(arena, "with-video", NODE, &video);
    pods::start(arena, "without-video", NODE, &pods::gpu(""));
    for (pod, has_video) in [("with-video", true), ("without-video", false)] {
        checked(arena.stage().saw(pod));
        assert_eq!(library(arena, pod, "libnvcuvid.so.1").trim() == "libnvcuvid.so.1", has_video, "{pod}");
        let cache = checked(arena.stage().run_in("default", pod, "ldconfig -p"));
        assert_eq!(cache.contains("libnvcuvid.so.1"), has_video, "{pod}: {cache}");
        assert!(library(arena, pod, "libcuda").contains("libcuda.so.1"), "{pod}");
        pods::remove(arena, pod);
    }
    arena.kubectl(&["delete", "deviceclass", CLASS]);
}

/// By the JSON schema of CDI and by its reference implementation.
fn the_specs_of_a_node_are_valid(arena: &Arena) {
    pods::start(arena, "valid", NODE, &pods::gpu(""));
    checked(arena.stage().saw("valid"));
    let dir = tempfile::tempdir().unwrap();
    let specs = arena.files(NODE, SPEC_DIR);
    assert_eq!(specs.len(), 2, "one of the driver and one of the claim: {specs:?}");
    for path in &specs {
        let text = checked(arena.node(NODE).shell(&format!("cat {path}")));
        fs::write(dir.path().join(path.rsplit('/').next().unwrap()), text).unwrap();
    }
    for (program, arguments) in [("cdi-schema/cdi-schema-reference", &[][..]), ("cdi/cdi-reference", &["validate"])] {
        let path = cache_dir().join(program);
        assert!(path.is_file(), "no {}: run `make setup` first", path.display());
        let read = Command::new(path).args(arguments).arg(dir.path()).output().unwrap();
        assert!(read.status.success(), "{program}: {}", String::from_utf8_lossy(&read.stderr));
    }
    pods::remove(arena, "valid");
}

/// The base specs of a node, by the version of the driver.
fn versions(arena: &Arena) -> Vec<String> {
    let names = arena.files(NODE, SPEC_DIR).into_iter();
    let version = |path: String| Some(path.split_once("-base_")?.1.trim_end_matches(".json").to_owned());
    names.filter_map(version).collect()
}

fn load(arena: &Arena, version: &str) {
    let node = arena.node(NODE);
    checked(node.gpu_sim("restore-driver", &["--driver-version", version]));
}

fn starts_with(arena: &Arena, pod: &str, version: &str) {
    pods::start(arena, pod, NODE, &pods::gpu(""));
    checked(arena.stage().saw(pod));
    let real_name = format!("libcuda.so.{version}");
    assert!(library(arena, pod, "libcuda").contains(&real_name), "{pod}: {}", library(arena, pod, "libcuda"));
}

fn a_new_version_of_the_driver_is_for_new_claims_and_others_keep_theirs(arena: &Arena) {
    starts_with(arena, "old-driver", OLD);
    load(arena, NEW);
    starts_with(arena, "new-driver", NEW);
    assert_eq!(versions(arena), [OLD, NEW]);
    // The files of the container are those that it started with.
    assert!(library(arena, "old-driver", "libcuda").contains(&format!("libcuda.so.{OLD}")));
    pods::remove(arena, "old-driver");
    // A reconciliation, which takes place every five minutes and at each start.
    arena.kubectl(&[
        "delete",
        "pod",
        "-n",
        driver::NAMESPACE,
        "-l",
        crate::arena::DRIVER_PODS,
        "--field-selector",
        &format!("spec.nodeName={NODE}"),
    ]);
    arena.until("the end of the old base spec", || (versions(arena) == [NEW]).then_some(()));
    checked(driver::wait_for_pods(&arena.cluster));
    pods::remove(arena, "new-driver");
    load(arena, OLD);
    starts_with(arena, "back", OLD);
    pods::remove(arena, "back");
    checked(driver::wait_for_pods(&arena.cluster));
}
