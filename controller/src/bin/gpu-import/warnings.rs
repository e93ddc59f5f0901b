// SPDX-License-Identifier: Apache-2.0
//! What a key of a device plugin's configuration did that its author may not expect, or does not do here.
//!
//! The one place with these sentences, beside those of `lessons`. What the plugin does is read from its source (since v0.15, which brought MPS):
//! keys it does not know are skipped in silence, `rename`, `devices` and the section `resources` are read and dropped
//! (`DisableResourceNamingInConfig`), and with both strategies only MPS is served (`Sharing.ReplicatedResources`).

use std::fmt;

use serde_json::Value;

use crate::key_notes::{self, misnamed};

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

/// What a key that was read says, unless its value asks for what happens anyway.
pub(crate) fn of_known(key: &str, path: &str, value: &Value) -> Option<Warning> {
    key_notes::of_known(key, value).map(|text| warning(path, text))
}

/// A key the plugin does not know here; `known` are the ones it does, where they are few, and `place` is where it
/// would know this one.
pub(crate) fn unknown(path: &str, key: &str, known: &[&str], place: Option<&str>) -> Warning {
    if let Some(text) = misnamed(key) {
        return warning(path, text);
    }
    if is_environment(key) {
        return warning(path, "a name of an environment variable: the plugin skips it in this file in silence");
    }
    if let Some(name) = known.iter().find(|name| name.eq_ignore_ascii_case(key)) {
        return warning(path, format!("the plugin skips this key in silence: it is spelled {name}"));
    }
    match place {
        Some(place) => warning(path, format!("the plugin skips this key here in silence: it belongs {place}")),
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
    match misnamed(key) {
        Some(text) => warning(path, text),
        None if is_environment(key) => {
            warning(path, "a name of an environment variable: as a key of this ConfigMap it sets nothing")
        }
        None => warning(path, "no configuration of the device plugin; skipped"),
    }
}

/// Whether that is the name of a setting and not of a file.
pub(crate) fn is_setting(key: &str) -> bool {
    is_environment(key) || misnamed(key).is_some()
}

/// A file with more than one document.
pub(crate) fn later_document(path: &str) -> Warning {
    warning(path, "the plugin reads the first YAML document of a file alone, and so is this import")
}

/// A file of a ConfigMap that is for mig-parted.
pub(crate) fn mig_layout(path: &str) -> Warning {
    warning(path, "a layout of MIG devices for mig-parted, which shares nothing; skipped")
}

/// A file of a ConfigMap that nobody can read.
pub(crate) fn unreadable(path: &str, why: &impl fmt::Display) -> Warning {
    warning(path, format!("skipped, because it is not YAML: {why}"))
}

/// DuplicateKey that stand beside `sharing` instead of below it.
pub(crate) fn lost_indentation(path: &str, keys: &[&str]) -> Warning {
    let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    let (last, others) =
        keys.split_last().map_or((String::new(), String::new()), |(last, others)| (last.clone(), others.join(", ")));
    let (subject, verb) =
        if others.is_empty() { (last, "belongs") } else { (format!("{others} and {last}"), "belong") };
    let text = format!("`sharing` is empty; {subject} {verb} below it, indented, and the plugin shared nothing");
    warning(path, text)
}

/// A choice of devices that the plugin cannot read.
pub(crate) fn no_choice(path: &str) -> Warning {
    let text = "the plugin refuses the whole file for this value, so it shared nothing: it reads only `all`, a number of \
                devices, or a list of indexes and UUIDs, and drops even those; leave the key out, here a request chooses \
                its GPU with a CEL selector";
    warning(path, text)
}

/// A resource with more than one entry.
pub(crate) fn named_again(path: &str, name: &str, replicas: u64) -> Warning {
    let text = format!(
        "{name} has an entry before this one: to the plugin each is for all GPUs of the node, and the highest number \
         counts for all, {replicas}; here each GPU can be shared in its own way: a request chooses one with a CEL selector"
    );
    warning(path, text)
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
pub(crate) fn memory_from_flag(share: &str, replicas: u32) -> Warning {
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
pub(crate) fn unchanged_name(path: &str, name: &str) -> Warning {
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

/// `LIKE_THIS`.
fn is_environment(key: &str) -> bool {
    key.contains('_') && key.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    /// Any sentence of this program that sends its reader to the chart.
    #[test]
    fn values_of_the_chart_that_are_named_exist() {
        let chart = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/chart/values.yaml"));
        let chart: Value = serde_saphyr::from_str(chart).unwrap();
        let sentences = [include_str!("warnings.rs"), include_str!("key_notes.rs")];
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
