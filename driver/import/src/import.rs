// SPDX-License-Identifier: Apache-2.0
//! One import, from text to text: select the configuration, parse it, plan, render. Pure.

use std::borrow::Cow;

use dra_mig_parted::{Field, LayoutError, layouts};
use dra_model::Advice;
use dra_resource::DriverName;

use crate::config::{self, ConfigError};
use crate::document::{self, Document, DocumentError};
use crate::files::FileKind;
use crate::layout_plan;
use crate::plan::{self, Cluster, Plan};
use crate::render::{self, Heading, RenderError};
use crate::warnings::Warning;

/// The output of an import.
#[derive(Debug)]
pub struct Imported {
    /// Objects for `kubectl apply`, with values and warnings as comments.
    pub objects: String,
    /// Chart values.
    pub values: String,
    pub warnings: Vec<Warning>,
}

/// The configuration that the user selects.
#[derive(Debug, Default, Clone, Copy)]
pub struct Selection<'a> {
    /// A file, from `--config`.
    pub file: Option<&'a str>,
    /// A configuration in a file of mig-parted, from `--mig-config`.
    pub mig_config: Option<&'a str>,
}

/// A failed import.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("failed to find the configuration")]
    Document(#[source] DocumentError),
    #[error("failed to parse the configuration")]
    Config(#[source] ConfigError),
    #[error("failed to parse the configuration of mig-parted")]
    Layouts(#[source] LayoutError),
    #[error("failed to print the objects")]
    Render(#[source] RenderError),
}

impl Advice for ImportError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Document(source) => source.advice(),
            Self::Layouts(LayoutError::Unknown { .. }) => {
                Some("choose one of them with --mig-config, or omit it to import all".into())
            }
            Self::Layouts(source) => source.advice(),
            Self::Config(_) | Self::Render(_) => None,
        }
    }
}

/// Imports one file of `input`.
pub fn import(
    input: &str,
    selection: Selection<'_>,
    cluster: &Cluster,
    driver: &DriverName,
) -> Result<Imported, ImportError> {
    let only = selection.mig_config.map(|_| FileKind::MigLayouts);
    let document = document::read(input, selection.file, only).map_err(ImportError::Document)?;
    let Document { path, kind, content, mut warnings } = document;
    let whole = Field::new(&path, &content);
    let (mut plan, mut heading) = match kind {
        FileKind::Sharing => (sharing(&whole, cluster)?, SHARING),
        FileKind::MigLayouts => (mig_layouts(&whole, selection.mig_config, cluster, driver)?, MIG_LAYOUTS),
    };
    warnings.append(&mut plan.warnings);
    plan.warnings = warnings;
    if !path.is_empty() {
        heading.source = &path;
    }
    Ok(Imported {
        objects: render::everything(&plan, &heading, driver).map_err(ImportError::Render)?,
        values: render::values(&plan.values).map_err(ImportError::Render)?,
        warnings: plan.warnings,
    })
}

const SHARING: Heading<'_> = Heading { source: "the device plugin's configuration", nothing: "shares nothing" };
const MIG_LAYOUTS: Heading<'_> =
    Heading { source: "the configuration of mig-parted", nothing: "has neither MIG devices nor whole GPUs" };

fn sharing(whole: &Field<'_>, cluster: &Cluster) -> Result<Plan, ImportError> {
    let (config, mut warnings) = config::read(whole).map_err(ImportError::Config)?;
    let mut plan = plan::plan(&config, cluster);
    warnings.append(&mut plan.warnings);
    Ok(Plan { warnings, ..plan })
}

