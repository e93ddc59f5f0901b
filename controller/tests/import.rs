// SPDX-License-Identifier: Apache-2.0
//! The shipped `gpu-import`: golden files of its output, one for each key with a note.
//!
//! `UPDATE_GOLDEN=1 cargo test -p dra-controller --test import` rewrites the golden files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaimTemplate};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import")
}

/// Runs the program in the directory of the configurations.
fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gpu-import")).args(args).current_dir(dir()).env_clear().output().unwrap()
}

fn lines_after<'t>(text: &'t str, prefix: &str) -> Vec<&'t str> {
    text.lines().filter_map(|line| line.strip_prefix(prefix)).collect()
}

/// Compares one import with its golden file, its objects with the API and its warnings with standard error.
fn check(golden: &str, args: &[&str]) {
    let output = run(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{golden}: {stderr}");
    let given = String::from_utf8(output.stdout).unwrap();
    let path = dir().join("golden").join(golden);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &given).unwrap();
    }
    let expect = fs::read_to_string(&path).unwrap_or_default();
    assert!(given == expect, "{golden} differs; compare after UPDATE_GOLDEN=1:\n{given}");
    assert_eq!(lines_after(&given, "# Warning: "), lines_after(&stderr, "warning: "), "{golden}");
    assert_eq!(stderr.lines().count(), lines_after(&stderr, "warning: ").len(), "{golden}: {stderr}");
    for object in objects(&given) {
        strictly_typed(&object);
    }
    let values = String::from_utf8(run(&[args, &["--values"]].concat()).stdout).unwrap();
    if !values.is_empty() {
        let chart = include_str!("../../deploy/chart/values.yaml");
        is_in(&serde_saphyr::from_str(&values).unwrap(), &serde_saphyr::from_str(chart).unwrap());
    }
}

/// Every set value exists in the chart.
fn is_in(set: &Value, chart: &Value) {
    for (name, value) in set.as_object().into_iter().flatten() {
        is_in(value, chart.get(name).unwrap_or_else(|| panic!("{name} is no value of the chart")));
    }
}

fn objects(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// The API knows all fields of the object.
fn strictly_typed(object: &Value) {
    fn through<T: Serialize + DeserializeOwned>(object: &Value) -> Value {
        serde_json::to_value(serde_json::from_value::<T>(object.clone()).unwrap()).unwrap()
    }
    assert_eq!(object["apiVersion"], "resource.k8s.io/v1");
    let typed = match object["kind"].as_str().unwrap() {
        "DeviceClass" => through::<DeviceClass>(object),
        "ResourceClaimTemplate" => through::<ResourceClaimTemplate>(object),
        other => panic!("{other} was printed"),
    };
    assert_eq!(&typed, object);
}

#[test]
fn shares_keep_their_capacity() {
    check("time-slicing.yaml", &["time-slicing.yaml"]);
    check("time-slicing-of-20.yaml", &["time-slicing.yaml", "--max-shares=20"]);
    check("time-slicing-of-10.yaml", &["time-slicing.yaml", "--max-shares=10"]);
    check("mps.yaml", &["mps.yaml"]);
    check("mps-with-memory.yaml", &["mps.yaml", "--memory=80Gi"]);
    check("mps-with-slices.yaml", &["mps.yaml", "--slices=slices-h100.json"]);
    check("mps-with-two-sizes.yaml", &["mps.yaml", "--slices=slices-two-sizes.json"]);
    check("mps-of-another-driver.yaml", &["mps.yaml", "--slices=slices-h100.json", "--driver-name=gpu.example.com"]);
    check("one-of-two.yaml", &["two-configurations.yaml", "--config=batch"]);
    check("nothing-shared.yaml", &["two-configurations.yaml", "--config=default"]);
}

#[test]
fn a_configuration_is_found_in_values_and_manifests() {
    for case in ["plugin-values", "operator-values", "manifests"] {
        let file = format!("{case}.yaml");
        check(&file, &[&file]);
    }
    check("empty-default.yaml", &["empty-default.yaml", "--config=all-other-nodes"]);
    check("not-the-default.yaml", &["empty-default.yaml", "--config=small-nodes"]);
}

#[test]
fn what_the_plugin_reads_is_read() {
    for case in ["unset", "float", "two-entries", "devices-text"] {
        let file = format!("{case}.yaml");
        check(&file, &[&file]);
    }
}

#[test]
fn more_shares_than_there_are_become_as_many_as_fit() {
    check("many-slices.yaml", &["many-slices.yaml"]);
    check("many-slices-with-slices.yaml", &["many-slices.yaml", "--slices=slices-t4.json"]);
    check("mps-without-memory.yaml", &["mps.yaml", "--slices=slices-without-memory.json"]);
}

#[test]
fn profiles_of_layouts_have_a_class_and_a_template() {
    check("mig-layouts.yaml", &["mig-layouts.yaml"]);
    check("mig-layouts-of-notebooks.yaml", &["mig-layouts.yaml", "--mig-config=notebooks"]);
    check("mig-layouts-without-devices.yaml", &["mig-layouts.yaml", "--mig-config=mig-mode-only"]);
    check(
        "mig-layouts-with-slices.yaml",
        &["mig-layouts.yaml", "--mig-config=inference-and-training", "--slices=slices-h100.json"],
    );
    check(
        "mig-layouts-with-flags.yaml",
        &["parted-gpus.yaml", "--memory=80Gi", "--max-shares=4", "--driver-name=gpu.example.com"],
    );
    assert!(run(&["mig-layouts.yaml", "--values"]).stdout.is_empty());
}

#[test]
fn layouts_beside_a_sharing_configuration_are_imported_if_chosen() {
    check("sharing-beside-layouts.yaml", &["sharing-and-layouts.yaml"]);
    let chosen = "layouts-beside-sharing.yaml";
    check(chosen, &["sharing-and-layouts.yaml", "--mig-config=all-halves"]);
    check("all-layouts-beside-sharing.yaml", &["sharing-and-layouts.yaml", "--config=config.yaml"]);
}

/// Common mistakes, each with a warning.
#[test]
fn every_key_that_never_worked_is_named() {
    for case in [
        "unchanged-name",
        "rename-by",
        "replicas-one",
        "environment",
        "fail-on-init-error",
        "flags",
        "rename-and-devices",
        "mig-without-mixed",
        "mig-by-mps",
        "both-strategies",
        "other-resource",
        "other-case",
        "too-many",
        "many-clients",
        "lost-indentation",
    ] {
        let file = format!("{case}.yaml");
        check(&file, &[&file]);
    }
    check("mig.yaml", &["mig.yaml", "--slices=slices-h100.json"]);
}

#[test]
fn values_are_printed_alone() {
    let output = run(&["unchanged-name.yaml", "--values"]);
    let values: Value = serde_saphyr::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap();
    let expect = serde_json::json!({
        "deviceClasses": {"gpu": {"extendedResourceName": ""}},
        "sharing": {"requireAmount": false, "timeSlicing": {"maxShares": 4}},
    });
    assert_eq!(values, expect);
    assert!(run(&["two-configurations.yaml", "--config=default", "--values"]).stdout.is_empty());
}

#[test]
fn standard_input_is_read() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gpu-import"))
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = fs::read(dir().join("time-slicing.yaml")).unwrap();
    child.stdin.take().unwrap().write_all(&input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        fs::read_to_string(dir().join("golden/time-slicing.yaml")).unwrap()
    );
}

