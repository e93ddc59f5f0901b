// SPDX-License-Identifier: Apache-2.0
//! Flags of the commands that take GPUs out of service and return them.

use std::time::Duration;

use super::form::Form;
use crate::target::Wanted;

/// The GPUs that are meant.
#[derive(Debug, Clone, clap::Args)]
pub struct Gpus {
    /// Name of a device of any form, as `kubectl gpu status` lists them, or UUID of a GPU; the whole GPU is meant
    #[arg(value_name = "DEVICE", required_unless_present = "all")]
    pub device: Option<String>,
    /// Node of the GPU; needed if devices of several nodes have the name
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// All GPUs of the node
    #[arg(long, requires = "node", conflicts_with = "device")]
    pub all: bool,
}

impl Gpus {
    pub fn wanted(&self) -> Wanted<'_> {
        match (&self.device, &self.node) {
            (None, Some(node)) => Wanted::Node(node),
            (device, node) => Wanted::Gpu { name: device.as_deref().unwrap_or_default(), node: node.as_deref() },
        }
    }
}

/// Flags of `faults`.
#[derive(Debug, Clone, clap::Args)]
pub struct Faults {
    /// Only the faults of one node
    pub node: Option<String>,
    /// Prints the answer again when it changes
    #[arg(short, long)]
    pub watch: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    pub output: Form,
}

/// Flags of `top`.
#[derive(Debug, Clone, clap::Args)]
pub struct Top {
    /// Only the GPUs of one node and the pods on them
    pub node: Option<String>,
    /// Lists the pods of all namespaces that hold GPUs, not only those of the namespace
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Namespace of the driver, whose pods measure
    #[arg(long, value_name = "NAME", default_value = "gpu-dra-driver")]
    pub driver_namespace: String,
    /// Prints the answer again when it changes
    #[arg(short, long)]
    pub watch: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    pub output: Form,
}

/// Flags of `drain`.
#[derive(Debug, Clone, clap::Args)]
pub struct Drain {
    #[command(flatten)]
    pub gpus: Gpus,
    /// Only keeps new claims away: pods that use the GPU stay
    #[arg(long)]
    pub no_evict: bool,
    /// Reason, which `kubectl gpu faults` repeats
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Prints what would be done, and changes nothing
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Does it without asking
    #[arg(short, long)]
    pub yes: bool,
    /// Waits until no claim holds the GPU, at most so long [default: 5m]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "5m", value_parser = duration)]
    pub wait: Option<Duration>,
}

/// A number with a unit, such as `90s`, `5m` or `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let total = seconds.and_then(|seconds: u64| number.parse::<u64>().ok()?.checked_mul(seconds));
    total.map(Duration::from_secs).ok_or_else(|| "expected a number with s, m or h, such as 90s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        for (text, expect) in
            [("90s", Some(90)), ("5m", Some(300)), ("1h", Some(3600)), ("5", None), ("m", None), ("1d", None)]
        {
            assert_eq!(duration(text).ok().map(|found| found.as_secs()), expect, "{text}");
        }
    }
}
