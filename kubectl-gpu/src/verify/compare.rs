// SPDX-License-Identifier: Apache-2.0
//! One claim: its allocation and status against the report of its node. Pure.

use std::collections::BTreeSet;

use dra_model::claim_report::{
    ClaimReport, DeviceReport, HardwareReport, NodeReport, RecordReport, SpecContent, SpecDeviceReport,
};

use super::{Difference, Key, Mark, SeenClaim, VerifiedClaim, VerifiedDevice};

const RESTART: &str = "delete the pod: when it starts again, the driver prepares the claim anew";
const REWRITE: &str =
    "delete the pod: the spec is written anew when it starts again; a running container has what it was started with";

/// Compares a claim with what its node has.
pub fn compare(claim: &SeenClaim, node: &str, report: &ClaimReport) -> VerifiedClaim {
    let on_node: Vec<&Key> = claim.results.iter().filter(|key| key.pool == node).collect();
    let mut differences: Vec<Difference> = state_of(claim, report).into_iter().chain(specs_of(report)).collect();
    let comparison = Comparison { claim, report };
    let devices = on_node.iter().map(|key| comparison.device(key, &mut differences)).collect();
    differences.extend(unexpected(&on_node, report));
    VerifiedClaim { claim: claim.label.clone(), node: node.to_owned(), devices, differences }
}

fn difference(what: String, next_step: &str) -> Difference {
    Difference { what, next_step: next_step.to_owned() }
}

/// What is wrong with the record as a whole.
fn state_of(claim: &SeenClaim, report: &ClaimReport) -> Option<Difference> {
    let label = &claim.label;
    let found = match &report.record {
        RecordReport::Absent { path } => {
            let what = format!("the node has no record {path} of claim {label}: it is not prepared");
            difference(what, "wait while the pod starts; the Events of the claim name what keeps it from that")
        }
        RecordReport::Unreadable { path, why } => {
            difference(format!("the record {path} of claim {label} cannot be used: {why}"), RESTART)
        }
        RecordReport::Preparing { .. } => difference(
            format!("claim {label} is being prepared, or its preparation was interrupted"),
            "run this again when the pod runs; the Events of the claim name what keeps it from that",
        ),
        RecordReport::Undoing { last_error, .. } => difference(
            format!("claim {label} is being unprepared, which failed last with: {last_error}"),
            "end the cause; the kubelet retries",
        ),
        RecordReport::Ready { is_of_this_boot: false, .. } => difference(
            format!("claim {label} was prepared before the node was booted"),
            "wait until the kubelet has prepared the pods of the node again",
        ),
        RecordReport::Ready { is_of_this_boot: true, .. } => return None,
    };
    Some(found)
}

/// Specs that are missing or cannot be parsed.
fn specs_of(report: &ClaimReport) -> Vec<Difference> {
    let specs = report.specs.iter().filter_map(|spec| match &spec.content {
        SpecContent::Found { .. } => None,
        SpecContent::Absent => Some(difference(format!("the CDI spec {} is missing", spec.path), REWRITE)),
        SpecContent::Unreadable { why } => {
            Some(difference(format!("the CDI spec {} cannot be read: {why}", spec.path), REWRITE))
        }
    });
    if matches!(report.record, RecordReport::Absent { .. }) { Vec::new() } else { specs.collect() }
}

struct Comparison<'a> {
    claim: &'a SeenClaim,
    report: &'a ClaimReport,
}