#[test]
fn what_cannot_be_imported_is_refused_with_its_path() {
    for (args, code, expect) in [
        (vec!["two-configurations.yaml"], 1, "has 2 configurations: \"batch\", \"default\"; choose one with --config"),
        (vec!["two-configurations.yaml", "--config=x"], 1, "the input has no configuration named \"x\""),
        (vec!["absent.yaml"], 1, "failed to read absent.yaml"),
        (vec!["slices-h100.json"], 1, "the input is a \"List\", not a ConfigMap"),
        (
            vec!["empty-default.yaml"],
            1,
            "has 2 configurations: \"all-other-nodes\", \"small-nodes\"; choose one with --config",
        ),
        (
            vec!["mig-layouts-with-errors.yaml", "--mig-config=misspelled"],
            1,
            "mig-configs.misspelled[0].mig_enabled is no key of mig-parted, expected device-filter, devices, mig-enabled, \
             mig-devices; correct or remove the key",
        ),
        (
            vec!["mig-layouts-with-errors.yaml", "--mig-config=no-suffix"],
            1,
            "mig-configs.no-suffix[0].mig-devices[\"1g.10\"] is not the name of a MIG profile; write it as nvidia-smi mig -lgip",
        ),
        (
            vec!["mig-layouts-with-errors.yaml", "--mig-config=zero"],
            1,
            "mig-configs.zero[0].mig-devices[\"1g.10gb\"] is 0, expected 1 or more; remove the profile",
        ),
        (vec!["mig-layouts-with-errors.yaml"], 1, "mig-configs.misspelled[0].mig_enabled is no key"),
        (
            vec!["parted-gpus.yaml", "--mig-config=halves"],
            1,
            ".mig-configs has no configuration named \"halves\", only \"cut\", \"whole\"; choose one of them with --mig-config",
        ),
        (
            vec!["mps.yaml", "--mig-config=cut"],
            1,
            "the input has no configuration of mig-parted with the key mig-configs; omit --mig-config",
        ),
        (vec!["two-sections.yaml"], 1, "duplicate key \"sharing\" in lines 2 and 9; remove one"),
        (vec!["mps.yaml", "--slices=mps.yaml"], 1, "failed to read ResourceSlices from mps.yaml"),
        (vec!["mps.yaml", "--memory=80Gb"], 2, "expected an amount"),
        (vec!["mps.yaml", "--memory=1Gi", "--slices=x"], 2, "cannot be used with"),
        (vec!["mps.yaml", "--max-shares=0"], 2, "--max-shares"),
        (vec!["mps.yaml", "--max-shares=1001"], 2, "expected 1 to 1000"),
        (vec!["mps.yaml", "--driver-name=GPU"], 2, "is not a driver name"),
    ] {
        let output = run(&args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(expect) && output.stdout.is_empty(), "{args:?}: {stderr}");
    }
}

#[test]
fn exit_codes_are_documented() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    assert!(help.contains("Exit codes:\n  0  printed"), "{help}");
}
