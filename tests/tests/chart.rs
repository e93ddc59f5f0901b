// SPDX-License-Identifier: Apache-2.0
//! The Helm chart, rendered by the real helm: what a user gets by default, and what is refused before it does harm.
//!
//! `UPDATE_GOLDEN=1 cargo test -p dra-tests --test chart` writes the rendered chart anew.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::path::Path;

use dra_sim::catalog;
use dra_tests::chart::{document, documents, rendered, rendered_with};
use dra_tests::source::root_dir;

/// The DaemonSet of a component.
fn daemon_set(chart: &str, component: &str) -> String {
    let label = format!("\n    app.kubernetes.io/component: {component}\n");
    let found = documents(chart, "DaemonSet").into_iter().find(|document| document.contains(&label));
    found.unwrap_or_else(|| panic!("the chart has no DaemonSet of {component}"))
}

/// The DeviceClass of a name.
fn class(chart: &str, name: &str) -> Option<String> {
    let line = format!("\n  name: {name}\n");
    documents(chart, "DeviceClass").into_iter().find(|document| document.contains(&line))
}

/// The MIG profiles with a class of their own.
fn profiles(chart: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for class in documents(chart, "DeviceClass") {
        let Some(profile) = class.split(".profile == \"").nth(1).and_then(|rest| rest.split('"').next()) else {
            continue;
        };
        let name = format!("mig-{}", profile.replace('+', "."));
        assert!(class.contains(&format!("\n  name: {name}.nvidia.com\n")), "{class}");
        assert!(format!("{class}\n").contains(&format!("\n  extendedResourceName: nvidia.com/{name}\n")), "{class}");
        assert!(found.insert(profile.to_owned()), "two classes of {profile}");
    }
    found
}

fn profiles_of_model(model: &str) -> BTreeSet<String> {
    profiles(&rendered(&[&format!("deviceClasses.mig.models={{{model}}}")]).unwrap())
}

/// The models of `deviceClasses.mig.models`, from the error about an unknown one.
fn known_models() -> Vec<String> {
    let refused = rendered(&["deviceClasses.mig.models={h100}"]).unwrap_err();
    let list = refused.split("deviceClasses.mig.models has h100: it must be one of ").nth(1).unwrap();
    let (list, advice) = list.split_once("; ").unwrap();
    assert!(advice.starts_with("list the profiles of another GPU in deviceClasses.mig.profiles\n"), "{advice}");
    list.split(", ").map(str::to_owned).collect()
}

/// The chart's name of a simulated model: the same, with `gb`, or with the memory.
fn known_as<'n>(model: &catalog::Model, known: &'n [String]) -> Option<&'n str> {
    let names = || model.aliases.iter().chain([&model.id]);
    let is = |name: &&String| names().any(|own| **name == *own || **name == format!("{own}gb"));
    let begins = |name: &&String| names().any(|own| name.starts_with(&format!("{own}-")));
    let mut longer = known.iter().filter(begins);
    let only = longer.next().filter(|_| longer.next().is_none());
    known.iter().find(is).or(only).map(String::as_str)
}

/// The admission policy of a name.
fn policy(chart: &str, name: &str) -> String {
    let line = format!("\n  name: {name}\n");
    let found = documents(chart, "ValidatingAdmissionPolicy").into_iter().find(|document| document.contains(&line));
    found.unwrap_or_else(|| panic!("the chart has no policy {name}"))
}

