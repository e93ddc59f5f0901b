// SPDX-License-Identifier: Apache-2.0
//! What each fault means, what ends it, and what to do: the table *Health of GPUs* of SPECIFICATION.md and docs/runbooks.md in short.

use dra_allocation::device::Taint;
use dra_allocation::node::Effect;
use dra_model::Cause;
use serde::de::IntoDeserializer as _;
use serde::de::value::Error;
use serde::{Deserialize as _, Serialize};

/// The GPU that the advice is about.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub node: &'a str,
    pub gpu: &'a str,
    pub uuid: &'a str,
    pub driver: &'a str,
}

/// Where a taint comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase", tag = "source")]
pub enum By {
    Driver,
    /// `kubectl gpu drain`, with the reason that was given.
    Drain {
        rules: Vec<String>,
        reason: Option<String>,
    },
    /// Rules that this program did not make.
    Rules {
        rules: Vec<String>,
    },
    /// The status of claims, where the slices have no taint.
    Claims,
}

/// A fault in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    pub meaning: String,
    /// What proves that it is over.
    pub ends: String,
    /// What to do, step by step.
    pub next: Vec<String>,
    /// Section of docs/runbooks.md.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runbook: Option<&'static str>,
}

impl Explained {
    fn new(meaning: &str, ends: &str, runbook: Option<&'static str>, next: Vec<String>) -> Self {
        Self { meaning: meaning.to_owned(), ends: ends.to_owned(), next, runbook }
    }

    /// A fault of which only the condition of a claim is known.
    pub fn reported(message: &str, place: Place<'_>) -> Self {
        let next = vec![
            format!("on node {}: `nvidia-smi -i {} -q`", place.node, place.uuid),
            format!("to take it out of service: `{}`", place.drain()),
        ];
        Self::new(message, "when the condition Healthy of the claim is True", Some("GpuUnhealthy"), next)
    }
}

impl Place<'_> {
    fn drain(&self) -> String {
        format!("kubectl gpu drain {} --node {}", self.gpu, self.node)
    }

    fn undrain(&self) -> String {
        format!("kubectl gpu undrain {} --node {}", self.gpu, self.node)
    }

    fn drain_node(&self) -> String {
        format!("`kubectl drain {} --ignore-daemonsets --delete-emptydir-data`", self.node)
    }
}

/// A taint in words.
pub fn explained(taint: &Taint, by: &By, place: Place<'_>) -> Explained {
    match by {
        By::Drain { .. } => drained(taint.effect, place),
        By::Rules { rules } => {
            let next = rules
                .iter()
                .map(|rule| format!("when it is no longer needed: `kubectl delete devicetaintrule {rule}`"));
            Explained::new("an administrator gave it this taint", "when the rule is deleted", None, next.collect())
        }
        By::Driver | By::Claims => of_driver(taint, place),
    }
}

fn drained(effect: Effect, place: Place<'_>) -> Explained {
    let meaning = match effect {
        Effect::NoExecute => "taken out of service by hand: no new claim gets it, its pods are evicted",
        Effect::NoSchedule => "taken out of service by hand: no new claim gets it, its pods stay",
        Effect::None => "a dry run of `kubectl gpu drain` that did not end",
    };
    Explained::new(
        meaning,
        "when it is returned to service",
        None,
        vec![format!("to return it: `{}`", place.undrain())],
    )
}

/// By the key after the name of the driver.
fn of_driver(taint: &Taint, place: Place<'_>) -> Explained {
    let key = taint.key.strip_prefix(place.driver).and_then(|key| key.strip_prefix('/')).unwrap_or_default();
    let cause: Result<Cause, Error> = Cause::deserialize(key.into_deserializer());
    match (cause, key) {
        (Ok(cause), _) => of_cause(cause, &taint.value, place),
        (Err(_), "unusable") => Explained::new(
            "NVML returns errors for it, the Events of the node have the reason",
            "when NVML reads it again",
            Some("GpuUnhealthy"),
            vec![format!(
                "on node {}: `nvidia-smi -i {} -q`, and the kernel log: `dmesg | grep -i -e nvrm -e xid`",
                place.node, place.uuid
            )],
        ),
        (Err(_), _) => Explained::new(
            "the driver gives a taint that this version of `kubectl gpu` does not know",
            "not known",
            None,
            vec!["use the version of `kubectl gpu` that belongs to the driver".to_owned()],
        ),
    }
}

fn of_cause(cause: Cause, value: &str, place: Place<'_>) -> Explained {
    match cause {
        Cause::Recovery => recovery(value, place),
        Cause::Xid => Explained::new(
            "an error (XID) after which the GPU needs a reset; this NVIDIA driver recommends no action itself",
            "after a reboot of the node, when the GPU has answered twice",
            Some("GpuUnhealthy"),
            vec![place.drain_node(), "reboot the node".to_owned()],
        ),
        Cause::GpuLost => Explained::new(
            "the GPU fell off the bus, the NVIDIA driver does not reach it",
            "when the GPU has answered twice in a row",
            Some("GpuLost"),
            vec![
                place.drain_node(),
                "power the node off and on: a reboot alone often does not help".to_owned(),
                "lost again within days: power cables, riser and seat of the GPU, then replace it".to_owned(),
            ],
        ),
        Cause::Unmonitored => Explained::new(
            "NVML does not answer for it, so its health is not known",
            "when NVML answers",
            Some("GpuUnhealthy"),
            vec![format!("`nvidia-smi` on node {}: if it hangs as well, drain and reboot the node", place.node)],
        ),
        Cause::Memory => memory(value, place),
        Cause::ResetAdvised => Explained::new(
            "a damaged row of its memory is replaced at the next reset; it works until then",
            "when the GPU no longer reports it, after a reset",
            Some("GpuUnhealthy"),
            reset(place),
        ),
        Cause::Fabric => Explained::new(
            "not registered with its NVLink fabric, so CUDA does not start on it",
            "when it is registered",
            Some("GpuUnhealthy"),
            vec![format!("on node {}: `systemctl status nvidia-fabricmanager`", place.node)],
        ),
        Cause::Throttled => throttled(value, place),
        Cause::Unstable => Explained::new(
            "it failed and came back three times in a day",
            "when an administrator declares it well",
            Some("GpuUnhealthy"),
            vec![
                "test the GPU, or have it replaced".to_owned(),
                format!("then `kubectl gpu clear {} --node {}`", place.uuid, place.node),
            ],
        ),
    }
}

