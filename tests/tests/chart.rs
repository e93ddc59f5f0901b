// SPDX-License-Identifier: Apache-2.0
//! The Helm chart, rendered by the real helm: what a user gets by default, and what is refused before it does harm.
//!
//! `UPDATE_GOLDEN=1 cargo test -p dra-tests --test chart` writes the rendered chart anew.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::Command;

use dra_tests::source::root_dir;

/// The helm that the test cluster is built with.
fn helm() -> PathBuf {
    let home_dir = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
    let cache_dir = std::env::var_os("XDG_CACHE_HOME").map_or_else(home_dir, PathBuf::from).join("gpu-dra-cluster");
    let versions = std::fs::read_dir(&cache_dir).into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin/helm")).find(|helm| helm.is_file());
    found.unwrap_or_else(|| panic!("no helm below {}: run `make build` first", cache_dir.display()))
}

/// What `helm template` prints, or why it refuses.
fn rendered(settings: &[&str]) -> Result<String, String> {
    let output = Command::new(helm())
        .args([
            "template",
            "gpu-dra-driver",
            "deploy/chart",
            "--namespace",
            "gpu-dra-driver",
            "--kube-version",
            "1.37.0",
        ])
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .current_dir(root_dir())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The only document of a kind.
fn document(chart: &str, kind: &str) -> String {
    let mut found =
        chart.split("\n---\n").filter(|document| document.lines().any(|line| line == format!("kind: {kind}")));
    let document = found.next().unwrap_or_else(|| panic!("the chart has no {kind}")).to_owned();
    assert!(found.next().is_none(), "the chart has more than one {kind}");
    document
}

#[test]
fn the_default_chart_is_the_committed_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/chart.yaml");
    let given = rendered(&[]).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &given).unwrap();
    }
    let expect = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = given.lines().zip(expect.lines()).position(|(given, expect)| given != expect);
    assert!(given == expect, "the chart renders differently from line {differs:?} of tests/golden/chart.yaml on");
}

#[test]
fn values_nobody_reads_and_impossible_values_are_refused() {
    for (setting, word) in [
        ("kubeletplugin.maxSurge=1", "kubeletplugin"),
        ("driver.rot=/", "rot"),
        ("log.format=xml", "format"),
        ("driverName=GPU_nvidia", "driverName"),
        ("kubeletPlugin.containers.plugin.httpPort=0", "httpPort"),
    ] {
        let refused = rendered(&[setting]).expect_err(setting);
        assert!(refused.contains(word), "{setting}: {refused}");
    }
}

#[test]
fn the_policy_is_about_the_account_of_the_daemon_set() {
    for settings in [&[][..], &["serviceAccount.name=other"], &["fullnameOverride=mine"]] {
        let chart = rendered(settings).unwrap();
        let daemon_set = document(&chart, "DaemonSet");
        let account = daemon_set.lines().find_map(|line| line.trim().strip_prefix("serviceAccountName: ")).unwrap();
        let username = format!("\"system:serviceaccount:gpu-dra-driver:{account}\"");
        let policy = document(&chart, "ValidatingAdmissionPolicy");
        assert!(policy.contains(&username), "{settings:?}: the policy does not name {username}");
        let bindings = chart.split("\n---\n").filter(|document| document.contains("kind: ClusterRoleBinding"));
        let subject = format!("    name: {account}\n");
        assert_eq!(bindings.filter(|binding| binding.contains(&subject)).count(), 1, "{settings:?}");
    }
}

#[test]
fn the_controller_has_no_rights_on_the_node() {
    let daemon_set = document(&rendered(&[]).unwrap(), "DaemonSet");
    let controller = daemon_set.split("- name: controller\n").nth(1).unwrap().split("\n      volumes:").next().unwrap();
    for needed in
        ["runAsNonRoot: true", "privileged: false", "readOnlyRootFilesystem: true", "allowPrivilegeEscalation: false"]
    {
        assert!(controller.contains(needed), "{needed}");
    }
    assert_eq!(controller.matches("mountPath:").count(), 1, "it sees nothing but the socket's folder");
}

#[test]
fn the_seconds_of_a_normal_start_are_no_events_and_no_start_is_ended_by_a_probe() {
    let daemon_set = document(&rendered(&[]).unwrap(), "DaemonSet");
    let probes: Vec<&str> = daemon_set.split("readinessProbe:\n").skip(1).collect();
    assert_eq!(probes.len(), 2, "plugin and controller");
    for probe in probes {
        let number = |field: &str| {
            let mut lines = probe.lines().take_while(|line| line.starts_with("            "));
            let value = lines.find_map(|line| line.trim().strip_prefix(field)?.strip_prefix(": "));
            value.and_then(|value| value.parse::<u32>().ok()).unwrap_or_else(|| panic!("no {field}: {probe}"))
        };
        // Registration takes up to five seconds; a start that is stuck is reported every period after the delay.
        assert_eq!((number("initialDelaySeconds"), number("periodSeconds")), (10, 2));
    }
    // A startup probe that fails restarts the container; waiting for a kubelet or an API server is no reason to.
    assert!(!daemon_set.contains("startupProbe:"));
}

#[test]
fn a_driver_of_another_name_is_that_everywhere() {
    let chart = rendered(&["driverName=gpu.example.com"]).unwrap();
    assert!(document(&chart, "DaemonSet").contains("--driver-name=gpu.example.com"));
    assert!(document(&chart, "ValidatingAdmissionPolicy").contains("s.spec.driver == \"gpu.example.com\""));
    let classes = chart.split("\n---\n").filter(|document| document.contains("kind: DeviceClass"));
    for class in classes {
        assert!(class.contains("gpu.example.com") && !class.contains("\"gpu.nvidia.com\""), "{class}");
    }
}

#[test]
fn the_flags_of_the_chart_are_flags_of_the_programs() {
    let daemon_set = document(&rendered(&[]).unwrap(), "DaemonSet");
    let flags = daemon_set
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- --"))
        .filter_map(|flag| flag.split('=').next());
    let args = |path: &str| std::fs::read_to_string(root_dir().join(path)).unwrap();
    let known = args("kubelet-plugin/src/args.rs") + &args("controller/src/args.rs");
    for flag in flags {
        let field = format!("{}:", flag.replace('-', "_"));
        assert!(known.contains(&field), "no program has a flag --{flag}");
    }
}
