// SPDX-License-Identifier: Apache-2.0
//! Parses the YAML of a mig-parted configuration: a mapping of named configurations, each a list of entries.
//!
//! As in mig-parted (`api/spec/v1`), unknown keys and other types are errors. Only the selected configurations are parsed.

use dra_model::PciIds;

use crate::entry::{self, Entry, Gpus, check_keys, required};
use crate::error::LayoutError;
use crate::field::Field;

const KEYS: [&str; 2] = ["version", "mig-configs"];

/// The selected configurations.
#[derive(Debug)]
pub struct Layouts {
    /// Path of `mig-configs`.
    pub path: String,
    pub entries: Vec<Entry>,
}

impl Layouts {
    /// What the configuration wants of a GPU; the last entry about it counts, because mig-parted applies them in this order.
    /// `index` is the position of the GPU in the PCI order of the node.
    pub fn of_gpu(&self, index: u64, ids: Option<PciIds>) -> Option<&Gpus> {
        self.entries.iter().rev().find(|entry| entry.is_about(index, ids)).map(|entry| &entry.gpus)
    }
}

/// Reads the wanted configuration, or the only one.
pub fn read_one(whole: &Field<'_>, wanted: Option<&str>) -> Result<Layouts, LayoutError> {
    if wanted.is_none()
        && let Some(configs) = whole.at(&["mig-configs"])
        && let named = configs.entries().map_err(LayoutError::Type)?
        && named.len() > 1
    {
        return Err(LayoutError::Several { path: configs.path, names: names(&named) });
    }
    read(whole, wanted)
}

/// Reads the wanted configuration, or all.
pub fn read(whole: &Field<'_>, wanted: Option<&str>) -> Result<Layouts, LayoutError> {
    check_keys(whole, &KEYS)?;
    check_version(&required(whole, "version")?)?;
    let configs = required(whole, "mig-configs")?;
    let named = configs.entries().map_err(LayoutError::Type)?;
    if named.is_empty() {
        return Err(LayoutError::Empty { path: configs.path, wanted: "named configuration" });
    }
    let mut entries = Vec::new();
    for config in selected(&configs.path, named, wanted)? {
        let items = config.items().map_err(LayoutError::Type)?;
        if items.is_empty() {
            return Err(LayoutError::Empty { path: config.path, wanted: "entry" });
        }
        for item in items {
            entries.push(entry::read(&item)?);
        }
    }
    Ok(Layouts { path: configs.path, entries })
}

fn check_version(version: &Field<'_>) -> Result<(), LayoutError> {
    match version.text().map_err(LayoutError::Type)?.unwrap_or_default() {
        "v1" => Ok(()),
        found => Err(LayoutError::Version { path: version.path.clone(), found: found.to_owned() }),
    }
}

fn selected<'a>(
    path: &str,
    configs: Vec<(&'a str, Field<'a>)>,
    wanted: Option<&str>,
) -> Result<Vec<Field<'a>>, LayoutError> {
    let Some(wanted) = wanted else { return Ok(configs.into_iter().map(|(_, config)| config).collect()) };
    if let Some((_, config)) = configs.iter().find(|(name, _)| *name == wanted) {
        return Ok(vec![config.clone()]);
    }
    Err(LayoutError::Unknown { path: path.to_owned(), wanted: wanted.to_owned(), names: names(&configs) })
}

