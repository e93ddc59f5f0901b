// SPDX-License-Identifier: Apache-2.0
//! Warnings about keys of a device plugin's configuration with an unexpected effect, or without an effect in this driver.
//!
//! Further texts are in `key_notes`. The behaviour of the plugin is from its source (since v0.15, which added MPS): unknown keys are
//! ignored silently, `rename`, `devices` and the section `resources` are parsed and ignored (`DisableResourceNamingInConfig`), and with
//! both strategies only MPS is served (`Sharing.ReplicatedResources`).

use std::fmt;

use serde_json::Value;

use crate::key_notes::{self, misnamed};

/// A warning about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub path: String,
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.text)
    }
}

/// The note on a known key, unless its value has no effect.
pub fn of_known(key: &str, path: &str, value: &Value) -> Option<Warning> {
    key_notes::of_known(key, value).map(|text| warning(path, text))
}

/// A key that the plugin does not know at its path; `known` are the keys of the section if they are few, `place` is the section in
/// which the plugin knows the key.
pub fn unknown(path: &str, key: &str, known: &[&str], place: Option<&str>) -> Warning {
    if let Some(text) = misnamed(key) {
        return warning(path, text);
    }
    if is_environment(key) {
        return warning(path, "a name of an environment variable, which the plugin ignores silently in this file");
    }
    if let Some(name) = known.iter().find(|name| name.eq_ignore_ascii_case(key)) {
        return warning(path, format!("the plugin ignores this key silently: the name is {name}"));
    }
    match place {
        Some(place) => warning(path, format!("the plugin ignores this key silently here: it belongs {place}")),
        None if known.is_empty() => warning(path, "the plugin ignores this key silently"),
        None => warning(path, format!("the plugin ignores this key silently; the known keys are {}", known.join(", "))),
    }
}

/// A key in another case than documented, which Go's encoding/json accepts.
pub fn other_case(path: &str, name: &str) -> Warning {
    warning(path, format!("read as {name}, as the plugin does"))
}

/// An entry of a ConfigMap that is no configuration.
pub fn not_a_configuration(path: &str, key: &str) -> Warning {
    match misnamed(key) {
        Some(text) => warning(path, text),
        None if is_environment(key) => {
            warning(path, "a name of an environment variable, which has no effect as a key of this ConfigMap")
        }
        None => warning(path, "not a configuration of the device plugin; ignored"),
    }
}

/// Whether a key is the name of a setting and not of a file.
pub fn is_setting(key: &str) -> bool {
    is_environment(key) || misnamed(key).is_some()
}

/// A file with more than one document.
pub fn later_document(path: &str) -> Warning {
    warning(path, "the plugin reads only the first YAML document of a file, as does this import")
}

/// A file that is for mig-parted, beside one for the device plugin.
pub fn mig_layouts(path: &str) -> Warning {
    let text = "layouts of MIG devices for mig-parted, not imported together with a sharing configuration; choose one of them with \
                --mig-config";
    warning(path, text)
}

/// A file of a ConfigMap that is not YAML.
pub fn unreadable(path: &str, why: &impl fmt::Display) -> Warning {
    warning(path, format!("not YAML, ignored: {why}"))
}

/// Keys that stand beside `sharing` instead of below it.
pub fn lost_indentation(path: &str, keys: &[&str]) -> Warning {
    let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    let (last, others) =
        keys.split_last().map_or((String::new(), String::new()), |(last, others)| (last.clone(), others.join(", ")));
    let (subject, verb) =
        if others.is_empty() { (last, "belongs") } else { (format!("{others} and {last}"), "belong") };
    let text = format!("`sharing` is empty, so the plugin shared nothing; {subject} {verb} below it, indented");
    warning(path, text)
}

