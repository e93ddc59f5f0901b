// SPDX-License-Identifier: Apache-2.0
//! What is used, as text: a line for each GPU, and one for each pod and device.

use std::fmt::Write as _;

use super::{Gpu, Pod, Top};
use crate::table::{Cell, Colours, Style, headings, lines, painted, wrapped};
use dra_explain::text::shortened;

const WIDTH: usize = 100;

const GIB: f64 = 1_073_741_824.0;

/// Utilization from which a value is marked.
const BUSY: f64 = 0.95;

/// The whole text.
pub fn table(top: &Top, colours: Colours) -> String {
    let mut text = if top.gpus.is_empty() {
        "No GPUs: no node has a ResourceSlice of the driver. Is it installed, and ready on the GPU nodes?\n".to_owned()
    } else {
        let heading = headings(&["NODE", "GPU", "MODEL", "UTIL", "MEMORY", "TEMP", "POWER", "CLAIMS"]);
        lines(&std::iter::once(heading).chain(top.gpus.iter().map(gpu)).collect::<Vec<_>>(), 0, colours)
    };
    if !top.pods.is_empty() {
        let heading = headings(&["NAMESPACE", "POD", "CLAIM", "NODE", "DEVICE", "MEMORY", "GPU UTIL"]);
        text += "\n";
        text += &lines(&std::iter::once(heading).chain(top.pods.iter().map(pod)).collect::<Vec<_>>(), 0, colours);
    }
    for missing in &top.incomplete {
        let note = wrapped(&format!("note: {missing}"), WIDTH);
        writeln!(text, "\n{}", painted(&note, Style::Warning, colours)).ok();
    }
    text
}

fn gpu(gpu: &Gpu) -> Vec<Cell> {
    let product = gpu.product.as_deref().unwrap_or("unknown model");
    vec![
        shortened(&gpu.node, 24).into(),
        gpu.name.clone().into(),
        shortened(product.strip_prefix("NVIDIA ").unwrap_or(product), 20).into(),
        utilization(gpu.utilization),
        memory(gpu.memory_used_bytes, gpu.memory_total_bytes).into(),
        gpu.temperature_celsius.map_or_else(dash, |degrees| format!("{degrees:.0}°C")).into(),
        power(gpu.power_watts, gpu.power_limit_watts).into(),
        gpu.claims.to_string().into(),
    ]
}

fn pod(pod: &Pod) -> Vec<Cell> {
    vec![
        pod.namespace.clone().into(),
        pod.name.clone().unwrap_or_else(dash).into(),
        pod.claim.clone().into(),
        shortened(&pod.node, 24).into(),
        pod.device.clone().into(),
        memory(pod.memory_used_bytes, pod.memory_limit_bytes).into(),
        utilization(pod.gpu_utilization),
    ]
}

fn dash() -> String {
    "-".to_owned()
}

fn utilization(ratio: Option<f64>) -> Cell {
    let style = if ratio.is_some_and(|ratio| ratio >= BUSY) { Style::Warning } else { Style::Plain };
    Cell::new(ratio.map_or_else(dash, |ratio| format!("{:.0}%", ratio * 100.0)), style)
}

/// `3.2/80Gi`; what is not measured is a dash.
fn memory(used: Option<f64>, total: Option<f64>) -> String {
    let number = |bytes: f64| format!("{:.1}", bytes / GIB);
    match (used, total) {
        (None, None) => dash(),
        (used, None) => format!("{}Gi", used.map_or_else(dash, number)),
        (used, Some(total)) => format!("{}/{}Gi", used.map_or_else(dash, number), number(total)),
    }
}

fn power(watts: Option<f64>, limit: Option<f64>) -> String {
    match (watts, limit) {
        (None, _) => dash(),
        (Some(watts), None) => format!("{watts:.0}W"),
        (Some(watts), Some(limit)) => format!("{watts:.0}/{limit:.0}W"),
    }
}
