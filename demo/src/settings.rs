// SPDX-License-Identifier: Apache-2.0
//! The settings of the GPUs of a node, from its `nvidia-smi`.

use crate::error::{Doing, Result};
use dra_cluster::{Cluster, Node};
use std::{collections::BTreeMap, fmt};

/// The settings of a GPU that sharing changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuSetting {
    /// Such as `0`.
    pub index: String,
    /// `GPU-…`.
    pub uuid: String,
    /// `Default`, `Prohibited` or `Exclusive_Process`.
    pub compute_mode: String,
    /// Time-slice interval: `Default`, `Short`, `Medium` or `Long`.
    pub interval: String,
}

impl fmt::Display for GpuSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, uuid, compute_mode, interval } = self;
        write!(f, "GPU {index} ({uuid})  compute mode {compute_mode}, time-slice {interval}")
    }
}

/// All GPUs of a node, in the order of nvidia-smi.
pub fn of_node(cluster: &Cluster, node: &str) -> Result<Vec<GpuSetting>> {
    let node = cluster.node(node).doing("find the node")?;
    read(node).doing(format!("read the settings of the GPUs of {}", node.name()))
}

fn read(node: &Node) -> dra_cluster::Result<Vec<GpuSetting>> {
    let modes = node.nvidia_smi(&["--query-gpu=index,uuid,compute_mode", "--format=csv,noheader"])?;
    Ok(parse(&modes, &node.nvidia_smi(&["compute-policy", "-l"])?))
}

/// Joins the list of modes and the table of policies by index.
fn parse(modes: &str, policies: &str) -> Vec<GpuSetting> {
    let row = |line: &str| {
        let mut words = line.split_whitespace().filter(|word| *word != "|").map(str::to_owned);
        let (index, what, value) = (words.next()?, words.next()?, words.next()?);
        (what == "Timeslice").then_some((index, value))
    };
    let intervals: BTreeMap<_, _> = policies.lines().filter_map(row).collect();
    let gpu = |line: &str| {
        let mut values = line.split(", ").map(str::to_owned);
        let (index, uuid, compute_mode) = (values.next()?, values.next()?, values.next()?);
        let interval = intervals.get(&index).cloned().unwrap_or_default();
        Some(GpuSetting { index, uuid, compute_mode, interval })
    };
    modes.lines().filter_map(gpu).collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn both_lists_of_nvidia_smi_are_joined() {
        let policies = "+----+\n| GPU compute policies:               |\n| GPU     Name           Value        |\n\
                        |====|\n|   0   Timeslice       Default       |\n+----+\n|   1   Timeslice       Long          |\n";
        let gpus = parse("0, GPU-a, Default\n1, GPU-b, Exclusive_Process\n", policies);
        let lines: Vec<_> = gpus.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "GPU 0 (GPU-a)  compute mode Default, time-slice Default",
                "GPU 1 (GPU-b)  compute mode Exclusive_Process, time-slice Long",
            ]
        );
    }
}