/// The pods leave first, because a GPU in use is not reset.
fn reset(place: Place<'_>) -> Vec<String> {
    vec![
        format!("`{} --wait`", place.drain()),
        format!("on node {}: `nvidia-smi --gpu-reset -i {}`", place.node, place.uuid),
        format!("`{}`", place.undrain()),
    ]
}

fn recovery(value: &str, place: Place<'_>) -> Explained {
    let (meaning, ends, next) = match value {
        "node-reboot" => (
            "the NVIDIA driver recommends a reboot of the node",
            "in a new boot, when nothing is recommended in two answers",
            vec![place.drain_node(), "reboot the node".to_owned()],
        ),
        "drain-p2p" => (
            "the NVIDIA driver recommends to end peer-to-peer traffic",
            "when nothing is recommended in two answers",
            vec!["end the jobs that use this GPU and others together".to_owned()],
        ),
        "imex-domain" => (
            "the IMEX domain of the node is broken; the GPU itself works",
            "when nothing is recommended in two answers",
            vec![format!("on node {}: `systemctl status nvidia-imex`", place.node)],
        ),
        _ => (
            "the NVIDIA driver recommends a reset of the GPU",
            "when nothing is recommended in two answers, at least 30 s apart",
            reset(place),
        ),
    };
    Explained::new(meaning, ends, Some("GpuUnhealthy"), next)
}

fn memory(value: &str, place: Place<'_>) -> Explained {
    if value == "remap-failed" {
        let next = vec![
            format!("let its jobs end, or `{}`", place.drain()),
            "run the field diagnostics of NVIDIA and have the GPU replaced".to_owned(),
        ];
        let meaning = "a damaged row of its memory has no spare row";
        return Explained::new(meaning, "when the GPU is replaced", Some("GpuRowRemapFailed"), next);
    }
    let next = vec![place.drain_node(), "reboot the node".to_owned()];
    let ends = "after the recommended reset, or a reboot";
    Explained::new("an uncontained memory error", ends, Some("GpuUnhealthy"), next)
}

fn throttled(value: &str, place: Place<'_>) -> Explained {
    let (meaning, look) = match value {
        "power-brake" => {
            ("the power supply makes it run slower", "power supplies and their cables: `nvidia-smi -q -d POWER`")
        }
        _ => ("it is too hot and runs slower", "fans and air: `nvidia-smi -q -d TEMPERATURE`"),
    };
    let next = vec![format!("on node {}: {look}", place.node)];
    Explained::new(meaning, "when it is not reported for a minute", Some("GpuUnhealthy"), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { node: "node-1", gpu: "gpu-1", uuid: "GPU-1", driver: "gpu.nvidia.com" };

    fn of(taint: &str) -> Explained {
        let (key, value) = taint.split_once('=').unwrap();
        let key = format!("gpu.nvidia.com/{key}");
        let taint = Taint { key: key.into(), value: value.into(), effect: Effect::NoSchedule, since: "".into() };
        explained(&taint, &By::Driver, PLACE)
    }

    /// The taints of the table in SPECIFICATION.md, such as `gpu-lost=lost`.
    fn specified() -> Vec<String> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../SPECIFICATION.md");
        let text = std::fs::read_to_string(path).unwrap();
        let table = text.split("| fault | taint").nth(1).unwrap().split("\n\n").next().unwrap();
        let cells = table.lines().skip(2).filter_map(|row| row.split('|').nth(2));
        cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    }

    #[test]
    fn every_taint_of_the_specification_has_its_own_explanation() {
        let taints = specified();
        assert!(taints.len() >= 14, "{taints:?}");
        let mut meanings: Vec<String> = taints.iter().map(|taint| of(taint).meaning).collect();
        assert!(!meanings.iter().any(|meaning| meaning.contains("does not know")), "{meanings:?}");
        meanings.sort();
        let count = meanings.len();
        meanings.dedup();
        assert_eq!(meanings.len(), count, "two faults have the same explanation");
    }

    #[test]
    fn every_runbook_that_is_named_exists() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/runbooks.md")).unwrap();
        for taint in specified() {
            let runbook = of(&taint).runbook.unwrap();
            assert!(text.contains(&format!("\n## {runbook}\n")), "{taint}: {runbook}");
        }
    }

    #[test]
    fn a_taint_of_a_newer_driver_is_not_explained_wrongly() {
        assert!(of("quantum=1").meaning.contains("does not know"));
        assert!(of("unusable=Failing").meaning.contains("NVML returns errors"));
    }
}
