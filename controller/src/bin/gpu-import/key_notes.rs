// SPDX-License-Identifier: Apache-2.0
//! What is to be said of a key, whatever number stands there: a table of sentences, and one of names that circulate.

use serde_json::Value;

/// A key that says the same whatever its value is, except for values that change nothing.
struct KeyNote {
    /// Below the configuration, without list indexes.
    key: &'static str,
    /// The value, as JSON, that asks for what happens anyway.
    no_effect: &'static str,
    text: &'static str,
}

const DEVICES_BY_CDI: &str = "not imported: how the plugin hands devices to containers; here that is always CDI";
const NO_LABELS: &str = "not imported: this driver writes no node labels; select devices by their attributes with CEL";
const NOT_HANDED_OUT: &str = "not imported: this driver does not hand these device nodes to containers";
const HEALTH: &str = "not imported: this driver has no settings for health checks";

const KEY_NOTES: [KeyNote; 30] = [
    KeyNote {
        key: "flags.failOnInitError",
        no_effect: "true",
        text: "not imported: false made the plugin wait for ever without a word where it found no working driver; \
               here such a node publishes no device and has the Event DriverMissing",
    },
    KeyNote {
        key: "flags.nvidiaDriverRoot",
        no_effect: "\"/\"",
        text: "not imported: say where the driver is installed with the chart's `driver.root`",
    },
    KeyNote {
        key: "flags.nvidiaDevRoot",
        no_effect: "\"/\"",
        text: "not imported: device nodes are found with the chart's `driver.root`, or else with the chart's \
               `driver.devDir`",
    },
    KeyNote { key: "flags.gdrcopyEnabled", no_effect: "false", text: NOT_HANDED_OUT },
    KeyNote { key: "flags.gdsEnabled", no_effect: "false", text: NOT_HANDED_OUT },
    KeyNote { key: "flags.mofedEnabled", no_effect: "false", text: NOT_HANDED_OUT },
    KeyNote { key: "flags.useNodeFeatureAPI", no_effect: "", text: NO_LABELS },
    KeyNote {
        key: "flags.deviceDiscoveryStrategy",
        no_effect: "\"auto\"",
        text: "not imported: this driver finds GPUs with NVML",
    },
    KeyNote { key: "flags.restartOnDeviceUnhealthy", no_effect: "", text: HEALTH },
    KeyNote { key: "flags.health", no_effect: "", text: HEALTH },
    KeyNote {
        key: "flags.resourceNamePrefix",
        no_effect: "\"nvidia.com\"",
        text: "not imported: the classes printed here begin with nvidia.com",
    },
    KeyNote { key: "flags.plugin.passDeviceSpecs", no_effect: "", text: DEVICES_BY_CDI },
    KeyNote { key: "flags.plugin.deviceListStrategy", no_effect: "", text: DEVICES_BY_CDI },
    KeyNote { key: "flags.plugin.deviceIDStrategy", no_effect: "", text: DEVICES_BY_CDI },
    KeyNote { key: "flags.plugin.cdiAnnotationPrefix", no_effect: "", text: DEVICES_BY_CDI },
    KeyNote { key: "flags.plugin.cdiFeatureFlags", no_effect: "", text: DEVICES_BY_CDI },
    KeyNote { key: "flags.plugin.nvidiaCTKPath", no_effect: "", text: DEVICES_BY_CDI },
    KeyNote { key: "flags.plugin.nvidiaCDIHookPath", no_effect: "", text: DEVICES_BY_CDI },
    KeyNote { key: "flags.plugin.containerDriverRoot", no_effect: "", text: DEVICES_BY_CDI },
    KeyNote {
        key: "flags.plugin.mpsRoot",
        no_effect: "",
        text: "not imported: here MPS daemons keep their files in /run/gpu-dra/mps, and nothing sets another place",
    },
    KeyNote { key: "flags.gfd", no_effect: "", text: NO_LABELS },
    KeyNote {
        key: "resources",
        no_effect: "",
        text: "the plugin drops this section (its log says so): no resource was ever renamed by it; \
               write DeviceClasses with the names and selectors you want",
    },
    KeyNote { key: "imex", no_effect: "", text: "not imported: this driver does not hand out IMEX channels" },
    KeyNote { key: "health", no_effect: "", text: HEALTH },
    KeyNote {
        key: "sharing.mps.failRequestsGreaterThanOne",
        no_effect: "true",
        text: "most versions of the plugin take false for true with MPS, so a request for two never was admitted; \
               each template printed here asks for one share",
    },
    KeyNote {
        key: "sharing.timeSlicing.failRequestsGreaterThanOne",
        no_effect: "",
        text: "a request for two replicas never meant two GPUs or twice the time, and true refused it only after \
               scheduling, with a pod to delete by hand; here each template asks for one share, and nothing refuses a \
               pod that asks for `nvidia.com/…: 2`",
    },
    KeyNote {
        key: "sharing.timeSlicing.strategy",
        no_effect: "\"\"",
        text: "the plugin never had a strategy to choose; leave the key out",
    },
    KeyNote {
        key: "sharing.*.resources.rename",
        no_effect: "",
        text: "the plugin reads this name and drops it: only renameByDefault renames, to `<name>.shared`; \
               the class printed here has the name that was really advertised, change its extendedResourceName if you like",
    },
    KeyNote {
        key: "sharing.*.resources.devices",
        no_effect: "\"all\"",
        text: "the plugin reads this choice and drops it: it shared all GPUs of the node; here a request chooses its GPU \
               with a CEL selector, and GPUs nobody shares stay whole",
    },
    KeyNote {
        key: "sharing.*.resources.memoryGB",
        no_effect: "",
        text: "only forks of the plugin know this key; ask for memory in capacity.requests of the template",
    },
];