impl Comparison<'_> {
    fn device(&self, key: &Key, differences: &mut Vec<Difference>) -> VerifiedDevice {
        let recorded = self.report.record.devices().iter().find(|device| is_of(device, key));
        let uuid = recorded.and_then(|device| device.uuid.as_deref());
        let (record, found) = match recorded {
            Some(_) => (Mark::Agrees, None),
            None if self.report.record.devices().is_empty() => (Mark::Missing, None),
            None => {
                let what = format!("the record of the node has no device {} for request {}", key.device, key.request);
                (Mark::Missing, Some(difference(what, RESTART)))
            }
        };
        differences.extend(found);
        let status = self.status(key, uuid, differences);
        let (nvml, cdi_spec) = match recorded {
            Some(device) => (nvml(device, differences), self.spec(device, differences)),
            None => (Mark::Missing, Mark::Missing),
        };
        VerifiedDevice {
            request: key.request.clone(),
            device: key.device.clone(),
            share_id: key.share_id.clone(),
            uuid: uuid.map(str::to_owned),
            status,
            record,
            cdi_spec,
            nvml,
        }
    }

    /// The entry of `status.devices`, against the record.
    fn status(&self, key: &Key, recorded: Option<&str>, differences: &mut Vec<Difference>) -> Mark {
        let is_entry = |status: &&super::SeenStatus| {
            (&status.pool, &status.device, &status.share_id) == (&key.pool, &key.device, &key.share_id)
        };
        let Some(status) = self.claim.statuses.iter().find(is_entry) else {
            let what = format!("status.devices of claim {} has no entry for {}", self.claim.label, key.device);
            let next = "wait some seconds; if it stays so, the log of the plugin says why the status is not written";
            differences.push(difference(what, next));
            return Mark::Missing;
        };
        match (status.uuid.as_deref(), recorded) {
            (Some(found), Some(expected)) if found == expected => Mark::Agrees,
            // The record is compared with the allocation already.
            (Some(_), None) => Mark::Agrees,
            (found, expected) => {
                let found = found.unwrap_or("none");
                let what = format!(
                    "status.devices of claim {} has the UUID {found} for {}, the record of the node {}",
                    self.claim.label,
                    key.device,
                    expected.unwrap_or("none")
                );
                differences.push(difference(what, RESTART));
                Mark::Differs
            }
        }
    }

    /// The devices of the CDI specs that the container runtime was given.
    fn spec(&self, recorded: &DeviceReport, differences: &mut Vec<Difference>) -> Mark {
        let known: Vec<&SpecDeviceReport> = self.report.specs.iter().flat_map(devices_of).collect();
        let find = |name: &String| known.iter().find(|device| device.name == *name).copied();
        let missing: Vec<&String> = recorded.cdi_devices.iter().filter(|name| find(name).is_none()).collect();
        for name in &missing {
            // A spec that is missing as a whole is a difference of its own.
            if self.report.specs.iter().all(|spec| matches!(spec.content, SpecContent::Found { .. })) {
                differences.push(difference(format!("no CDI spec has the device {name}"), REWRITE));
            }
        }
        let own = recorded.cdi_devices.last().and_then(find);
        let Some(own) = own.filter(|_| missing.is_empty()) else { return Mark::Missing };
        let found: Vec<Difference> = nodes_of(recorded, own)
            .into_iter()
            .chain(daemon_of(recorded, own))
            .map(|what| difference(what, REWRITE))
            .collect();
        let mark = if found.is_empty() { Mark::Agrees } else { Mark::Differs };
        differences.extend(found);
        mark
    }
}

fn devices_of(spec: &dra_model::claim_report::SpecReport) -> &[SpecDeviceReport] {
    match &spec.content {
        SpecContent::Found { devices } => devices,
        SpecContent::Absent | SpecContent::Unreadable { .. } => &[],
    }
}

fn is_of(device: &DeviceReport, key: &Key) -> bool {
    (&device.pool, &device.device, &device.share_id, &device.request)
        == (&key.pool, &key.device, &key.share_id, &key.request)
}

fn nvml(device: &DeviceReport, differences: &mut Vec<Difference>) -> Mark {
    match (&device.hardware, device.uuid.as_ref()) {
        (HardwareReport::Found { uuid, .. }, Some(recorded)) if uuid == recorded => Mark::Agrees,
        (HardwareReport::Found { uuid, .. }, recorded) => {
            let recorded = recorded.map_or("none", String::as_str);
            let what = format!("NVML has the UUID {uuid} for {}, the record of the node {recorded}", device.device);
            differences.push(difference(what, RESTART));
            Mark::Differs
        }
        (HardwareReport::Missing { why }, _) => {
            let what = format!("the node cannot use {} any more: {why}", device.device);
            let next = "`kubectl gpu status` shows whether the GPU is well; if it is, delete the pod";
            differences.push(difference(what, next));
            Mark::Missing
        }
    }
}

