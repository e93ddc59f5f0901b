// SPDX-License-Identifier: Apache-2.0
//! What every key of a device plugin's configuration did that its author may not expect, or does not do here.
//!
//! The one place with these sentences. What the plugin does is read from its source (since v0.15, which brought MPS):
//! keys it does not know are skipped in silence, `rename`, `devices` and the section `resources` are read and dropped
//! (`DisableResourceNamingInConfig`), and with both strategies only MPS is served (`Sharing.ReplicatedResources`).

use std::fmt;

use serde_json::Value;

/// A key and what its author should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Warning {
    /// Where the key is.
    pub(crate) path: String,
    text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.text)
    }
}

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

/// What a key that was read says, unless its value asks for what happens anyway.
pub(crate) fn of_known(key: &str, path: &str, value: &Value) -> Option<Warning> {
    let lesson = LESSONS.iter().find(|lesson| lesson.key.eq_ignore_ascii_case(key))?;
    let harmless = serde_json::from_str::<Value>(lesson.harmless).is_ok_and(|harmless| harmless == *value);
    (!harmless && !value.is_null()).then(|| warning(path, lesson.text))
}

/// Whether there is something to say about a key.
pub(crate) fn is_known(key: &str) -> bool {
    LESSONS.iter().any(|lesson| lesson.key.eq_ignore_ascii_case(key))
}

/// A key the plugin does not know; `known` are the ones it does, where they are few.
pub(crate) fn unknown(path: &str, key: &str, known: &[&str]) -> Warning {
    if let Some(text) = mistaken(key) {
        return warning(path, text);
    }
    if is_environment(key) {
        return warning(path, "a name of an environment variable: the plugin skips it in this file in silence");
    }
    match known.iter().find(|name| name.eq_ignore_ascii_case(key)) {
        Some(name) => warning(path, format!("the plugin skips this key in silence: it is spelled {name}")),
        None if known.is_empty() => warning(path, "the plugin skips this key in silence"),
        None => warning(path, format!("the plugin skips this key in silence; it knows {} here", known.join(", "))),
    }
}

/// A key in other letters than its documentation has; Go's encoding/json does not mind.
pub(crate) fn other_case(path: &str, name: &str) -> Warning {
    warning(path, format!("read as {name}, as the plugin does"))
}

/// Something in a ConfigMap that is not for the plugin.
pub(crate) fn not_a_configuration(path: &str, key: &str) -> Warning {
    match mistaken(key) {
        Some(text) => warning(path, text),
        None if is_environment(key) => {
            warning(path, "a name of an environment variable: as a key of this ConfigMap it sets nothing")
        }
        None => warning(path, "no configuration of the device plugin; skipped"),
    }
}

/// `replicas` below two.
pub(crate) fn not_shared(path: &str, replicas: i64) -> Warning {
    let text = format!(
        "the plugin refuses the whole file for {replicas}, its smallest number is 2; taken as `not shared`: \
         ask for a whole GPU with class gpu.nvidia.com"
    );
    warning(path, text)
}

/// More replicas than MPS has percents.
pub(crate) fn more_than_percents(path: &str, replicas: u64, fit: u32) -> Warning {
    let text = format!("a share has 1 % of the threads or more, so {fit} shares fit on a GPU and not {replicas}");
    warning(path, text)
}

/// More replicas than time-slicing has shares.
pub(crate) fn more_than_slices(path: &str, replicas: u64, fit: u32) -> Warning {
    let text = format!(
        "this driver makes {fit} shares of a GPU at most, so {fit} fit and not {replicas}; where replicas counted memory, \
         ask for an amount of it in capacity.requests of the template"
    );
    warning(path, text)
}

/// More shares than a GPU has units of memory.
pub(crate) fn less_than_a_unit(path: &str, shares: u32, total: &str) -> Warning {
    warning(path, format!("a share has 1Mi of memory or more, so {shares} of them do not fit on a GPU with {total}"))
}

/// More replicas than an MPS server has clients.
pub(crate) fn more_than_clients(path: &str, replicas: u64) -> Warning {
    let text = format!(
        "an MPS server takes 48 client processes (60 from CUDA 13.1), so {replicas} shares of a GPU never all worked at once"
    );
    warning(path, text)
}

/// Nothing divides what a share gets when the number of time slices is fixed.
pub(crate) fn does_not_divide(path: &str, replicas: u32, max_shares: u32, fit: u32) -> Warning {
    let text = format!(
        "{max_shares} shares per GPU cannot be {replicas} equal ones: {fit} fit; set the chart's \
         `sharing.timeSlicing.maxShares` to a multiple of {replicas}"
    );
    warning(path, text)
}

/// Extended resources ask for default shares only.
pub(crate) fn default_share_only(path: &str, advertised: &str, max_shares: u32) -> Warning {
    let text = format!(
        "pods that ask for {advertised} take one of {max_shares} shares, because extended resources cannot ask for more; \
         only the template asks for the same part of the GPU as before"
    );
    warning(path, text)
}

/// GPUs of several sizes.
pub(crate) fn several_sizes(path: &str, replicas: u32, sizes: &str) -> Warning {
    let text = format!(
        "the GPUs have {sizes}, and no amount is 1/{replicas} of each: memory is left to the default share, \
         which needs the chart values of this import"
    );
    warning(path, text)
}

