// SPDX-License-Identifier: Apache-2.0
//! Specs as the reference implementation reads them: the Go library that containerd and CRI-O link, and the JSON schema that the CDI
//! project publishes, in programs that `make setup` builds.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use dra_cdi::{Architecture, RenderedSpec, render};
use dra_model::Capabilities;
use dra_model::Capability::{Compute, Graphics, Utility};
use serde_json::{Value, json};

use crate::render::{control_nodes, driver_files, gpu, mig, naming, share, uid};

const HOOK: &str = "/opt/gpu-dra/gpu-cdi-hook-0.1.0-0123456789abcdef";

fn program(below_cache: &str) -> Command {
    let home_dir = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty());
    let path = cache.map_or_else(home_dir, PathBuf::from).join("gpu-dra-cluster").join(below_cache);
    assert!(path.is_file(), "no {}: run `make setup` first", path.display());
    Command::new(path)
}

/// Validates the specs of a directory against the schema.
fn schema(dir: &Path) -> Output {
    program("cdi-schema/cdi-schema-reference").arg(dir).output().unwrap()
}

fn run(command: &str, dir: &Path, devices: &[String], input: &str) -> Output {
    let mut program = program("cdi/cdi-reference");
    program.arg(command).arg(dir).args(devices);
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that refuses the directory does not read its input.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    child.wait_with_output().unwrap()
}

/// A directory with these specs.
fn directory(specs: &[RenderedSpec]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for spec in specs {
        std::fs::write(dir.path().join(naming().file_name(&spec.kind)), &spec.bytes).unwrap();
    }
    dir
}

fn base(root: &str, architecture: Architecture) -> RenderedSpec {
    let hook = Some(Path::new(HOOK));
    render::base(&naming(), &driver_files(), &control_nodes(root), architecture, hook).unwrap()
}

#[test]
fn the_reference_implementation_reads_every_kind_of_spec() {
    let driver_root = "/run/nvidia/driver";
    for (root, architecture) in [("", Architecture::X86), (driver_root, Architecture::Arm)] {
        for devices in [
            vec![gpu(0, root)],
            vec![gpu(0, root), gpu(1, root)],
            vec![mig()],
            vec![share("a", Some(8156), Some(10)), share("b", None, None)],
        ] {
            let claim = render::claim(&naming(), &uid(), &devices).unwrap();
            let dir = directory(&[base(root, architecture), claim]);
            let valid = schema(dir.path());
            assert!(valid.status.success(), "{}", String::from_utf8_lossy(&valid.stderr));
            let answer = run("validate", dir.path(), &[], "");
            assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
            let found = String::from_utf8(answer.stdout).unwrap();
            let found: BTreeSet<&str> = found.lines().collect();
            let claimed = devices.iter().map(|it| naming().claim_device(&uid(), &it.device, it.share.as_ref()));
            let base_devices = dra_model::Capability::ALL
                .map(|capability| format!("k8s.gpu.nvidia.com/base=550.54.15-{capability}"))
                .into_iter()
                .chain(["k8s.gpu.nvidia.com/base=550.54.15".to_owned()]);
            let expect: BTreeSet<String> = claimed.chain(base_devices).collect();
            assert_eq!(found, expect.iter().map(String::as_str).collect());
        }
    }
}

#[test]
fn the_golden_specs_are_valid_by_the_schema() {
    let golden_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cdi/golden");
    let valid = schema(&golden_dir);
    assert!(valid.status.success(), "{}", String::from_utf8_lossy(&valid.stderr));
    let count = std::fs::read_dir(golden_dir).unwrap().count();
    assert_eq!(String::from_utf8(valid.stdout).unwrap().lines().count(), count);
}