/// A selection of devices that the plugin refuses.
pub fn no_choice(path: &str) -> Warning {
    let text = "the plugin refuses the whole file because of this value, so it shared nothing: it accepts `all`, a number of \
                devices, or a list of indexes and UUIDs, and ignores all of them; remove the key, a request selects its GPU \
                with CEL";
    warning(path, text)
}

/// A resource with more than one entry.
pub fn named_again(path: &str, name: &str, replicas: u64) -> Warning {
    let text = format!(
        "{name} has an earlier entry: for the plugin each entry applies to all GPUs of the node, and the highest number, \
         {replicas}, applies; with this driver each GPU can be shared differently, and a request selects one with CEL"
    );
    warning(path, text)
}

/// `replicas` below two.
pub fn not_shared(path: &str, replicas: i64) -> Warning {
    let text = format!(
        "the plugin refuses the whole file because of {replicas}, the minimum is 2; imported as not shared: \
         request a whole GPU with class gpu.nvidia.com"
    );
    warning(path, text)
}

/// More replicas than percent of threads.
pub fn more_than_percents(path: &str, replicas: u64, fit: u32) -> Warning {
    let text = format!("a share has at least 1 % of the threads, so {fit} shares fit on a GPU, not {replicas}");
    warning(path, text)
}

/// More replicas than time-slicing has shares.
pub fn more_than_slices(path: &str, replicas: u64, fit: u32) -> Warning {
    let text = format!(
        "a GPU has at most {fit} shares, so {fit} fit, not {replicas}; if replicas counted memory, \
         request an amount of memory in capacity.requests of the template"
    );
    warning(path, text)
}

/// More shares than MiB of memory.
pub fn less_than_a_unit(path: &str, shares: u32, total: &str) -> Warning {
    warning(path, format!("a share has at least 1Mi of memory, so {shares} shares do not fit on a GPU with {total}"))
}

/// More replicas than an MPS server has clients.
pub fn more_than_clients(path: &str, replicas: u64) -> Warning {
    let text = format!(
        "an MPS server has at most 48 client processes (60 from CUDA 13.1), so {replicas} shares of a GPU never worked at the same time"
    );
    warning(path, text)
}

/// A fixed number of time-slicing shares that cannot be divided.
pub fn does_not_divide(path: &str, replicas: u32, max_shares: u32, fit: u32) -> Warning {
    let text = format!(
        "{max_shares} shares per GPU cannot be divided into {replicas} equal ones: {fit} fit; set the chart's \
         `sharing.timeSlicing.maxShares` to a multiple of {replicas}"
    );
    warning(path, text)
}

/// Extended resources request default shares only.
pub fn default_share_only(path: &str, advertised: &str, max_shares: u32) -> Warning {
    let text = format!(
        "pods that request {advertised} get one of {max_shares} shares, because extended resources cannot request more; \
         only the template requests the same part of the GPU as before"
    );
    warning(path, text)
}

/// GPUs of several sizes.
pub fn several_sizes(path: &str, replicas: u32, sizes: &str) -> Warning {
    let text = format!(
        "the GPUs have {sizes}, and no amount is 1/{replicas} of each: the templates request no memory and get that of the default \
         share, which needs the printed chart values"
    );
    warning(path, text)
}

/// Memory from a flag.
pub fn memory_from_flag(share: &str, replicas: u32) -> Warning {
    let text = format!(
        "a share of {share} fits {replicas} times only if the driver publishes this amount of memory (an 80 GB GPU has \
         less than 80Gi); --slices reads the published amount"
    );
    warning("--memory", text)
}

/// GPUs without published memory.
pub fn no_memory_published(all: bool) -> Warning {
    let which = if all { "the GPUs" } else { "some of the GPUs" };
    let text = format!(
        "{which} have no published memory, because their NVIDIA driver does not report it, so the templates request no memory"
    );
    warning("--slices", text)
}

/// Slices without a GPU of the driver.
pub fn no_gpu_published() -> Warning {
    warning(
        "--slices",
        "no GPU of this driver in the slices: the templates request no memory and get that of the default share",
    )
}