/// Memory that a person typed.
pub(crate) fn typed_memory(share: &str, replicas: u32) -> Warning {
    let text = format!(
        "a share of {share} fits {replicas} times only where the driver publishes that much memory (an 80 GB GPU has \
         less than 80Gi); --slices reads the true amount"
    );
    warning("--memory", text)
}

/// GPUs of which some have no memory to ask for.
pub(crate) fn no_memory_published(all: bool) -> Warning {
    let which = if all { "the GPUs" } else { "some of the GPUs" };
    let text = format!(
        "{which} publish no memory, which their NVIDIA driver does not tell, so no share of it is asked for in the templates"
    );
    warning("--slices", text)
}

/// Nothing in the slices to divide.
pub(crate) fn no_gpu_published() -> Warning {
    warning("--slices", "no GPU of this driver in there: memory is left to the default share")
}

/// The name of whole GPUs was used for parts of them.
pub(crate) fn kept_name(path: &str, name: &str) -> Warning {
    let text = format!(
        "without it {name} means a part of a GPU, two of which may be of the same one; the class printed here keeps \
         that for old pods, and whole GPUs are asked for with class gpu.nvidia.com"
    );
    warning(path, text)
}

/// Both strategies; the plugin knows one.
pub(crate) fn both_strategies(path: &str) -> Warning {
    let text = "the plugin serves one strategy per node and skips this one in silence while sharing.mps is there; here both \
                work side by side: its templates are printed, the extended resources stand for MPS";
    warning(path, text)
}

/// MIG devices with time-slicing.
pub(crate) fn mig_replicas(path: &str, replicas: u64) -> Warning {
    let text = format!(
        "{replicas} replicas were {replicas} names for one MIG device, so a pod that asked for ten saw fewer; here one device \
         is one MIG device: let containers and pods share it by naming one ResourceClaim, or cut smaller profiles"
    );
    warning(path, text)
}

/// MIG devices with MPS.
pub(crate) fn mig_by_mps(path: &str) -> Warning {
    let text = "the plugin has no MPS on MIG devices, so this entry never worked; here a claim of class mig.nvidia.com may \
                ask for it with `sharing: {strategy: MPS}` in its configuration";
    warning(path, text)
}

/// MIG resources without the strategy that makes them.
pub(crate) fn mig_without_mixed(path: &str) -> Warning {
    warning(
        path,
        "the plugin has resources of this name only with flags.migStrategy mixed, so this entry never matched",
    )
}

/// A profile that no device has.
pub(crate) fn profile_not_published(path: &str, profile: &str, published: &str) -> Warning {
    warning(path, format!("no published MIG device has profile {profile}; there are: {published}"))
}

/// MIG devices under the name of whole GPUs.
pub(crate) fn mig_as_gpu(path: &str) -> Warning {
    let text = "with single, nvidia.com/gpu was a MIG device on nodes cut into MIG; here it never is: \
                ask for those with class mig.nvidia.com";
    warning(path, text)
}

/// A strategy for MIG that the plugin does not know.
pub(crate) fn mig_strategy(path: &str) -> Warning {
    warning(path, "the plugin knows none, single and mixed, and refuses the whole file for anything else")
}

/// A resource that no device has.
pub(crate) fn no_such_resource(path: &str, name: &str) -> Warning {
    let text = format!(
        "the plugin has no resource named {name}, only nvidia.com/gpu and nvidia.com/mig-<profile>: it shared nothing"
    );
    warning(path, text)
}

/// Any other sentence. It becomes a comment, so whatever could end a line is taken out.
pub(crate) fn warning(path: &str, text: impl Into<String>) -> Warning {
    let ends_line = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    Warning { path: path.to_owned(), text: text.into().replace(ends_line, "?") }
}

fn mistaken(key: &str) -> Option<&'static str> {
    MISTAKEN.iter().find(|(name, _)| *name == key).map(|(_, text)| *text)
}

/// `LIKE_THIS`.
fn is_environment(key: &str) -> bool {
    key.contains('_') && key.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
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

    /// Any sentence of this file that sends its reader to the chart.
    #[test]
    fn values_of_the_chart_that_are_named_exist() {
        let chart = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/chart/values.yaml"));
        let chart: Value = serde_saphyr::from_str(chart).unwrap();
        let sentences = include_str!("warnings.rs").split("#[cfg(test)]").next().unwrap();
        let sentences = sentences.split_whitespace().filter(|word| *word != "\\").collect::<Vec<_>>().join(" ");
        let named: Vec<_> =
            sentences.split("the chart's `").skip(1).filter_map(|rest| rest.split('`').next()).collect();
        assert!(named.len() > 3, "{named:?}");
        for name in named {
            assert!(chart.pointer(&format!("/{}", name.replace('.', "/"))).is_some(), "the chart has no value {name}");
        }
    }

    #[test]
    fn values_that_change_nothing_are_passed_over() {
        let said = |key: &str, value| of_known(key, key, &value).is_some();
        assert!(!said("flags.failOnInitError", serde_json::json!(true)));
        assert!(said("flags.failOnInitError", serde_json::json!(false)));
        assert!(!said("flags.gfd", Value::Null));
    }
}