/// Device nodes that the spec has too many or too few.
fn nodes_of(recorded: &DeviceReport, spec: &SpecDeviceReport) -> Vec<String> {
    let HardwareReport::Found { nodes, .. } = &recorded.hardware else { return Vec::new() };
    let (expected, found): (BTreeSet<&NodeReport>, BTreeSet<&NodeReport>) =
        (nodes.iter().collect(), spec.nodes.iter().collect());
    let name = &spec.name;
    let missing = expected.difference(&found).map(|node| format!("the CDI device {name} lacks the device node {node}"));
    let surplus = found.difference(&expected);
    let surplus = surplus
        .map(|node| format!("the CDI device {name} has the device node {node}, which is not of {}", recorded.device));
    missing.chain(surplus).collect()
}

/// The directories of the MPS daemon.
fn daemon_of(recorded: &DeviceReport, spec: &SpecDeviceReport) -> Option<String> {
    let daemon = recorded.mps_daemon.as_ref()?;
    let is_mounted = spec.mounts.iter().any(|path| path.split('/').any(|part| part == daemon));
    (!is_mounted).then(|| format!("the CDI device {} does not mount the MPS daemon {daemon}", spec.name))
}

/// Devices that the node has and the scheduler did not allocate.
fn unexpected(allocated: &[&Key], report: &ClaimReport) -> Vec<Difference> {
    let recorded = report.record.devices();
    let is_allocated = |device: &&DeviceReport| allocated.iter().any(|key| is_of(device, key));
    let of_record = recorded.iter().filter(|device| !is_allocated(device)).map(|device| {
        let what = format!(
            "the record of the node has {} for request {}, which the claim is not allocated",
            device.device, device.request
        );
        difference(what, RESTART)
    });
    let names: BTreeSet<&String> = recorded.iter().flat_map(|device| &device.cdi_devices).collect();
    // The spec of the driver version, if there is one, has devices for other claims too.
    let of_claim = report.specs.last().into_iter().flat_map(devices_of);
    let of_spec = of_claim.filter(|device| !recorded.is_empty() && !names.contains(&device.name));
    let of_spec = of_spec.map(|device| {
        difference(
            format!("the CDI spec of the claim has the device {}, which the record of the node has not", device.name),
            REWRITE,
        )
    });
    of_record.chain(of_spec).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::verify::claim;

    const UUID: &str = "GPU-1";

    fn seen(uuid: Option<&str>) -> SeenClaim {
        let result = json!({"request": "gpu", "driver": "a", "pool": "n", "device": "gpu-1"});
        let statuses = uuid.map(|uuid| json!({"driver": "a", "pool": "n", "device": "gpu-1", "data": {"uuid": uuid}}));
        let object = json!({
            "metadata": {"uid": "u"},
            "status": {
                "allocation": {"devices": {"results": [result, {"driver": "b", "pool": "n", "device": "x"}]}},
                "devices": statuses.into_iter().collect::<Vec<Value>>(),
            },
        });
        claim("ml/c", &object, "a").unwrap()
    }

    fn report() -> Value {
        let node = json!({"path": "/dev/nvidia0", "major": 195, "minor": 0});
        json!({
            "claimUid": "u",
            "record": {"state": "ready", "isOfThisBoot": true, "devices": [{
                "request": "gpu", "pool": "n", "device": "gpu-1", "uuid": UUID, "cdiDevices": ["k/base=1", "k/claim=u-gpu-1"],
                "mpsDaemon": "gpu-01", "hardware": {"state": "found", "uuid": UUID, "nodes": [node]},
            }]},
            "specs": [
                {"path": "/cdi/base", "state": "found", "devices": [{"name": "k/base=1"}, {"name": "k/base=2"}]},
                {"path": "/cdi/claim", "state": "found", "devices": [
                    {"name": "k/claim=u-gpu-1", "nodes": [node], "mounts": ["/run/mps/gpu-01/run"]}]},
            ],
        })
    }

    /// The marks of the device, and the differences.
    fn check(seen: &SeenClaim, report: &Value) -> (String, String) {
        let VerifiedClaim { devices, differences, .. } =
            compare(seen, "n", &serde_json::from_value(report.clone()).unwrap());
        let marks = devices.iter().flat_map(|device| [device.status, device.record, device.cdi_spec, device.nvml]);
        let marks: Vec<&str> = marks.map(Mark::name).collect();
        let what: Vec<&str> = differences.iter().map(|found| found.what.as_str()).collect();
        (marks.join(" "), what.join("\n"))
    }

    #[test]
    fn what_agrees_has_no_difference() {
        assert_eq!(check(&seen(Some(UUID)), &report()), ("ok ok ok ok".to_owned(), String::new()));
    }

    /// A change of the report by the path of a field, and what it becomes.
    #[test]
    fn every_source_that_differs_is_named() {
        for (path, value, marks, what) in [
            (
                "/specs/1/devices/0/nodes/0/minor",
                json!(7),
                "ok ok differs ok",
                "the CDI device k/claim=u-gpu-1 lacks the device node /dev/nvidia0 (195:0)\n\
                 the CDI device k/claim=u-gpu-1 has the device node /dev/nvidia0 (195:7), which is not of gpu-1",
            ),
            (
                "/specs/1/devices/0/mounts",
                json!(["/run/mps/gpu-012"]),
                "ok ok differs ok",
                "the CDI device k/claim=u-gpu-1 does not mount the MPS daemon gpu-01",
            ),
            (
                "/specs/1/devices/0/name",
                json!("k/claim=u-gpu-2"),
                "ok ok missing ok",
                "no CDI spec has the device k/claim=u-gpu-1\n\
                 the CDI spec of the claim has the device k/claim=u-gpu-2, which the record of the node has not",
            ),
            (
                "/specs/0",
                json!({"path": "/cdi/base", "state": "absent"}),
                "ok ok missing ok",
                "the CDI spec /cdi/base is missing",
            ),
            (
                "/record/devices/0/hardware",
                json!({"state": "missing", "why": "GPU-1 fell off the bus"}),
                "ok ok ok missing",
                "the node cannot use gpu-1 any more: GPU-1 fell off the bus",
            ),
            (
                "/record/devices/0/uuid",
                json!("GPU-2"),
                "differs ok ok differs",
                "status.devices of claim ml/c has the UUID GPU-1 for gpu-1, the record of the node GPU-2\n\
                 NVML has the UUID GPU-1 for gpu-1, the record of the node GPU-2",
            ),
            (
                "/record/devices/0/device",
                json!("gpu-2"),
                "ok missing missing missing",
                "the record of the node has no device gpu-1 for request gpu\n\
                 the record of the node has gpu-2 for request gpu, which the claim is not allocated",
            ),
            ("/record/isOfThisBoot", json!(false), "ok ok ok ok", "claim ml/c was prepared before the node was booted"),
            (
                "/record",
                json!({"state": "absent", "path": "/p"}),
                "ok missing missing missing",
                "the node has no record /p of claim ml/c: it is not prepared",
            ),
        ] {
            let mut report = report();
            *report.pointer_mut(path).unwrap() = value;
            assert_eq!(check(&seen(Some(UUID)), &report), (marks.to_owned(), what.to_owned()), "{path}");
        }
    }

    #[test]
    fn a_status_that_is_not_written_or_of_another_device_is_named() {
        let (marks, what) = check(&seen(None), &report());
        assert_eq!(
            (marks.as_str(), what.as_str()),
            ("missing ok ok ok", "status.devices of claim ml/c has no entry for gpu-1")
        );
        let (marks, what) = check(&seen(Some("GPU-9")), &report());
        assert_eq!(marks, "differs ok ok ok");
        assert_eq!(what, "status.devices of claim ml/c has the UUID GPU-9 for gpu-1, the record of the node GPU-1");
    }
}