/// The resource name of whole GPUs for shares.
pub fn unchanged_name(path: &str, name: &str) -> Warning {
    let text = format!(
        "without it {name} means a share of a GPU, and two shares may be of the same GPU; the printed class has the same \
         meaning for existing pods, and class gpu.nvidia.com requests whole GPUs"
    );
    warning(path, text)
}

/// Both strategies; the plugin serves one.
pub fn both_strategies(path: &str) -> Warning {
    let text = "the plugin serves one strategy per node and ignores this section silently if sharing.mps exists; this driver serves \
                both: the templates of this section are printed, the extended resources are for MPS";
    warning(path, text)
}

/// MIG devices with time-slicing.
pub fn mig_replicas(path: &str, replicas: u64) -> Warning {
    let text = format!(
        "{replicas} replicas were {replicas} names for one MIG device, so a pod that requested ten had fewer; with this driver a \
         device is one MIG device: containers and pods share it with one ResourceClaim, or create smaller MIG devices"
    );
    warning(path, text)
}

/// MIG devices with MPS.
pub fn mig_by_mps(path: &str) -> Warning {
    let text = "the plugin has no MPS on MIG devices, so this entry never worked; with this driver a claim of class mig.nvidia.com \
                can use it with `sharing: {strategy: MPS}` in its configuration";
    warning(path, text)
}

/// MIG resources without the strategy `mixed`.
pub fn mig_without_mixed(path: &str) -> Warning {
    warning(
        path,
        "the plugin has resources of this name only with flags.migStrategy mixed, so this entry never matched",
    )
}

/// A profile that no device has.
pub fn profile_not_published(path: &str, profile: &str, published: &str) -> Warning {
    warning(path, format!("no published MIG device has profile {profile}; published profiles: {published}"))
}

/// MIG devices under the name of whole GPUs.
pub fn mig_as_gpu(path: &str) -> Warning {
    let text = "with single, nvidia.com/gpu was a MIG device on nodes with MIG; with this driver it never is: \
                request MIG devices with class mig.nvidia.com";
    warning(path, text)
}

/// A strategy for MIG that the plugin does not know.
pub fn mig_strategy(path: &str) -> Warning {
    warning(path, "the plugin accepts none, single and mixed, and refuses the whole file for other values")
}

/// A resource that no device has.
pub fn no_such_resource(path: &str, name: &str) -> Warning {
    let text = format!(
        "the plugin has no resource named {name}, only nvidia.com/gpu and nvidia.com/mig-<profile>: it shared nothing"
    );
    warning(path, text)
}

/// A warning. It is printed as a comment, so characters that end a line are replaced.
pub fn warning(path: &str, text: impl Into<String>) -> Warning {
    let ends_line = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    Warning { path: path.to_owned(), text: text.into().replace(ends_line, "?") }
}

/// `LIKE_THIS`.
fn is_environment(key: &str) -> bool {
    key.contains('_') && key.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    /// Chart values in the texts of this program.
    #[test]
    fn values_of_the_chart_that_are_named_exist() {
        let chart = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/chart/values.yaml"));
        let chart: Value = serde_saphyr::from_str(chart).unwrap();
        let sentences = [include_str!("warnings.rs"), include_str!("key_notes.rs"), include_str!("layout_notes.rs")];
        let sentences = sentences.map(|file| file.split("#[cfg(test)]").next().unwrap()).concat();
        let sentences = sentences.split_whitespace().filter(|word| *word != "\\").collect::<Vec<_>>().join(" ");
        let named: Vec<_> =
            sentences.split("the chart's `").skip(1).filter_map(|rest| rest.split('`').next()).collect();
        assert!(named.len() > 3, "{named:?}");
        for name in named {
            assert!(chart.pointer(&format!("/{}", name.replace('.', "/"))).is_some(), "the chart has no value {name}");
        }
    }
}