/// Where a container mounts a volume, and how.
fn mount(daemon_set: &str, volume: &str) -> String {
    let start = format!("- name: {volume}\n              mountPath: ");
    let found = daemon_set.split(&start).nth(1).unwrap_or_else(|| panic!("nothing mounts {volume}"));
    let lines = found.lines().map(str::trim).take_while(|line| !line.starts_with(['-', '#']));
    lines.collect::<Vec<_>>().join(", ")
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
fn unknown_and_impossible_values_are_refused() {
    for (setting, word) in [
        ("kubeletplugin.maxSurge=1", "kubeletplugin"),
        ("driver.rot=/", "rot"),
        ("log.format=xml", "format"),
        ("driverName=GPU_nvidia", "driverName"),
        ("kubeletPlugin.containers.plugin.httpPort=0", "httpPort"),
        ("sharing.form={gpu}", "form"),
        ("sharing.forms={gpu,vgpu}", "forms"),
        ("sharing.forms={gpu,gpu}", "forms"),
        ("sharing.defaultShares=0", "defaultShares"),
        ("sharing.defaultShares=101", "defaultShares"),
        ("sharing.timeSlicing.maxShares=0", "maxShares"),
        ("deviceClasses.timeSlicing.interval=medium", "interval"),
        ("deviceClasses.mps.extendedResourceName=shared", "extendedResourceName"),
        ("deviceClasses.mig.models={h100-80gb,h100-80gb}", "models"),
        ("deviceClasses.mig.models=h100-80gb", "models"),
        ("mps.root=/run/mps", "root"),
        ("mps.sharedMemory=0", "sharedMemory"),
        ("mps.sharedMemory=half", "sharedMemory"),
        ("networkPolicy.from=monitoring", "from"),
        // Pods would be scheduled onto shares that are never prepared.
        ("mps.enabled=false", "sharing.forms"),
    ] {
        let refused = rendered(&[setting]).expect_err(setting);
        assert!(refused.contains(word), "{setting}: {refused}");
    }
}

#[test]
fn the_policy_is_about_the_account_of_the_daemon_set() {
    for settings in [&[][..], &["serviceAccount.name=other"], &["fullnameOverride=mine"]] {
        let chart = rendered(settings).unwrap();
        let daemon_set = daemon_set(&chart, "kubelet-plugin");
        let account = daemon_set.lines().find_map(|line| line.trim().strip_prefix("serviceAccountName: ")).unwrap();
        let username = format!("\"system:serviceaccount:gpu-dra-driver:{account}\"");
        let policies = documents(&chart, "ValidatingAdmissionPolicy");
        let about_it = policies.iter().filter(|policy| policy.contains(&username));
        assert_eq!(about_it.count(), 4, "{settings:?}: a policy does not name {username}");
        let bindings = chart.split("\n---\n").filter(|document| document.contains("kind: ClusterRoleBinding"));
        let subject = format!("    name: {account}\n");
        assert_eq!(bindings.filter(|binding| binding.contains(&subject)).count(), 1, "{settings:?}");
    }
}

#[test]
fn a_policy_that_fails_stops_the_driver_but_no_user() {
    let chart = rendered(&[]).unwrap();
    let bound = documents(&chart, "ValidatingAdmissionPolicyBinding");
    assert_eq!(documents(&chart, "ValidatingAdmissionPolicy").len(), bound.len());
    for (name, expect) in [
        ("gpu-dra-driver", "Fail"),
        ("gpu-dra-driver-claim-status", "Fail"),
        ("gpu-dra-driver-events", "Fail"),
        ("gpu-dra-driver-configuration", "Ignore"),
    ] {
        let policy = policy(&chart, name);
        assert!(policy.contains(&format!("\n  failurePolicy: {expect}\n")), "{policy}");
        let is_about_the_driver = policy.contains("- name: written-by-this-driver\n");
        assert_eq!(is_about_the_driver, expect == "Fail", "{policy}");
        assert!(bound.iter().any(|binding| binding.contains(&format!("\n  policyName: {name}\n"))), "{name}");
    }
    assert!(!rendered(&["admissionPolicy.enabled=false"]).unwrap().contains("ValidatingAdmissionPolicy"));
}

#[test]
fn the_driver_creates_events_and_changes_none() {
    let roles = documents(&rendered(&[]).unwrap(), "ClusterRole");
    let about_events = roles.iter().flat_map(|role| role.split("\n  - ")).filter(|rule| rule.contains("[events]"));
    let about_events = about_events.map(|rule| rule.lines().take(3).map(str::trim).collect::<Vec<_>>());
    let creates = vec!["apiGroups: [events.k8s.io]", "resources: [events]", "verbs: [create]"];
    assert_eq!(about_events.collect::<Vec<_>>(), [creates.clone(), creates], "explain, plugin and controller");
}

#[test]
fn the_controller_has_no_rights_on_the_node() {
    let daemon_set = daemon_set(&rendered(&[]).unwrap(), "kubelet-plugin");
    let controller = daemon_set.split("- name: controller\n").nth(1).unwrap().split("\n      volumes:").next().unwrap();
    for needed in
        ["runAsNonRoot: true", "privileged: false", "readOnlyRootFilesystem: true", "allowPrivilegeEscalation: false"]
    {
        assert!(controller.contains(needed), "{needed}");
    }
    assert_eq!(controller.matches("mountPath:").count(), 1, "the controller has only the directory of the socket");
}

#[test]
fn the_seconds_of_a_normal_start_are_no_events_and_no_start_is_ended_by_a_probe() {
    let daemon_set = daemon_set(&rendered(&[]).unwrap(), "kubelet-plugin");
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
    assert!(daemon_set(&chart, "kubelet-plugin").contains("--driver-name=gpu.example.com"));
    assert!(policy(&chart, "gpu-dra-driver").contains("s.spec.driver == \"gpu.example.com\""));
    for policy in documents(&chart, "ValidatingAdmissionPolicy") {
        assert!(policy.contains("gpu.example.com") && !policy.contains("gpu.nvidia.com"), "{policy}");
    }
    for class in documents(&chart, "DeviceClass") {
        assert!(class.contains("gpu.example.com") && !class.contains("\"gpu.nvidia.com\""), "{class}");
    }
}

#[test]
fn the_mps_host_is_replaced_by_hand_only_since_its_end_is_the_end_of_its_clients() {
    let host = daemon_set(&rendered(&[]).unwrap(), "mps-host");
    assert!(host.contains("\n  updateStrategy:\n    type: OnDelete\n"));
    // A probe that fails would restart it, and a limit end it.
    assert!(!host.contains("livenessProbe:") && !host.contains("startupProbe:") && !host.contains("limits:"));
    let grace = host.lines().find_map(|line| line.trim().strip_prefix("terminationGracePeriodSeconds: "));
    let grace: u32 = grace.unwrap().parse().unwrap();
    assert!(grace >= 30, "clients have 20 s to end, and then all of it is cleaned up: {grace}");
}

#[test]
fn mounts_of_the_mps_host_reach_the_host_and_other_containers_follow_the_mounts_of_the_host() {
    let chart = rendered(&[]).unwrap();
    let host = daemon_set(&chart, "mps-host");
    assert_eq!(mount(&host, "daemons"), "/run/gpu-dra/mps, mountPropagation: Bidirectional");
    let plugin = daemon_set(&chart, "kubelet-plugin");
    assert_eq!(mount(&plugin, "run"), "/run/gpu-dra, mountPropagation: HostToContainer");
    for daemon_set in [&host, &plugin] {
        let follows = "/driver-root, readOnly: true, mountPropagation: HostToContainer";
        assert_eq!(mount(daemon_set, "driver-root"), follows);
    }
}

#[test]
fn shared_memory_is_small_unless_more_is_asked_for() {
    let size = |settings: &[&str]| {
        let host = daemon_set(&rendered(settings).unwrap(), "mps-host");
        host.lines().find_map(|line| line.trim().strip_prefix("- --shm-bytes=").map(str::to_owned))
    };
    assert_eq!(size(&[]).as_deref(), Some("64Mi"));
    assert_eq!(size(&["mps.sharedMemory=2Gi"]).as_deref(), Some("2Gi"));
    let by_variable = ["mps.extraEnv[0].name=MPS_SHM_BYTES", "mps.extraEnv[0].value=1Gi"];
    assert_eq!(size(&by_variable), None, "a flag goes before the variable");
}

#[test]
fn the_mps_host_has_the_processes_of_the_node_and_an_account_without_rights() {
    let chart = rendered(&[]).unwrap();
    let host = daemon_set(&chart, "mps-host");
    assert!(host.contains("\n      hostPID: true\n") && host.contains("privileged: true"));
    assert!(
        host.contains("\n      serviceAccountName: gpu-dra-driver-mps\n      automountServiceAccountToken: false\n")
    );
    let bindings = ["ClusterRoleBinding", "RoleBinding"].into_iter().flat_map(|kind| documents(&chart, kind));
    let bound = bindings.filter(|binding| binding.contains("name: gpu-dra-driver-mps\n")).collect::<Vec<_>>();
    assert!(bound.is_empty(), "{bound:?}");
    assert!(!daemon_set(&chart, "kubelet-plugin").contains("hostPID"), "nothing else needs to");
}

#[test]
fn nothing_but_health_and_metrics_is_let_in_from_the_network() {
    let chart = rendered(&[]).unwrap();
    let policy = document(&chart, "NetworkPolicy");
    let rules = "
  policyTypes: [Ingress]
  ingress:
    - from:
        - namespaceSelector: {}
      ports:
        - port: 8080
        - port: 8081
        - port: 8082";
    assert!(policy.trim_end().ends_with(rules), "any Prometheus works: {policy}");
    let selected = policy.split("matchLabels:").nth(1).unwrap().split("  policyTypes").next().unwrap();
    for component in ["kubelet-plugin", "mps-host"] {
        let pods = daemon_set(&chart, component);
        for label in selected.lines().map(str::trim).filter(|label| !label.is_empty()) {
            assert!(pods.contains(&format!("\n        {label}\n")), "{component} has no {label}");
        }
        assert!(!pods.contains("hostNetwork"), "a NetworkPolicy is not about the network of the node");
    }
    let from = |settings: &[&str]| document(&rendered(settings).unwrap(), "NetworkPolicy");
    let monitoring = "networkPolicy.from[0].namespaceSelector.matchLabels.team=monitoring";
    assert!(
        from(&[monitoring])
            .contains("- namespaceSelector:\n            matchLabels:\n              team: monitoring\n")
    );
    let without_sources = rendered_with(&["--set-json", "networkPolicy.from=[]"]).unwrap();
    assert!(document(&without_sources, "NetworkPolicy").trim_end().ends_with("\n  ingress: []"));
    assert!(!rendered(&["networkPolicy.enabled=false"]).unwrap().contains("NetworkPolicy"));
}

#[test]
fn the_controller_gets_the_forms_and_shares_as_flags() {
    for (settings, expect) in [
        (&[][..], ["--forms=gpu,mig,mps,timeSlicing", "--default-shares=10", "--time-slicing-max-shares=10"]),
        (
            &["sharing.forms={gpu,timeSlicing}", "sharing.defaultShares=4", "sharing.timeSlicing.maxShares=48"],
            ["--forms=gpu,timeSlicing", "--default-shares=4", "--time-slicing-max-shares=48"],
        ),
    ] {
        let daemon_set = daemon_set(&rendered(settings).unwrap(), "kubelet-plugin");
        let controller = daemon_set.split("command: [/usr/bin/gpu-controller]").nth(1).unwrap();
        for flag in expect {
            assert!(controller.contains(&format!("- {flag}\n")), "{settings:?}: {flag}");
        }
    }
}

#[test]
fn rules_about_faults_are_flags_of_the_plugin() {
    let rules =
        r#"health.rules={"needsReset": {"effect": "NoExecute", "graceSeconds": 600}, "lost": {"effect": "Off"}}"#;
    let chart = rendered_with(&[
        "--set-json",
        rules,
        "--set",
        "health.evictionPercent=50",
        "--set",
        "health.evictionNodes=3",
        "--set",
        "health.pollSeconds=5",
        "--set",
        "monitoring.claimMetrics=false",
    ])
    .unwrap();
    let plugin = daemon_set(&chart, "kubelet-plugin");
    for flag in [
        "--health-rules=lost=Off:0,needsReset=NoExecute:600",
        "--health-eviction-percent=50",
        "--health-eviction-nodes=3",
        "--health-poll-seconds=5",
        "--claim-metrics=false",
    ] {
        assert!(plugin.contains(&format!("- {flag}\n")), "{flag} in {plugin}");
    }
    assert_eq!(chart.matches("\n  name: gpu.nvidia.com-eviction-").count(), 3);
    for (rules, word) in [
        (r#"{"gone": {"effect": "Off"}}"#, "gone"),
        (r#"{"lost": {"effect": "Evict"}}"#, "effect"),
        (r#"{"lost": {}}"#, "effect"),
        (r#"{"lost": {"effect": "Off", "graceSeconds": -1}}"#, "graceSeconds"),
    ] {
        let refused = rendered_with(&["--set-json", &format!("health.rules={rules}")]).expect_err(rules);
        assert!(refused.contains(word), "{rules}: {refused}");
    }
}

/// What the plugin gets is the file, and a file without the configuration is refused at the installation.
#[test]
fn static_mig_devices_come_from_a_file_of_mig_parted() {
    let file = root_dir().join("controller/tests/import/mig-layouts.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let set_file = format!("mig.static.file={}", file.display());
    let with = |settings: &[&str]| {
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        rendered_with(&["--set-file", &set_file].into_iter().chain(settings).collect::<Vec<_>>())
    };
    let chart = with(&["mig.static.config=notebooks"]).unwrap();
    let config_map = document(&chart, "ConfigMap");
    let data = config_map.lines().find_map(|line| line.trim().strip_prefix("config.yaml: ")).unwrap();
    assert_eq!(serde_json::from_str::<String>(data).unwrap(), text);
    let plugin = daemon_set(&chart, "kubelet-plugin");
    for line in [
        "- --static-mig-file=/etc/gpu-dra/static-mig/config.yaml",
        "- --static-mig-config=notebooks",
        "checksum/static-mig: ",
    ] {
        assert!(plugin.contains(line), "{line}");
    }
    assert_eq!(mount(&plugin, "static-mig"), "/etc/gpu-dra/static-mig, readOnly: true");
    let refused = with(&["mig.static.config=all"]).unwrap_err();
    assert!(refused.contains("mig.static.config is all: it must be one of development, graphics, "), "{refused}");
    let refused = with(&[]).unwrap_err();
    assert!(refused.contains("mig.static.config is empty: it must be one of development, graphics, "), "{refused}");
    for (value, expect) in [
        ("\"[\"", "mig.static.file is not a YAML mapping ("),
        ("\"version: v1\"", "mig.static.file has no mig-configs: set it to"),
        ("{\"mig-configs\": {}}", "mig.static.file has no mig-configs: set it to"),
        ("[]", "static"),
    ] {
        let refused = rendered_with(&["--set-json", &format!("mig.static.file={value}")]).expect_err(value);
        assert!(refused.contains(expect), "{value}: {refused}");
    }
    let one = r#"{"version": "v1", "mig-configs": {"a": [{"devices": "all", "mig-enabled": true, "mig-devices": {"1g.10gb": 7}}]}}"#;
    let chart = rendered_with(&["--set-json", &format!("mig.static.file={one}")]).unwrap();
    assert!(document(&chart, "ConfigMap").contains("mig-configs:\\n  a:\\n  - devices: all"), "{chart}");
    assert!(!daemon_set(&chart, "kubelet-plugin").contains("--static-mig-config"));
}

#[test]
fn shares_need_an_amount_unless_an_extended_resource_offers_them() {
    for (settings, expect) in [
        (&[][..], true),
        (&["sharing.requireAmount=false"], false),
        (&["deviceClasses.mps.extendedResourceName=nvidia.com/gpu.shared"], false),
        (&["deviceClasses.timeSlicing.extendedResourceName=nvidia.com/gpu.shared"], false),
    ] {
        let chart = rendered(settings).unwrap();
        let controller = daemon_set(&chart, "kubelet-plugin");
        assert_eq!(controller.contains("- --require-share-amount\n"), expect, "{settings:?}");
        assert_eq!(documents(&chart, "MutatingAdmissionPolicy").len(), usize::from(expect), "{settings:?}");
    }
    let policy = document(&rendered(&["sharing.defaultShares=4"]).unwrap(), "MutatingAdmissionPolicy");
    assert!(policy.contains("{'name': 'activeThreadPercentage', 'value': '25'}"), "{policy}");
}

#[test]
fn settings_are_restored_after_uninstalling_and_waited_for() {
    let chart = rendered(&[]).unwrap();
    let restore = daemon_set(&chart, "restore");
    let job = document(&chart, "Job");
    assert!(job.contains("helm.sh/hook-output-log-policy: hook-succeeded,hook-failed\n"), "{job}");
    for (document, weight) in [(&restore, 0), (&job, 1)] {
        assert!(document.contains("helm.sh/hook: post-delete\n"), "{document}");
        assert!(document.contains(&format!("helm.sh/hook-weight: \"{weight}\"\n")), "{document}");
    }
    assert!(job.contains("- --await-daemonset=gpu-dra-driver-restore\n") && job.contains("- --timeout-seconds=80\n"));
    let roles = documents(&chart, "Role");
    let role = roles.iter().find(|role| role.contains("resources: [daemonsets]\n")).unwrap();
    assert!(role.contains("    resourceNames: [gpu-dra-driver-restore]\n    verbs: [get, delete]\n"), "{role}");
    let selector = job.lines().find_map(|line| line.trim().strip_prefix("- --selector=")).unwrap();
    for label in selector.split(',') {
        assert!(restore.contains(&format!("\n        {}\n", label.replace('=', ": "))), "{label}");
    }
    let programs = restore.split("/usr/bin/").skip(1).filter_map(|rest| rest.split([']', '\n']).next());
    let order: Vec<_> = programs.collect();
    assert_eq!(order, ["gpu-mps-host", "gpu-kubelet-plugin", "gpu-controller"], "daemons first, then what they needed");
    // One container, since one that fails would keep the next from running.
    assert!(
        restore.contains("\n            - --\n            - /usr/bin/gpu-kubelet-plugin\n            - --restore\n")
    );
    assert_eq!(mount(&restore, "run"), "/run/gpu-dra, mountPropagation: Bidirectional");
    assert!(restore.contains("\n      hostPID: true\n"));
    // The directory of a driver that left nothing must not be created again.
    assert_eq!(mount(&restore, "plugins"), "/var/lib/kubelet/plugins");
    assert!(!restore.contains("plugins/gpu.nvidia.com"), "{restore}");
    assert!(!rendered(&["withdraw.enabled=false"]).unwrap().contains("restore"));
}

#[test]
fn without_mps_nothing_of_it_runs() {
    let chart = rendered(&["mps.enabled=false", "sharing.forms={gpu,mig,timeSlicing}"]).unwrap();
    assert!(!chart.contains("mps-host") && !chart.contains("name: gpu-dra-driver-mps\n"));
    let restore = daemon_set(&chart, "restore");
    let command = "command: [/usr/bin/gpu-kubelet-plugin]\n          args:\n            - --restore\n";
    assert!(
        restore.contains(command) && !restore.contains("Bidirectional") && !restore.contains("hostPID"),
        "{restore}"
    );
}

#[test]
fn each_class_is_for_devices_of_one_kind() {
    let chart = rendered(&[]).unwrap();
    for (name, of_type, strategy) in [
        ("gpu.nvidia.com", "gpu", ""),
        ("mig.nvidia.com", "mig", ""),
        ("mps.gpu.nvidia.com", "shared-gpu", "MPS"),
        ("timeslicing.gpu.nvidia.com", "shared-gpu", "TimeSlicing"),
    ] {
        let class = class(&chart, name).expect(name);
        let expect =
            format!(r#"device.driver == "gpu.nvidia.com" && device.attributes["gpu.nvidia.com"].type == "{of_type}""#);
        assert!(class.contains(&expect), "{class}");
        assert_eq!(class.contains("sharingStrategy"), !strategy.is_empty(), "{class}");
        assert!(class.contains(&format!(r#"== "{strategy}""#)) || strategy.is_empty(), "{class}");
    }
    for (value, name) in [
        ("gpu", "gpu.nvidia.com"),
        ("mig", "mig.nvidia.com"),
        ("mps", "mps.gpu.nvidia.com"),
        ("timeSlicing", "timeslicing.gpu.nvidia.com"),
    ] {
        let chart = rendered(&[&format!("deviceClasses.{value}.enabled=false")]).unwrap();
        assert_eq!(class(&chart, name), None);
        assert_eq!(documents(&chart, "DeviceClass").len(), 3, "{name}");
    }
}

#[test]
fn each_profile_has_one_class_wherever_it_is_configured() {
    let of = |profiles: &[&str]| profiles.iter().copied().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(profiles(&rendered(&[]).unwrap()), of(&[]));
    let both = ["deviceClasses.mig.models={a30-24gb,a100-80gb}", "deviceClasses.mig.profiles={1g.10gb,1c.3g.40gb}"];
    let a100 = ["1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"];
    let a30 = ["1g.6gb", "1g.6gb+me", "2g.12gb", "2g.12gb+me", "4g.24gb"];
    assert_eq!(profiles(&rendered(&both).unwrap()), of(&[&a100[..], &a30, &["1c.3g.40gb"]].concat()));
    // Both models have the same profiles.
    assert_eq!(profiles(&rendered(&["deviceClasses.mig.models={a100-80gb,h100-80gb}"]).unwrap()), of(&a100));
    let rtx = [
        "1g.24gb",
        "1g.24gb+me",
        "1g.24gb+gfx",
        "1g.24gb+me.all",
        "1g.24gb-me",
        "2g.48gb",
        "2g.48gb+gfx",
        "2g.48gb+me.all",
        "2g.48gb-me",
        "4g.96gb",
        "4g.96gb+gfx",
    ];
    assert_eq!(profiles_of_model("rtx-pro-6000"), of(&rtx));
    let only_models = rendered_with(&["--set-json", r#"deviceClasses.mig={"profiles":null,"models":["a30-24gb"]}"#]);
    assert_eq!(profiles(&only_models.unwrap()), of(&a30));
}

/// Otherwise the names of the simulated GPUs and of the chart drift apart.
#[test]
fn the_profiles_of_a_model_are_those_of_the_simulated_gpu() {
    let known = known_models();
    let mut compared = BTreeSet::new();
    for model in catalog::models() {
        let (Some(mig), Some(name)) = (&model.mig, known_as(model, &known)) else { continue };
        let expect = mig.profiles.iter().map(|profile| profile.name.clone()).collect::<BTreeSet<_>>();
        assert_eq!(profiles_of_model(name), expect, "{name}");
        compared.insert(name);
    }
    for name in ["a100-40gb", "a100-80gb", "h100-80gb", "h200-141gb", "b200-180gb", "gb200-186gb"] {
        assert!(compared.contains(name), "{name} is not compared");
    }
}

/// Name, extended resource and selector of a class with an extended resource.
fn facts(class: &str) -> Option<[String; 3]> {
    let value = |key: &str| class.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
    let expression = class.split("expression: >-\n").nth(1)?.lines().take_while(|line| line.starts_with("        "));
    let expression = expression.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
    Some([value("  name: ")?, value("  extendedResourceName: ")?, expression])
}

/// So that pods and templates are independent of which of the two created the classes.
#[test]
fn imported_layouts_have_the_classes_of_the_chart() {
    let imported = root_dir().join("controller/tests/import/golden/mig-layouts.yaml");
    let imported = std::fs::read_to_string(imported).unwrap();
    let expect = documents(&imported, "DeviceClass").iter().filter_map(|class| facts(class)).collect::<BTreeSet<_>>();
    let profiles = profiles(&imported).into_iter().collect::<Vec<_>>().join(",");
    let chart = rendered(&[&format!("deviceClasses.mig.profiles={{{profiles}}}")]).unwrap();
    let classes = documents(&chart, "DeviceClass").into_iter().filter(|class| class.contains("\n  name: mig-"));
    let found = classes.filter_map(|class| facts(&class)).collect::<BTreeSet<_>>();
    assert!(found == expect && found.len() > 5, "{found:#?}\n{expect:#?}");
}

/// NVIDIA's names contain the memory of the profile: eighths of that of the GPU, rounded half up.
#[test]
fn names_of_profiles_have_the_memory_of_their_model() {
    let mut checked = 0;
    for model in known_models() {
        let Some(total) = model.rsplit('-').next().unwrap().strip_suffix("gb") else { continue };
        let found = profiles_of_model(&model);
        let total: u32 = total.parse().unwrap();
        let profile = |slices: u32, eighths: u32| format!("{slices}g.{}gb", (total * eighths + 4) / 8);
        let mut expect = if total == 24 {
            BTreeSet::from([profile(1, 2), profile(2, 4), profile(4, 8), format!("{}+me", profile(2, 4))])
        } else {
            [(1, 1), (1, 2), (2, 2), (3, 4), (4, 4), (7, 8)].map(|(slices, eighths)| profile(slices, eighths)).into()
        };
        expect.insert(format!("{}+me", profile(1, if total == 24 { 2 } else { 1 })));
        assert_eq!(found, expect, "{model}");
        checked += 1;
    }
    assert!(checked > 10, "{checked} models are few");
}

#[test]
fn classes_of_shares_have_the_configured_extended_resource_names() {
    let chart = rendered(&[]).unwrap();
    let plain = |name: &str| class(&chart, name).unwrap();
    for name in ["mps.gpu.nvidia.com", "timeslicing.gpu.nvidia.com"] {
        assert!(!plain(name).contains("config:") && !plain(name).contains("extendedResourceName"), "{name}");
    }
    let chart = rendered(&[
        "deviceClasses.mps.extendedResourceName=nvidia.com/gpu.shared",
        "deviceClasses.timeSlicing.extendedResourceName=nvidia.com/gpu.slice",
        "deviceClasses.timeSlicing.interval=Medium",
    ])
    .unwrap();
    assert!(class(&chart, "mps.gpu.nvidia.com").unwrap().contains("\n  extendedResourceName: nvidia.com/gpu.shared\n"));
    let class = class(&chart, "timeslicing.gpu.nvidia.com").unwrap();
    assert!(class.contains("\n  extendedResourceName: nvidia.com/gpu.slice\n"), "{class}");
    let parameters = class.split("        parameters:").nth(1).unwrap();
    let expect = "
          apiVersion: resource.nvidia.com/v1beta1
          kind: GpuConfig
          sharing:
            strategy: TimeSlicing
            timeSlicingConfig:
              interval: Medium
";
    assert!(parameters.starts_with(expect), "{parameters}");
}

#[test]
fn the_flags_of_the_chart_are_flags_of_the_programs() {
    let args = |path: &str| {
        let path = root_dir().join(path);
        let parts = std::fs::read_dir(path.with_extension("")).into_iter().flatten().map(|part| part.unwrap().path());
        parts.chain([path.clone()]).map(|path| std::fs::read_to_string(path).unwrap()).collect::<String>()
    };
    let programs = [
        ("gpu-kubelet-plugin", args("kubelet-plugin/src/args.rs")),
        ("gpu-mps-host", args("kubelet-plugin/mps-host/src/args.rs")),
        ("gpu-controller", args("controller/src/args.rs")),
        ("gpu-explain", args("controller/src/bin/gpu-explain/args.rs")),
    ];
    let chart = rendered(&[]).unwrap();
    let mut checked = 0;
    for command in chart.split("/usr/bin/").skip(1) {
        let name = command.split([']', ',', '\n']).next().unwrap();
        let (_, known) = programs.iter().find(|(program, _)| *program == name).unwrap();
        for flag in command.lines().filter_map(|line| line.trim().strip_prefix("- --")) {
            let flag = flag.split('=').next().unwrap();
            assert!(known.contains(&format!("{}:", flag.replace('-', "_"))), "{name} has no flag --{flag}");
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked} flags are few");
}