/// Names that circulate, and what is true of them.
const MISNAMED_KEYS: [(&str, &str); 8] = [
    ("renameBy", "the plugin skips this key in silence: it is spelled renameByDefault, so nothing was renamed"),
    ("failRequestGreaterThanOne", "the plugin skips this key in silence: it is spelled failRequestsGreaterThanOne"),
    (
        "NVIDIA_CDI_ENABLED",
        "the plugin has no such setting; CDI was its DEVICE_LIST_STRATEGY=cdi-cri, and here it is always on",
    ),
    (
        "NVIDIA_MIG_MONITOR_ALL_DEVICES",
        "the plugin has no such setting; MIG was its MIG_STRATEGY, and here every MIG device is published",
    ),
    ("resource-names", "the plugin has no such flag; write DeviceClasses with the names you want"),
    ("--resource-names", "the plugin has no such flag; write DeviceClasses with the names you want"),
    ("resourceNames", "the plugin has no such key; write DeviceClasses with the names you want"),
    ("resourceNamePrefix", "the plugin looks for this key under flags only, and skips it here in silence"),
];

/// The sentence of a key that was read, unless its value asks for what happens anyway.
pub(crate) fn of_known(key: &str, value: &Value) -> Option<&'static str> {
    let note = KEY_NOTES.iter().find(|note| note.key.eq_ignore_ascii_case(key))?;
    let no_effect = serde_json::from_str::<Value>(note.no_effect).is_ok_and(|no_effect| no_effect == *value);
    (!no_effect && !value.is_null()).then_some(note.text)
}

/// Whether there is something to say about a key.
pub(crate) fn is_known(key: &str) -> bool {
    KEY_NOTES.iter().any(|note| note.key.eq_ignore_ascii_case(key))
}

/// What is true of a name that circulates.
pub(crate) fn misnamed(key: &str) -> Option<&'static str> {
    MISNAMED_KEYS.iter().find(|(name, _)| *name == key).map(|(_, text)| *text)
}

/// Where a flag of the plugin has its place.
pub(crate) fn section_of_flag(key: &str) -> Option<&'static str> {
    let below = |section: &str| KEY_NOTES.iter().any(|note| note.key.strip_prefix(section) == Some(key));
    if below("flags.") {
        Some("below flags")
    } else if below("flags.plugin.") {
        Some("below flags.plugin")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_one_line_without_a_full_stop() {
        let note = KEY_NOTES.iter().map(|note| note.text).chain(MISNAMED_KEYS.iter().map(|(_, text)| *text));
        for text in note {
            assert!(!text.contains('\n') && !text.contains("  ") && !text.ends_with('.'), "{text}");
        }
    }

    #[test]
    fn values_that_change_nothing_are_passed_over() {
        let warned = |key: &str, value| of_known(key, &value).is_some();
        assert!(!warned("flags.failOnInitError", serde_json::json!(true)));
        assert!(warned("flags.failOnInitError", serde_json::json!(false)));
        assert!(!warned("flags.gfd", Value::Null));
    }
}