/// It forbids less than the reference implementation: neither unknown keys nor a wrong type of a device node.
#[test]
fn the_schema_refuses_what_it_forbids() {
    let good = base("", Architecture::X86);
    let text = String::from_utf8(good.bytes.clone()).unwrap();
    for (from, to) in [
        ("\"cdiVersion\":", "\"cdiversion\":"),
        ("\"containerPath\":\"/usr/bin/nvidia-smi\"", "\"containerPath\":1"),
        ("\"hookName\":", "\"name\":"),
        ("\"major\":195", "\"major\":\"195\""),
    ] {
        let bad = text.replace(from, to);
        assert_ne!(bad, text, "{from}");
        let dir = directory(&[RenderedSpec { kind: good.kind.clone(), bytes: bad.into_bytes() }]);
        assert!(!schema(dir.path()).status.success(), "{to}");
    }
}

/// Otherwise the other tests would show nothing.
#[test]
fn the_reference_implementation_refuses_what_the_rules_forbid() {
    let good = base("", Architecture::X86);
    let text = String::from_utf8(good.bytes.clone()).unwrap();
    for (from, to) in [
        ("\"devices\":", "\"extra\":1,\"devices\":"),
        ("\"cdiVersion\":\"0.5.0\"", "\"cdiVersion\":\"0.3.0\""),
        ("\"type\":\"c\"", "\"type\":\"x\""),
        ("\"fileMode\":438", "\"fileMode\":\"0666\""),
        ("NVIDIA_VISIBLE_DEVICES=void", "=void"),
        ("550.54.15-graphics", "550.54.15-video"),
    ] {
        let bad = text.replace(from, to);
        assert_ne!(bad, text, "{from}");
        let dir = directory(&[RenderedSpec { kind: good.kind.clone(), bytes: bad.into_bytes() }]);
        assert!(!run("validate", dir.path(), &[], "").status.success(), "{to}");
    }
}

/// The configuration of a container of an image that has a CUDA path of its own.
fn stock() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {"cwd": "/", "args": ["sh"], "user": {"uid": 1000, "gid": 1000},
                    "env": ["PATH=/usr/bin", "NVIDIA_VISIBLE_DEVICES=all"]},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"resources": {"devices": [{"allow": false, "access": "rwm"}]}},
    })
}

fn inject(dir: &Path, devices: &[String]) -> Value {
    let answer = run("inject", dir, devices, &stock().to_string());
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    serde_json::from_slice(&answer.stdout).unwrap()
}

