// SPDX-License-Identifier: Apache-2.0
//! The faults of a GPU that an administrator can declare over. Pure; `clearing` asks the plugin.

use std::fmt::Write as _;

use dra_allocation::device::Taint;

use crate::target::Target;

/// No fault that the plugin remembers: NVML returns an error for the GPU now.
const SEEN: &str = "unusable";

/// The faults that the driver remembers of a GPU, as taints of its slices.
pub fn faults<'a>(gpu: &'a Target, driver: &'a str) -> impl Iterator<Item = &'a Taint> {
    gpu.taints.iter().filter(move |taint| cause(taint, driver).is_some_and(|cause| cause != SEEN))
}

/// The cause of a taint of the driver.
fn cause<'a>(taint: &'a Taint, driver: &str) -> Option<&'a str> {
    taint.key.strip_prefix(driver)?.strip_prefix('/')
}

/// What will be cleared.
pub fn announcement(gpu: &Target, driver: &str) -> String {
    let uuid = gpu.uuid.as_deref().unwrap_or_default();
    let mut text = format!("GPU {} ({uuid}) on node {} has these faults:\n", gpu.gpu, gpu.node);
    for taint in faults(gpu, driver) {
        let since = if taint.since.is_empty() { String::new() } else { format!(" since {}", taint.since) };
        writeln!(text, "  {taint}{since}").ok();
    }
    text += "Clear them only after the GPU was reset, repaired or tested: new claims get it at once.\n";
    text
}

#[cfg(test)]
mod tests {
    use dra_allocation::node::Effect;

    use super::*;

    fn gpu(keys: &[&str]) -> Target {
        let taint = |key: &&str| Taint {
            key: (*key).into(),
            value: "79".into(),
            effect: Effect::NoExecute,
            since: "2026-11-30T10:00:00Z".into(),
        };
        Target {
            node: "n".to_owned(),
            gpu: "gpu-1".to_owned(),
            uuid: Some("GPU-1".to_owned()),
            product: None,
            devices: vec![],
            taints: keys.iter().map(taint).collect(),
        }
    }

    #[test]
    fn taints_of_others_and_what_nvml_reports_now_cannot_be_cleared() {
        let gpu = gpu(&["a/xid", "a/unusable", "b/xid", "ab/xid", "drained"]);
        let found: Vec<&str> = faults(&gpu, "a").map(|taint| taint.key.as_ref()).collect();
        assert_eq!(found, ["a/xid"]);
        let text = announcement(&gpu, "a");
        assert!(text.contains("\n  a/xid=79:NoExecute since 2026-11-30T10:00:00Z\n"), "{text}");
        assert_eq!(text.matches("since").count(), 1, "{text}");
    }
}
