// SPDX-License-Identifier: Apache-2.0
//! The Helm chart for tenants, rendered by the real helm: what the examples become, and which values are refused.
//!
//! `UPDATE_GOLDEN=1 cargo test -p dra-tests --test tenants_chart` writes the rendered examples anew.

use std::path::Path;

use dra_tests::chart::{documents, tenants_rendered_with};
use dra_tests::source::root_dir;

/// Each with the files of values, the later ones on top.
const EXAMPLES: [(&str, &[&str]); 3] = [
    ("training-and-inference", &["training-and-inference"]),
    ("training-and-inference-kueue", &["training-and-inference", "training-and-inference-kueue"]),
    ("shared-cluster", &["shared-cluster"]),
];

fn example(name: &str, settings: &[&str]) -> Result<String, String> {
    files(&[name], settings)
}

fn files(names: &[&str], settings: &[&str]) -> Result<String, String> {
    let path =
        |name: &&str| root_dir().join(format!("deploy/tenants-chart/examples/{name}.yaml")).display().to_string();
    let paths: Vec<String> = names.iter().map(path).collect();
    let values = paths.iter().flat_map(|path| ["--values", path]);
    let settings = settings.iter().flat_map(|setting| ["--set-json", setting]);
    tenants_rendered_with(&values.chain(settings).collect::<Vec<_>>())
}

#[test]
fn the_examples_render_as_committed() {
    for (name, of_example) in EXAMPLES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/tenants-{name}.yaml"));
        let given = files(of_example, &[]).unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &given).unwrap();
        }
        let expect = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = given.lines().zip(expect.lines()).position(|(given, expect)| given != expect);
        assert!(given == expect, "{name} renders differently from line {differs:?} of {} on", path.display());
    }
}

#[test]
fn without_values_nothing_is_installed() {
    assert_eq!(tenants_rendered_with(&[]).unwrap().trim(), "");
}

#[test]
fn wrong_values_are_refused_with_the_path_of_the_field() {
    for (setting, sentence) in [
        ("tenant={}", "tenant"),
        ("tenants.training.limits.devicesPerClaim=-1", "/tenants/training/limits/devicesPerClaim"),
        ("tenants.training.limits.devicesPerClaim=\"8\"", "/tenants/training/limits/devicesPerClaim"),
        ("tenants.training.limits.strategies=[\"mps\"]", "/tenants/training/limits/strategies/0"),
        ("tenants.training.limits.classes=[\"a,b\"]", "/tenants/training/limits/classes/0"),
        ("tenants.training.limits.toleratedTaints=[\"\"]", "/tenants/training/limits/toleratedTaints/0"),
        ("tenants.training.limit={}", "limit"),
        ("tenants.Training={}", "Training"),
        ("tenants.training.quota={}", "/tenants/training/quota"),
        ("tenants.training.quota.extendedResources={\"gpu\":1}", "invalid propertyName 'gpu'"),
        ("pools.gpu-training={}", "cel"),
        ("pools.gpu-training.form=\"vgpu\"", "/pools/gpu-training/form"),
        ("otherNamespaces.limits={\"devices\":1}", "/otherNamespaces/limits"),
        (
            "tenants.training.quota.hard={\"limits.nvidia.com/gpu\":64}",
            "tenants.training.quota.hard has limits.nvidia.com/gpu: Kubernetes counts extended resources by requests only; use quota.extendedResources",
        ),
        (
            "tenants.training.quota.devices={\"gpu.nvidia.com\":8}",
            "tenants.training.quota.devices has gpu.nvidia.com, which limits.classes of the namespace does not allow: add the class there, or remove its quota",
        ),
        (
            "tenants.training.quota.extendedResources={\"nvidia.com/mig-1g.10gb\":8}",
            "tenants.training.quota.extendedResources has nvidia.com/mig-1g.10gb, of class mig-1g.10gb.nvidia.com, which limits.classes of the namespace does not allow",
        ),
        (
            "pools.gpu-training.extendedResourceName=\"nvidia.com/gpu\"",
            "pools.gpu-training.extendedResourceName is nvidia.com/gpu, the extended resource of class gpu.nvidia.com: give each class a name of its own",
        ),
    ] {
        let refused = example("training-and-inference", &[setting]).expect_err(setting);
        assert!(refused.contains(sentence), "{setting}: {refused}");
    }
}

#[test]
fn every_rule_is_bound_for_every_tenant_and_for_all_others_to_limits_outside_of_their_namespaces() {
    let chart = example("training-and-inference", &[]).unwrap();
    let policies = documents(&chart, "ValidatingAdmissionPolicy");
    assert_eq!(policies.len(), 4);
    assert!(policies.iter().all(|policy| policy.contains("\n  failurePolicy: Fail\n")));
    let bindings = documents(&chart, "ValidatingAdmissionPolicyBinding");
    assert_eq!(bindings.len(), 4 * 3);
    for namespace in ["training", "inference"] {
        let name = format!("\n    name: gpu-tenants-limits-{namespace}\n    namespace: gpu-tenants\n");
        let selector = format!(r#"{{"key":"kubernetes.io/metadata.name","operator":"In","values":["{namespace}"]}}"#);
        let of_it = bindings.iter().filter(|binding| binding.contains(&name) && binding.contains(&selector));
        assert_eq!(of_it.count(), 4, "{namespace}");
    }
    let others = r#""operator":"NotIn","values":["gpu-dra-driver","inference","kube-system","training"]"#;
    assert_eq!(bindings.iter().filter(|binding| binding.contains(others)).count(), 4);
    assert!(bindings.iter().all(|binding| binding.contains("\n    parameterNotFoundAction: Deny\n")));
    for limits in documents(&chart, "ConfigMap") {
        assert!(limits.contains("\n  namespace: gpu-tenants\n"), "{limits}");
    }
}

#[test]
fn nothing_is_tolerated_unless_it_is_listed() {
    let tolerated = |settings: &[&str]| {
        let chart = example("training-and-inference", settings).unwrap();
        let limits = documents(&chart, "ConfigMap");
        let of_training = limits.iter().find(|limits| limits.contains("-limits-training\n"));
        let lines = of_training.unwrap_or_else(|| panic!("no limits: {chart}")).lines();
        lines.map(str::trim).find_map(|line| line.strip_prefix("toleratedTaints: ").map(str::to_owned)).unwrap()
    };
    assert_eq!(tolerated(&[]), r#""""#);
    let listed = r#"tenants.training.limits.toleratedTaints=["gpu.nvidia.com/memory","gpu.nvidia.com/xid"]"#;
    assert_eq!(tolerated(&[listed]), r#""gpu.nvidia.com/memory,gpu.nvidia.com/xid""#);
}

#[test]
fn a_driver_of_another_name_is_that_in_pools_and_policies() {
    let chart = example("training-and-inference", &[r#"driverName="gpu.example.com""#]).unwrap();
    for class in documents(&chart, "DeviceClass") {
        assert!(class.contains(r#"device.driver == "gpu.example.com""#), "{class}");
    }
    assert!(chart.contains("entry.?opaque.?driver.orValue('') == 'gpu.example.com'"));
}

#[test]
fn large_numbers_of_quotas_are_written_out() {
    let hard = r#"tenants.training.quota.hard={"pods":2000000,"requests.memory":"4Ti"}"#;
    let chart = example("training-and-inference", &[hard]).unwrap();
    assert!(chart.contains("\n    pods: \"2000000\"\n    requests.memory: \"4Ti\"\n"));
}