fn mig_layouts(
    whole: &Field<'_>,
    wanted: Option<&str>,
    cluster: &Cluster,
    driver: &DriverName,
) -> Result<Plan, ImportError> {
    let layouts = layouts::read(whole, wanted).map_err(ImportError::Layouts)?;
    Ok(layout_plan::plan(&layouts, cluster, driver))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::limits::MAX_TIME_SLICES;
    use dra_model::chain;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn outcome(input: &str) -> Result<Imported, ImportError> {
        import(input, Selection::default(), &Cluster::default(), &"gpu.nvidia.com".parse().unwrap())
    }

    /// Comments, then objects: no text of the input is anywhere else.
    fn well_formed(imported: &Imported) -> Result<(), TestCaseError> {
        let mut documents = imported.objects.split("---\n");
        let comments = documents.next().unwrap_or_default();
        // YAML 1.1 ends lines at more characters than `lines` does.
        let lines = comments.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).filter(|line| !line.is_empty());
        prop_assert!(lines.into_iter().all(|line| line.starts_with('#')), "{comments}");
        for document in documents {
            let object: Value = serde_saphyr::from_str(document).unwrap();
            prop_assert!(object["kind"] == "DeviceClass" || object["kind"] == "ResourceClaimTemplate");
        }
        Ok(())
    }

    fn scalar() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (0_i64..300).prop_map(Value::from),
            any::<f32>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            prop::sample::select(vec!["v1", "gpu", "nvidia.com/gpu", "mig-1g.10gb", "mig-1g.10gb.me", "single", "all"])
                .prop_map(Value::from),
        ]
    }

    fn key() -> impl Strategy<Value = String> {
        let known = vec![
            "version",
            "flags",
            "sharing",
            "resources",
            "mps",
            "timeSlicing",
            "TIMESLICING",
            "renameByDefault",
            "renameBy",
            "name",
            "replicas",
            "rename",
            "devices",
            "failRequestsGreaterThanOne",
            "migStrategy",
            "plugin",
            "kind",
            "data",
            "mig-configs",
            "mig-devices",
            "mig-enabled",
            "device-filter",
            "1g.10gb",
        ];
        prop_oneof![8 => prop::sample::select(known).prop_map(str::to_owned), 1 => "(?s).{0,6}"]
    }

    fn anything() -> impl Strategy<Value = Value> {
        scalar().prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key(), inner, 0..6)
                    .prop_map(|map: BTreeMap<String, Value>| map.into_iter().collect()),
            ]
        })
    }

    /// Mostly valid, so that most imports succeed.
    fn configuration() -> impl Strategy<Value = Value> {
        let name = prop::sample::select(vec!["gpu", "nvidia.com/gpu", "mig-1g.10gb", "mig-7g.80gb.me", "a100"]);
        let resource = (name, 0_i64..300, key(), anything())
            .prop_map(|(name, replicas, key, value)| json!({ key: value, "name": name, "replicas": replicas }));
        let strategy = (prop::collection::vec(resource, 1..3), any::<bool>(), "(?s).{0,6}", anything())
            .prop_map(|(resources, renamed, key, value)| json!({ key: value, "renameByDefault": renamed, "resources": resources })).boxed();
        (strategy.clone(), prop::option::of(strategy), "(?s).{0,6}", anything()).prop_map(
            |(first, second, key, value)| json!({ key: value, "sharing": { "timeSlicing": first, "mps": second } }),
        )
    }

    /// Mostly valid configurations of mig-parted.
    fn layouts() -> impl Strategy<Value = Value> {
        let profile = prop::sample::select(vec!["1g.10gb", "1g.10gb+me", "1c.3g.40gb", "2g.48gb-me", "7g.141gb"]);
        let devices = prop::collection::btree_map(profile, 1_u8..8, 0..3);
        let indexes = prop_oneof![Just(json!("all")), prop::collection::vec(any::<u8>(), 0..3).prop_map(Value::from)];
        let filter = prop_oneof![
            Just(Value::Null),
            "(0x[0-9A-Fa-f]{1,8})?".prop_map(Value::from),
            Just(json!(["0x1", "0X2a:0x3"]))
        ];
        let entry = (indexes, filter, devices).prop_map(|(indexes, filter, devices)| {
            let is_enabled = !devices.is_empty();
            json!({"devices": indexes, "device-filter": filter, "mig-enabled": is_enabled, "mig-devices": devices})
        });
        prop::collection::btree_map("(?s).{0,6}", prop::collection::vec(entry, 1..4), 1..4)
            .prop_map(|configs| json!({"version": "v1", "mig-configs": configs}))
    }

    /// Checks the values against the chart's schema, for numbers, texts and maps.
    fn conforms(value: &Value, schema: &Value) -> Result<(), TestCaseError> {
        let definitions = &chart_schema()["definitions"];
        let schema = match schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/definitions/")) {
            Some(name) => &definitions[name],
            None => schema,
        };
        match value {
            Value::Object(entries) => {
                prop_assert_eq!(&schema["type"], "object");
                for (key, value) in entries {
                    let below = schema["properties"].get(key);
                    prop_assert!(below.is_some(), "the chart has no {key}");
                    conforms(value, below.unwrap())?;
                }
            }
            Value::Number(number) => {
                prop_assert_eq!(&schema["type"], "integer");
                let limits = schema["minimum"].as_u64().unwrap()..=schema["maximum"].as_u64().unwrap();
                prop_assert!(limits.contains(&number.as_u64().unwrap()), "{number} is not in {limits:?}");
            }
            Value::String(text) => {
                // Patterns are not evaluated; a pattern that matches the empty text has this form.
                let pattern = schema["pattern"].as_str().unwrap();
                prop_assert!(text.is_empty() && pattern.starts_with("^(") && pattern.ends_with(")?$"), "{text:?}");
            }
            Value::Bool(_) => prop_assert_eq!(&schema["type"], "boolean"),
            Value::Null | Value::Array(_) => prop_assert!(false, "{value} was printed"),
        }
        Ok(())
    }

    fn chart_schema() -> Value {
        let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/chart/values.schema.json");
        serde_json::from_str(&std::fs::read_to_string(schema).unwrap()).unwrap()
    }

    /// One or both strategies, with any number of replicas.
    fn sharing() -> impl Strategy<Value = Value> {
        let replicas = prop_oneof![2_u64..=1100, 2_u64..=1 << 31, Just(u64::try_from(i64::MAX).unwrap())];
        let name = prop::sample::select(vec!["gpu", "nvidia.com/gpu", "mig-1g.10gb", "mig-7g.80gb.me", "a100"]);
        let resource = (name, replicas).prop_map(|(name, replicas)| json!({ "name": name, "replicas": replicas }));
        let strategy = (prop::collection::vec(resource, 1..4), any::<bool>())
            .prop_map(|(resources, renamed)| json!({ "renameByDefault": renamed, "resources": resources }))
            .boxed();
        (prop::option::of(strategy.clone()), prop::option::of(strategy))
            .prop_map(|(mps, time_slicing)| json!({ "sharing": { "mps": mps, "timeSlicing": time_slicing } }))
    }

    proptest! {
        #[test]
        fn the_chart_takes_the_values(config in sharing(), max_shares in prop::option::of(MAX_TIME_SLICES)) {
            let cluster = Cluster { max_shares, ..Cluster::default() };
            let input = serde_saphyr::to_string(&config).unwrap();
            let values = import(&input, Selection::default(), &cluster, &"gpu.nvidia.com".parse().unwrap()).unwrap().values;
            if !values.is_empty() {
                conforms(&serde_saphyr::from_str(&values).unwrap(), &chart_schema())?;
            }
        }

        #[test]
        fn any_text_gives_an_answer_or_an_error(input in "(?s).{0,200}") {
            if let Ok(imported) = outcome(&input) {
                well_formed(&imported)?;
            }
        }

        #[test]
        fn any_yaml_gives_an_answer_or_an_error(value in prop_oneof![anything(), configuration()]) {
            match outcome(&serde_saphyr::to_string(&value).unwrap()) {
                Ok(imported) => well_formed(&imported)?,
                Err(error) => prop_assert!(!chain(&error).to_string().is_empty()),
            }
        }

        #[test]
        fn each_profile_of_a_layout_has_one_class_and_one_template(value in layouts()) {
            let imported = outcome(&serde_saphyr::to_string(&value).unwrap()).unwrap();
            well_formed(&imported)?;
            let text = value.to_string();
            for profile in ["1g.10gb", "1g.10gb+me", "1c.3g.40gb", "2g.48gb-me", "7g.141gb"] {
                let expect = usize::from(text.contains(&format!("\"{profile}\":")));
                let name = profile.replace('+', ".");
                let printed = |line: String| imported.objects.matches(&line).count();
                prop_assert_eq!(printed(format!("\n  extendedResourceName: nvidia.com/mig-{name}\n")), expect);
                prop_assert_eq!(printed(format!("\n  name: mig-{name}.nvidia.com\n")), expect);
                prop_assert_eq!(printed(format!("\n  name: mig-{name}\n")), expect);
                prop_assert_eq!(printed(format!("\n          deviceClassName: mig-{name}.nvidia.com\n")), expect);
            }
            let whole = usize::from(text.contains("\"mig-enabled\":false"));
            prop_assert_eq!(imported.objects.matches("\n          deviceClassName: gpu.nvidia.com\n").count(), whole);
        }

        #[test]
        fn a_configuration_in_a_config_map_is_the_same(value in configuration()) {
            let bare = serde_saphyr::to_string(&value).unwrap();
            let map = serde_saphyr::to_string(&json!({"kind": "ConfigMap", "data": {"any": bare}})).unwrap();
            let (bare, map) = (outcome(&bare).map(|i| i.values).ok(), outcome(&map).map(|i| i.values).ok());
            prop_assert_eq!(bare, map);
        }
    }

    #[test]
    fn a_wrong_type_is_refused_with_its_path() {
        for (input, expect) in [
            (
                "sharing: {mps: {resources: [{name: gpu, replicas: '4'}]}}",
                "sharing.mps.resources[0].replicas is a string, expected a whole number",
            ),
            (
                "sharing: {mps: {resources: [{name: gpu, replicas: 4.5}]}}",
                "sharing.mps.resources[0].replicas is a number, expected a whole number",
            ),
            (
                "sharing: {mps: {resources: [{name: 1, replicas: 4}]}}",
                "sharing.mps.resources[0].name is a number, expected a string",
            ),
            ("sharing: {mps: {resources: {name: gpu}}}", "sharing.mps.resources is a mapping, expected a list"),
            ("sharing: {mps: {resources: [gpu]}}", "sharing.mps.resources[0] is a string, expected a mapping"),
            (
                "sharing: {mps: {renameByDefault: 'true', resources: []}}",
                "sharing.mps.renameByDefault is a string, expected true or false",
            ),
            (
                "sharing: {mps: {failRequestsGreaterThanOne: 1, resources: []}}",
                "sharing.mps.failRequestsGreaterThanOne is a number, expected true or false",
            ),
            ("sharing: [mps]", "sharing is a list, expected a mapping"),
            ("flags: {migStrategy: 1}", "flags.migStrategy is a number, expected a string"),
            ("flags: {plugin: 1}", "flags.plugin is a number, expected a mapping"),
            ("version: 1", "version is a number, expected a string"),
            ("version: v2", "version is \"v2\", expected v1"),
            ("sharing: {mps: {}}", "sharing.mps has no resources, without which the plugin does not start"),
            (
                "sharing: {mps: {resources: [{name: gpu}]}}",
                "sharing.mps.resources[0] has no replicas, without which the plugin does not start",
            ),
            (
                "sharing: {mps: {resources: [{replicas: 4}]}}",
                "sharing.mps.resources[0] has no name, without which the plugin does not start",
            ),
            (
                "sharing: {mps: {resources: [{name: acme.com/gpu, replicas: 4}]}}",
                "sharing.mps.resources[0].name is \"acme.com/gpu\", expected nvidia.com/gpu or nvidia.com/mig-<profile>",
            ),
            (
                "sharing: {mps: {resources: [{name: , replicas: 4}]}}",
                "sharing.mps.resources[0] has no name, without which the plugin does not start",
            ),
            ("version: v1\nsharing: 1\nversion: v1", "duplicate key \"version\" in lines 1 and 3"),
            (
                "version: v1\nsharing:\n  mps:\n    resources: [{name: gpu, replicas: 2,\n      replicas: 3}]",
                "duplicate key \"replicas\" in lines 4 and 5",
            ),
            ("kind: ConfigMap\ndata: {a: 'sharing: 1'}", "data.a.sharing is a number, expected a mapping"),
        ] {
            let error = outcome(input).unwrap_err();
            assert!(chain(&error).to_string().ends_with(expect), "{input}: {}", chain(&error));
        }
    }

    /// Deep nesting and recursive aliases are errors and exhaust neither stack nor memory.
    #[test]
    fn hostile_yaml_is_refused() {
        let lines: Vec<String> = (0..40).map(|i| format!("a{}: &a{} [*a{i}, *a{i}]\n", i + 1, i + 1)).collect();
        let bomb = lines.concat();
        for input in ["[".repeat(100_000), "{\"sharing\": ".repeat(100_000), format!("sharing: 1\na0: &a0 [x]\n{bomb}")]
        {
            assert!(outcome(&input).is_err());
        }
    }
}
