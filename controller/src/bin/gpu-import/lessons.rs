// SPDX-License-Identifier: Apache-2.0
//! What is to be said of a key, whatever number stands there: a table of sentences, and one of names that circulate.

use serde_json::Value;

/// A key that says the same whatever its value is, except for values that change nothing.
struct Lesson {
    /// Below the configuration, without list indexes.
    key: &'static str,
    /// The value, as JSON, that asks for what happens anyway.
    harmless: &'static str,
    text: &'static str,
}

const DEVICES_BY_CDI: &str = "not imported: how the plugin hands devices to containers; here that is always CDI";
const NO_LABELS: &str = "not imported: this driver writes no node labels; select devices by their attributes with CEL";
const NOT_HANDED_OUT: &str = "not imported: this driver does not hand these device nodes to containers";
const HEALTH: &str = "not imported: this driver has no settings for health checks";

const LESSONS: [Lesson; 30] = [
    Lesson {
        key: "flags.failOnInitError",
        harmless: "true",
        text: "not imported: false made the plugin wait for ever without a word where it found no working driver; \
               here such a node publishes no device and has the Event DriverMissing",
    },
    Lesson {
        key: "flags.nvidiaDriverRoot",
        harmless: "\"/\"",
        text: "not imported: say where the driver is installed with the chart's `driver.root`",
    },
    Lesson {
        key: "flags.nvidiaDevRoot",
        harmless: "\"/\"",
        text: "not imported: device nodes are found with the chart's `driver.root`, or else with the chart's \
               `driver.devDir`",
    },
    Lesson { key: "flags.gdrcopyEnabled", harmless: "false", text: NOT_HANDED_OUT },
    Lesson { key: "flags.gdsEnabled", harmless: "false", text: NOT_HANDED_OUT },
    Lesson { key: "flags.mofedEnabled", harmless: "false", text: NOT_HANDED_OUT },
    Lesson { key: "flags.useNodeFeatureAPI", harmless: "", text: NO_LABELS },
    Lesson {
        key: "flags.deviceDiscoveryStrategy",
        harmless: "\"auto\"",
        text: "not imported: this driver finds GPUs with NVML",
    },
    Lesson { key: "flags.restartOnDeviceUnhealthy", harmless: "", text: HEALTH },
    Lesson { key: "flags.health", harmless: "", text: HEALTH },
    Lesson {
        key: "flags.resourceNamePrefix",
        harmless: "\"nvidia.com\"",
        text: "not imported: the classes printed here begin with nvidia.com",
    },
    Lesson { key: "flags.plugin.passDeviceSpecs", harmless: "", text: DEVICES_BY_CDI },
    Lesson { key: "flags.plugin.deviceListStrategy", harmless: "", text: DEVICES_BY_CDI },
    Lesson { key: "flags.plugin.deviceIDStrategy", harmless: "", text: DEVICES_BY_CDI },
    Lesson { key: "flags.plugin.cdiAnnotationPrefix", harmless: "", text: DEVICES_BY_CDI },
    Lesson { key: "flags.plugin.cdiFeatureFlags", harmless: "", text: DEVICES_BY_CDI },
    Lesson { key: "flags.plugin.nvidiaCTKPath", harmless: "", text: DEVICES_BY_CDI },
    Lesson { key: "flags.plugin.nvidiaCDIHookPath", harmless: "", text: DEVICES_BY_CDI },
    Lesson { key: "flags.plugin.containerDriverRoot", harmless: "", text: DEVICES_BY_CDI },
    Lesson {
        key: "flags.plugin.mpsRoot",
        harmless: "",
        text: "not imported: here MPS daemons keep their files in /run/gpu-dra/mps, and nothing sets another place",
    },
    Lesson { key: "flags.gfd", harmless: "", text: NO_LABELS },
    Lesson {
        key: "resources",
        harmless: "",
        text: "the plugin drops this section (its log says so): no resource was ever renamed by it; \
               write DeviceClasses with the names and selectors you want",
    },
    Lesson { key: "imex", harmless: "", text: "not imported: this driver does not hand out IMEX channels" },
    Lesson { key: "health", harmless: "", text: HEALTH },
    Lesson {
        key: "sharing.mps.failRequestsGreaterThanOne",
        harmless: "true",
        text: "most versions of the plugin take false for true with MPS, so a request for two never was admitted; \
               each template printed here asks for one share",
    },
    Lesson {
        key: "sharing.timeSlicing.failRequestsGreaterThanOne",
        harmless: "",
        text: "a request for two replicas never meant two GPUs or twice the time, and true refused it only after \
               scheduling, with a pod to delete by hand; here each template asks for one share, and nothing refuses a \
               pod that asks for `nvidia.com/…: 2`",
    },
    Lesson {
        key: "sharing.timeSlicing.strategy",
        harmless: "\"\"",
        text: "the plugin never had a strategy to choose; leave the key out",
    },
    Lesson {
        key: "sharing.*.resources.rename",
        harmless: "",
        text: "the plugin reads this name and drops it: only renameByDefault renames, to `<name>.shared`; \
               the class printed here has the name that was really advertised, change its extendedResourceName if you like",
    },
    Lesson {
        key: "sharing.*.resources.devices",
        harmless: "\"all\"",
        text: "the plugin reads this choice and drops it: it shared all GPUs of the node; here a request chooses its GPU \
               with a CEL selector, and GPUs nobody shares stay whole",
    },
    Lesson {
        key: "sharing.*.resources.memoryGB",
        harmless: "",
        text: "only forks of the plugin know this key; ask for memory in capacity.requests of the template",
    },
];

/// Names that circulate, and what is true of them.
const MISTAKEN: [(&str, &str); 8] = [
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
    let lesson = LESSONS.iter().find(|lesson| lesson.key.eq_ignore_ascii_case(key))?;
    let harmless = serde_json::from_str::<Value>(lesson.harmless).is_ok_and(|harmless| harmless == *value);
    (!harmless && !value.is_null()).then_some(lesson.text)
}

/// Whether there is something to say about a key.
pub(crate) fn is_known(key: &str) -> bool {
    LESSONS.iter().any(|lesson| lesson.key.eq_ignore_ascii_case(key))
}

/// What is true of a name that circulates.
pub(crate) fn mistaken(key: &str) -> Option<&'static str> {
    MISTAKEN.iter().find(|(name, _)| *name == key).map(|(_, text)| *text)
}

/// Where a flag of the plugin has its place.
pub(crate) fn place_of_flag(key: &str) -> Option<&'static str> {
    let below = |section: &str| LESSONS.iter().any(|lesson| lesson.key.strip_prefix(section) == Some(key));
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
        let lessons = LESSONS.iter().map(|lesson| lesson.text).chain(MISTAKEN.iter().map(|(_, text)| *text));
        for text in lessons {
            assert!(!text.contains('\n') && !text.contains("  ") && !text.ends_with('.'), "{text}");
        }
    }

    #[test]
    fn values_that_change_nothing_are_passed_over() {
        let said = |key: &str, value| of_known(key, &value).is_some();
        assert!(!said("flags.failOnInitError", serde_json::json!(true)));
        assert!(said("flags.failOnInitError", serde_json::json!(false)));
        assert!(!said("flags.gfd", Value::Null));
    }
}
