// SPDX-License-Identifier: Apache-2.0
//! `gpu-kubelet-plugin claim print` and `doctor`, which `kubectl gpu` starts beside the running plugin: what they print, and that
//! they change nothing.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use dra_model::claim_report::{ClaimReport, HardwareReport, RecordReport, SpecContent};
use dra_model::node_check::{Check, NodeChecks, Severity};
use dra_tests::programs::built;
use dra_tests::{Mode, NewClaim, Node};
use serde::de::DeserializeOwned;

/// What a subcommand prints on the node.
fn print<T: DeserializeOwned>(node: &Node, words: &[&str], variables: &[(&str, &str)]) -> T {
    let (machine, dir) = (node.gpus.dir(), node.dir());
    let mut command = Command::new(built("gpu-kubelet-plugin"));
    command.env_clear().args(words).envs(variables.iter().copied());
    for (flag, path) in [
        ("--driver-root", machine.to_owned()),
        ("--proc-root", machine.join("proc")),
        ("--sys-root", machine.join("sys")),
        ("--kubelet-root-dir", dir.join("k")),
        ("--cdi-root", dir.join("c")),
    ] {
        if !words.contains(&flag) {
            command.arg(flag).arg(path);
        }
    }
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Every file below a directory with its content; sockets and locks without.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match std::fs::symlink_metadata(&path).unwrap() {
            metadata if metadata.is_dir() => found.extend(files(&path)),
            metadata if metadata.is_file() => {
                found.insert(path.clone(), std::fs::read(&path).unwrap());
            }
            _ => {
                found.insert(path, Vec::new());
            }
        }
    }
    found
}

/// The devices nodes of the hardware, and those of the spec of the claim.
fn nodes(report: &ClaimReport) -> (Vec<String>, Vec<String>) {
    let RecordReport::Ready { is_of_this_boot: true, devices } = &report.record else { panic!("{report:?}") };
    let HardwareReport::Found { nodes, uuid } = &devices[0].hardware else { panic!("{report:?}") };
    assert_eq!(devices[0].uuid.as_ref(), Some(uuid));
    let SpecContent::Found { devices: in_spec } = &report.specs[1].content else { panic!("{report:?}") };
    assert_eq!(Some(&in_spec[0].name), devices[0].cdi_devices.last());
    let names = |nodes: &[dra_model::claim_report::NodeReport]| nodes.iter().map(ToString::to_string).collect();
    (names(nodes), names(&in_spec[0].nodes))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_printed_as_it_is_and_nothing_changes() {
    let node = Node::new("h100:2");
    let part = node.gpus.cut(1, "1g.10gb");
    let _plugin = node.start(Mode::Process).await;
    for device in [&node.gpus.name(0), &part] {
        let claim = NewClaim::of(&format!("c-{device}"), device).create(&node.api);
        let absent: ClaimReport = print(&node, &["claim", "print", &claim.uid], &[]);
        assert!(matches!(absent.record, RecordReport::Absent { .. }), "{absent:?}");
        node.kubelet.prepare(&claim).await.unwrap();
        let before = files(&node.dir().join("k"));
        let report: ClaimReport = print(&node, &["claim", "print", &claim.uid], &[]);
        let (hardware, spec) = nodes(&report);
        assert!(!hardware.is_empty());
        assert_eq!(hardware, spec);
        assert_eq!(files(&node.dir().join("k")), before);

        let path = &report.specs[1].path;
        let text = std::fs::read_to_string(path).unwrap();
        std::fs::write(path, text.replace(r#""path":"/dev/nvidia"#, r#""path":"/dev/other"#)).unwrap();
        let (hardware, spec) = nodes(&print(&node, &["claim", "print", &claim.uid], &[]));
        assert_ne!(hardware, spec);
        std::fs::write(path, "{").unwrap();
        let broken: ClaimReport = print(&node, &["claim", "print", &claim.uid], &[]);
        assert!(matches!(broken.specs[1].content, SpecContent::Unreadable { .. }), "{broken:?}");
        node.kubelet.unprepare(&claim).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_stays_where_it_is() {
    let node = Node::new("t4:1");
    let _plugin = node.start(Mode::Process).await;
    let claim = NewClaim::of("c", &node.gpus.name(0)).create(&node.api);
    node.kubelet.prepare(&claim).await.unwrap();
    let record = node.dir().join(format!("k/plugins/gpu.nvidia.com/claims/{}.json", claim.uid));
    std::fs::write(&record, "{").unwrap();
    let report: ClaimReport = print(&node, &["claim", "print", &claim.uid], &[]);
    assert!(matches!(report.record, RecordReport::Unreadable { .. }), "{report:?}");
    assert!(record.exists(), "the plugin alone quarantines it");
    let checks: NodeChecks = print(&node, &["doctor"], &[]);
    let found = problems(&checks, "claim records");
    assert!(found[0].0 == Severity::Warning && found[0].1.contains("is damaged"), "{found:?}");
}

/// Severity, cause and fix of what was found about a subject.
fn problems(checks: &NodeChecks, subject: &str) -> Vec<(Severity, String, String)> {
    let found: Vec<&Check> = checks.checks.iter().filter(|check| check.subject == subject).collect();
    assert_eq!(found.len(), 1, "{subject} in {checks:?}");
    let problems = found[0].problems.iter();
    problems.map(|problem| (problem.severity, problem.cause.clone(), problem.fix.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_nothing_on_a_node_that_is_well_and_names_what_is_broken() {
    let node = Node::new("h100:2");
    let plugin = node.start(Mode::Process).await;
    plugin.until_http("/readyz", |code, _| (code == 200).then_some(())).await;
    let address = plugin.http_address();
    let variables = [("HTTP_ADDRESS", address)];
    let checks: NodeChecks = print(&node, &["doctor"], &variables);
    let found: Vec<_> = checks.checks.iter().filter(|check| !check.problems.is_empty()).collect();
    assert!(found.is_empty() && checks.nvidia_driver.as_deref() == Some("580.95.5"), "{checks:?}");

    // Two mistakes of an installation.
    let other = node.dir().join("other");
    std::fs::create_dir(&other).unwrap();
    let other = other.display().to_string();
    let words = ["doctor", "--driver-root", &other, "--driver-root-host=/run/wrong"];
    let checks: NodeChecks = print(&node, &words, &variables);
    let found = problems(&checks, "driver root");
    assert!(found[0].1.starts_with("driver.root is /run/wrong on the node: no libnvidia-ml.so.1 "), "{found:?}");
    assert!(found[0].1.contains(" usr/lib64, "), "the directories that were searched: {found:?}");
    let checks: NodeChecks = print(&node, &["doctor", "--cdi-root", "/proc/missing"], &variables);
    let found = problems(&checks, "CDI directory");
    assert!(found[0].2.contains("set cdiRoot of the chart"), "{found:?}");

    std::fs::remove_file(node.gpus.dir().join("dev/nvidia-uvm")).unwrap();
    let checks: NodeChecks = print(&node, &["doctor"], &[("HTTP_ADDRESS", "127.0.0.1:1")]);
    let found = problems(&checks, "device nodes");
    assert!(found[0].2.contains("nvidia-modprobe -u -c 0"), "{found:?}");
    let found = problems(&checks, "registration");
    assert!(found[0].1.contains("does not answer on 127.0.0.1:1"), "{found:?}");
}
