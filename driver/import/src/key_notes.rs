// SPDX-License-Identifier: Apache-2.0
//! Notes on keys of the plugin's configuration: a table of known keys, and a table of misnamed keys.

use serde_json::Value;

/// A note on a key, for every value except one that has no effect.
struct KeyNote {
    /// Path in the configuration, without list indexes.
    key: &'static str,
    /// The value without effect, as JSON; empty if every value has a note.
    no_effect: &'static str,
    text: &'static str,
}

const DEVICES_BY_CDI: &str =
    "not imported: it selects how the plugin passes devices to containers; this driver always uses CDI";
const NO_LABELS: &str = "not imported: this driver writes no node labels; select devices by their attributes with CEL";
const NOT_HANDED_OUT: &str = "not imported: this driver does not add these device nodes to containers";
const HEALTH: &str = "not imported: this driver has no settings for health checks";

const KEY_NOTES: [KeyNote; 30] = [
    KeyNote {
        key: "flags.failOnInitError",
        no_effect: "true",
        text: "not imported: with false the device plugin waits silently on a node without a working NVIDIA driver; \
               this driver publishes no device there and records the Event NVIDIADriverUnavailable",
    },
    KeyNote {
        key: "flags.nvidiaDriverRoot",
        no_effect: "\"/\"",
        text: "not imported: set the root of the NVIDIA driver with the chart's `driver.root`",
    },
    KeyNote {
        key: "flags.nvidiaDevRoot",
        no_effect: "\"/\"",
        text: "not imported: set the directory of the device nodes with the chart's `driver.root` or the chart's \
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
        text: "not imported: the printed classes have the prefix nvidia.com",
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
        text: "not imported: MPS daemons of this driver always have their files in /run/gpu-dra/mps",
    },
    KeyNote { key: "flags.gfd", no_effect: "", text: NO_LABELS },
    KeyNote {
        key: "resources",
        no_effect: "",
        text: "the plugin ignores this section with a log message, so it renamed no resource; \
               write DeviceClasses with the wanted names and selectors",
    },
    KeyNote { key: "imex", no_effect: "", text: "not imported: this driver does not support IMEX channels" },
    KeyNote { key: "health", no_effect: "", text: HEALTH },
    KeyNote {
        key: "sharing.mps.failRequestsGreaterThanOne",
        no_effect: "true",
        text: "most versions of the plugin treat false as true with MPS, so a request for two was never admitted; \
               each printed template requests one share",
    },
    KeyNote {
        key: "sharing.timeSlicing.failRequestsGreaterThanOne",
        no_effect: "",
        text: "a request for two replicas never meant two GPUs or twice the time, and true refused it only after \
               scheduling, so that the pod had to be deleted; each printed template requests one share, and a pod that \
               requests `nvidia.com/…: 2` is not refused",
    },
    KeyNote { key: "sharing.timeSlicing.strategy", no_effect: "\"\"", text: "the plugin has no such key; remove it" },
    KeyNote {
        key: "sharing.*.resources.rename",
        no_effect: "",
        text: "the plugin ignores this name: only renameByDefault renames, to `<name>.shared`; \
               the printed class has the advertised name, which its extendedResourceName can change",
    },
    KeyNote {
        key: "sharing.*.resources.devices",
        no_effect: "\"all\"",
        text: "the plugin ignores this selection and shares all GPUs of the node; with this driver a request selects its GPU \
               with CEL, and a GPU without shares can be allocated as a whole",
    },
    KeyNote {
        key: "sharing.*.resources.memoryGB",
        no_effect: "",
        text: "only forks of the plugin have this key; request memory in capacity.requests of the template",
    },
];

/// Common names that the plugin does not know.
const MISNAMED_KEYS: [(&str, &str); 8] = [
    ("renameBy", "the plugin ignores this key silently: the name is renameByDefault, so nothing was renamed"),
    ("failRequestGreaterThanOne", "the plugin ignores this key silently: the name is failRequestsGreaterThanOne"),
    (
        "NVIDIA_CDI_ENABLED",
        "the plugin has no such setting; its setting for CDI is DEVICE_LIST_STRATEGY=cdi-cri, this driver always uses CDI",
    ),
    (
        "NVIDIA_MIG_MONITOR_ALL_DEVICES",
        "the plugin has no such setting; its setting for MIG is MIG_STRATEGY, this driver publishes every MIG device",
    ),
    ("resource-names", "the plugin has no such flag; write DeviceClasses with the wanted names"),
    ("--resource-names", "the plugin has no such flag; write DeviceClasses with the wanted names"),
    ("resourceNames", "the plugin has no such key; write DeviceClasses with the wanted names"),
    ("resourceNamePrefix", "the plugin reads this key below flags only, and ignores it silently here"),
];

/// The note on a known key, unless its value has no effect.
pub fn of_known(key: &str, value: &Value) -> Option<&'static str> {
    let note = KEY_NOTES.iter().find(|note| note.key.eq_ignore_ascii_case(key))?;
    let no_effect = serde_json::from_str::<Value>(note.no_effect).is_ok_and(|no_effect| no_effect == *value);
    (!no_effect && !value.is_null()).then_some(note.text)
}

/// Whether a key is known.
pub fn is_known(key: &str) -> bool {
    KEY_NOTES.iter().any(|note| note.key.eq_ignore_ascii_case(key))
}

/// The note on a misnamed key.
pub fn misnamed(key: &str) -> Option<&'static str> {
    MISNAMED_KEYS.iter().find(|(name, _)| *name == key).map(|(_, text)| *text)
}

/// The section of a flag of the plugin.
pub fn section_of_flag(key: &str) -> Option<&'static str> {
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