fn names(configs: &[(&str, Field<'_>)]) -> String {
    configs.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use dra_model::explain;
    use serde_json::Value;

    use super::*;
    use crate::device_id::DeviceId;
    use crate::entry::{Limit, MigDevices};
    use crate::profile::Profile;

    fn outcome(input: &str, wanted: Option<&str>) -> Result<Vec<Entry>, String> {
        let value: Value = serde_saphyr::from_str(input).unwrap();
        let layouts = read(&Field::new("", &value), wanted).map_err(|error| explain(&error))?;
        Ok(layouts.entries)
    }

    /// A configuration with one entry of these keys.
    fn of_entry(keys: &str) -> String {
        format!("version: v1\nmig-configs: {{a: [{{{keys}}}]}}")
    }

    #[test]
    fn an_entry_is_read_as_mig_parted_reads_it() {
        let indexes =
            |values: &[u64]| Some(Limit { path: "mig-configs.a[0].devices".to_owned(), values: values.to_vec() });
        let filter = |values: &[&str]| {
            let values = values.iter().map(|text| DeviceId::parse(text).unwrap()).collect();
            Some(Limit { path: "mig-configs.a[0].device-filter".to_owned(), values })
        };
        let parted = |name: &str, count| {
            let path = format!("mig-configs.a[0].mig-devices[\"{name}\"]");
            Gpus::Parted(vec![MigDevices { profile: Profile::parse(name).unwrap(), count, path }])
        };
        for (keys, expect_indexes, expect_filter, gpus) in [
            ("devices: all, mig-enabled: false", None, None, Gpus::Whole),
            ("devices: all, mig-enabled: false, mig-devices: {}", None, None, Gpus::Whole),
            ("devices: all, mig-enabled: true, mig-devices: {}", None, None, Gpus::Parted(Vec::new())),
            ("devices: all, mig-enabled: true, mig-devices: {1g.5gb: 7}", None, None, parted("1g.5gb", 7)),
            ("devices: [0, 2], mig-enabled: false", indexes(&[0, 2]), None, Gpus::Whole),
            ("device-filter: '', devices: all, mig-enabled: false", None, None, Gpus::Whole),
            (
                "device-filter: '0x233010DE', devices: all, mig-enabled: false",
                None,
                filter(&["0x233010DE"]),
                Gpus::Whole,
            ),
            (
                "device-filter: ['0x233010DE', '0x232210DE'], devices: all, mig-enabled: false",
                None,
                filter(&["0x233010DE", "0x232210DE"]),
                Gpus::Whole,
            ),
        ] {
            let entries = outcome(&of_entry(keys), None).unwrap();
            let (indexes, filter) = (expect_indexes, expect_filter);
            let expect = Entry { path: "mig-configs.a[0]".to_owned(), indexes, filter, gpus };
            assert_eq!(entries, [expect], "{keys}");
        }
    }

    #[test]
    fn only_the_wanted_configuration_is_read() {
        let entry = "[{devices: all, mig-enabled: false}]";
        let input = format!("version: v1\nmig-configs: {{a: {entry}, b: {entry}, c: [1]}}");
        let paths =
            |wanted| outcome(&input, wanted).map(|entries| entries.into_iter().map(|entry| entry.path).collect());
        assert_eq!(paths(Some("b")), Ok(vec!["mig-configs.b[0]".to_owned()]));
        assert!(paths(None).unwrap_err().contains("mig-configs.c[0] is a number, expected a mapping"));
        assert_eq!(
            paths(Some("d")).unwrap_err(),
            "mig-configs has no configuration named \"d\", only \"a\", \"b\", \"c\"; choose one of them"
        );
    }

    #[test]
    fn only_the_wanted_or_the_only_configuration_is_read() {
        let one = |input: &str, wanted| {
            let value: Value = serde_saphyr::from_str(input).unwrap();
            read_one(&Field::new("", &value), wanted)
                .map(|layouts| layouts.entries.len())
                .map_err(|error| explain(&error))
        };
        let entry = "[{devices: all, mig-enabled: false}]";
        let several = format!("version: v1\nmig-configs: {{a: {entry}, b: {entry}}}");
        assert_eq!(one(&format!("version: v1\nmig-configs: {{a: {entry}}}"), None), Ok(1));
        assert_eq!(one(&several, Some("b")), Ok(1));
        let refused = "mig-configs has several configurations: \"a\", \"b\"; choose one of them";
        assert_eq!(one(&several, None), Err(refused.to_owned()));
    }

    #[test]
    fn the_last_entry_about_a_gpu_counts() {
        let input = "version: v1\nmig-configs: {a: [\
                     {devices: all, mig-enabled: false}, \
                     {devices: [1, 2], mig-enabled: true, mig-devices: {}}, \
                     {device-filter: '0x233010DE', devices: [2, 3], mig-enabled: false}]}";
        let value: Value = serde_saphyr::from_str(input).unwrap();
        let layouts = read(&Field::new("", &value), None).unwrap();
        let (h100, other) =
            (Some(PciIds { device: 0x2330_10de, subsystem: None }), Some(PciIds { device: 1, subsystem: None }));
        let parted = |index, ids| *layouts.of_gpu(index, ids).unwrap() != Gpus::Whole;
        assert_eq!([0, 1, 2, 3].map(|index| parted(index, h100)), [false, true, false, false]);
        assert_eq!([0, 1, 2, 3].map(|index| parted(index, other)), [false, true, true, false]);
        assert!(parted(2, None));
        let only_listed = Layouts { path: String::new(), entries: layouts.entries.into_iter().skip(1).collect() };
        assert_eq!(only_listed.of_gpu(0, h100), None);
    }

    #[test]
    fn what_mig_parted_refuses_is_refused_with_its_path_and_the_remedy() {
        for (input, expect) in [
            ("mig-configs: {}".to_owned(), "version is missing, mig-parted requires it; add the key"),
            (
                "version: v2\nmig-configs: {}".to_owned(),
                "version is \"v2\", expected v1; convert the configuration to version v1",
            ),
            ("version: 1\nmig-configs: {}".to_owned(), "version is a number, expected a string"),
            (
                "version: v1\nmig-configs: {}".to_owned(),
                "mig-configs is empty, expected at least one named configuration; add one",
            ),
            ("version: v1\nmig-configs: {a: []}".to_owned(), "mig-configs.a is empty, expected at least one entry"),
            (
                "version: v1\nmig-configs: {a: [{}]}\nsharing: {}".to_owned(),
                "sharing is no key of mig-parted, expected version, mig-configs; correct or remove the key",
            ),
            ("version: v1\nmig-configs: [a]".to_owned(), "mig-configs is a list, expected a mapping"),
            (of_entry("mig-enabled: true"), "mig-configs.a[0].devices is missing"),
            (of_entry("devices: all"), "mig-configs.a[0].mig-enabled is missing"),
            (of_entry("devices: all, mig-enabled: true"), "mig-configs.a[0].mig-devices is missing"),
            (
                of_entry("devices: some, mig-enabled: true"),
                "mig-configs.a[0].devices is a string, expected all or a list of GPU indexes",
            ),
            (
                of_entry("devices: [-1], mig-enabled: true"),
                "mig-configs.a[0].devices is a list, expected all or a list of GPU indexes",
            ),
            (
                of_entry("devices: all, mig-enabled: 'yes'"),
                "mig-configs.a[0].mig-enabled is a string, expected true or false",
            ),
            (
                of_entry("device-filter: [1], devices: all, mig-enabled: true"),
                "mig-configs.a[0].device-filter[0] is a number, expected a string",
            ),
            (
                of_entry("device-filter: H100, devices: all, mig-enabled: true"),
                "mig-configs.a[0].device-filter is \"H100\", not a PCI device id; write it as device and vendor, such as 0x233010DE",
            ),
            (
                of_entry("device_filter: x, devices: all, mig-enabled: true"),
                "mig-configs.a[0].device_filter is no key of mig-parted, expected device-filter, devices, mig-enabled, mig-devices",
            ),
        ] {
            let refused = outcome(&input, None).unwrap_err();
            assert!(refused.contains(expect), "{input}: {refused}");
        }
    }

    #[test]
    fn wrong_devices_are_refused_with_their_path_and_the_remedy() {
        let all = "devices: all, mig-enabled: true, mig-devices:";
        for (input, expect) in [
            (
                of_entry("devices: all, mig-enabled: false, mig-devices: {1g.5gb: 7}"),
                "mig-configs.a[0].mig-devices has MIG devices, but mig-enabled is false; set mig-enabled to true, or remove the \
                 devices",
            ),
            (
                of_entry(&format!("{all} {{1g.10: 7}}")),
                "mig-configs.a[0].mig-devices[\"1g.10\"] is not the name of a MIG profile; write it as nvidia-smi mig -lgip prints \
                 it",
            ),
            (
                of_entry(&format!("{all} {{1g.10gb: 0}}")),
                "mig-configs.a[0].mig-devices[\"1g.10gb\"] is 0, expected 1 or more; remove the profile, or set the number",
            ),
            (of_entry(&format!("{all} {{1g.10gb: -1}}")), "[\"1g.10gb\"] is -1, expected 1 or more"),
            (of_entry(&format!("{all} {{1g.10gb: 1.5}}")), "[\"1g.10gb\"] is a number, expected a whole number"),
        ] {
            let refused = outcome(&input, None).unwrap_err();
            assert!(refused.contains(expect), "{input}: {refused}");
        }
    }
}