fn texts(list: &Value, key: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_container_of_the_reference_implementation_has_the_files_and_nodes_of_the_claim() {
    let dir = directory(&[base("", Architecture::X86), render::claim(&naming(), &uid(), &[mig()]).unwrap()]);
    let capabilities = Capabilities::of([Compute, Utility, Graphics]).unwrap();
    let mut devices = vec![naming().claim_device(&uid(), &mig().device, None)];
    devices.extend(naming().base_devices("550.54.15", &capabilities));
    let oci = inject(dir.path(), &devices);
    assert_eq!(oci["process"]["env"], json!(["PATH=/usr/bin", "NVIDIA_VISIBLE_DEVICES=void"]));
    let nodes = &oci["linux"]["devices"];
    let mut paths = texts(nodes, "path");
    paths.sort_unstable();
    let expect = [
        "/dev/nvidia-caps/nvidia-cap30",
        "/dev/nvidia-caps/nvidia-cap31",
        "/dev/nvidia-uvm",
        "/dev/nvidia-uvm-tools",
        "/dev/nvidia3",
        "/dev/nvidiactl",
    ];
    assert_eq!(paths, expect, "not the nodes of other GPUs, of display, or of all MIG devices");
    let cap = nodes.as_array().unwrap().iter().find(|node| node["path"] == expect[0]).unwrap();
    let all = ("c", 234, 30, 0o666, 1000, 1000);
    let found = |key: &str| cap[key].as_i64().unwrap();
    assert_eq!((cap["type"].as_str().unwrap(), found("major"), found("minor")), (all.0, all.1, all.2));
    assert_eq!((found("fileMode"), found("uid"), found("gid")), (all.3, all.4, all.5));
    let rules = oci["linux"]["resources"]["devices"].as_array().unwrap();
    let allowed = rules.iter().filter(|rule| rule["allow"] == true);
    let access: BTreeSet<&str> = allowed.map(|rule| rule["access"].as_str().unwrap()).collect();
    assert_eq!((rules.len(), access), (7, ["rw"].into()), "one for each node beside that of the image");

    let hooks = oci["hooks"]["createContainer"].as_array().unwrap();
    let with_env = |hook: &&Value| hook["path"] == HOOK && !hook["env"].as_array().unwrap().is_empty();
    assert_eq!((hooks.iter().filter(with_env).count(), hooks.len()), (2, 2), "one of each base device");

    let mounts = oci["mounts"].as_array().unwrap();
    let (destinations, sources) = (texts(&oci["mounts"], "destination"), texts(&oci["mounts"], "source"));
    assert_eq!(destinations.len(), destinations.iter().collect::<BTreeSet<_>>().len(), "each once");
    let source_of = |destination: &str| {
        let at = destinations.iter().position(|found| found == destination);
        at.map(|at| sources[at].rsplit('/').next().unwrap().to_owned())
    };
    for dir in ["/usr/lib/x86_64-linux-gnu", "/usr/lib64"] {
        for (name, file_name) in [
            ("libcuda.so.1", Some("libcuda.so.550.54.15")),
            ("libcuda.so.550.54.15", Some("libcuda.so.550.54.15")),
            ("libcuda.so", Some("libcuda.so.550.54.15")),
            ("libnvidia-glcore.so.550.54.15", Some("libnvidia-glcore.so.550.54.15")),
            ("gbm/nvidia-drm_gbm.so", Some("libnvidia-allocator.so.550.54.15")),
            ("libnvidia-encode.so.1", None),
        ] {
            assert_eq!(source_of(&format!("{dir}/{name}")).as_deref(), file_name, "{dir}/{name}");
        }
    }
    let ours = mounts.iter().filter(|mount| mount["source"] != "proc");
    let options: BTreeSet<String> = ours.map(|mount| mount["options"].to_string()).collect();
    assert_eq!(options.into_iter().collect::<Vec<_>>(), [r#"["ro","nosuid","nodev","rbind","rprivate"]"#]);
}

/// Equal mounts and nodes replace each other, and the edits of the spec are applied once.
#[test]
fn two_claims_in_one_container_are_the_sum_of_both() {
    let other: dra_model::ClaimUid = "0d6a1f4e-3c7c-4b0e-8a53-9f7c3f9e2b11".parse().unwrap();
    let claims = [(uid(), gpu(0, "")), (other, gpu(1, ""))];
    let specs = claims.iter().map(|(uid, device)| render::claim(&naming(), uid, std::slice::from_ref(device)).unwrap());
    let dir = directory(&specs.chain([base("", Architecture::X86)]).collect::<Vec<_>>());
    let default = naming().base_devices("550.54.15", &Capabilities::default());
    let id =
        |(uid, device): &(dra_model::ClaimUid, dra_cdi::ClaimDevice)| naming().claim_device(uid, &device.device, None);
    let one = inject(dir.path(), &[default.clone(), vec![id(&claims[0])]].concat());
    let both = inject(dir.path(), &[default, claims.iter().map(id).collect()].concat());
    assert_eq!(one["mounts"], both["mounts"]);
    assert_eq!(both["hooks"]["createContainer"].as_array().unwrap().len(), 1);
    let paths = |oci: &Value| texts(&oci["linux"]["devices"], "path").into_iter().collect::<BTreeSet<_>>();
    let (one, both) = (paths(&one), paths(&both));
    assert_eq!(both.difference(&one).collect::<Vec<_>>(), ["/dev/nvidia1"]);
}
