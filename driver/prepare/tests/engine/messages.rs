// SPDX-License-Identifier: Apache-2.0
//! Every sentence a user can read, with the chain of causes as the process prints it.
//!
//! `UPDATE_GOLDEN=1` writes `messages.txt`; read the difference as a user would.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dra_files::faults::Fault;
use dra_model::{
    Advice, AllocatedDevice, Claim, ClaimConfig, ClaimRef, ComputeMode, ConfigSource, ShareLimits, explain,
};
use dra_prepare::state::locks::{Guarantee, Locks};
use dra_prepare::{ClaimLookup, FetchError, PrepareError};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::daemons::Mood;
use crate::machine::gpu_uuid;
use crate::node::{Node, allocate, reference, request_sharing, share, shares};

struct Sentences {
    text: String,
}

impl Sentences {
    fn add(&mut self, situation: &str, error: &impl Advice, disposition: impl std::fmt::Debug, node: &Node) {
        let text = explain(error).replace(node.dir.path().to_str().unwrap(), "<node>");
        writeln!(self.text, "# {situation} ({disposition:?})\n{text}\n").unwrap();
    }

    fn refused(&mut self, situation: &str, node: &Node, claim: &Claim) {
        self.failed(situation, node, &node.prepare(claim).unwrap_err());
        assert!(node.claim_locks().is_empty(), "{situation}");
    }

    fn failed(&mut self, situation: &str, node: &Node, error: &PrepareError) {
        self.add(situation, error, error.cause.disposition(), node);
    }
}

fn config(requests: &[&str], parameters: &Value) -> ClaimConfig {
    let parameters = dra_model::config::parse(parameters);
    let requests = requests.iter().map(|request| (*request).to_owned()).collect();
    ClaimConfig { source: ConfigSource::Claim, index: 1, requests, parameters }
}

fn gpu_config() -> Value {
    json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig"})
}

fn mig_config() -> Value {
    json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "MigDeviceConfig"})
}

/// GPU 1 is cut.
fn node() -> Node {
    let node = Node::new(3);
    node.machine.cut(1, &[0], 0);
    node.redraw();
    node
}

fn gpu_claim() -> Claim {
    allocate("a", &[("gpu", "gpu-00000000")])
}

#[test]
fn all_messages_are_those_of_the_golden_file() {
    let mut sentences = Sentences { text: String::new() };
    allocations(&mut sentences);
    hardware(&mut sentences);
    configurations(&mut sentences);
    strategies(&mut sentences);
    effects(&mut sentences);
    api_server(&mut sentences);
    disks(&mut sentences);
    other_namespaces(&mut sentences);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/engine/messages.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &sentences.text).unwrap();
    }
    assert_eq!(sentences.text, std::fs::read_to_string(&path).unwrap());
}

fn allocations(sentences: &mut Sentences) {
    let node = node();
    let empty = allocate("a", &[]);
    sentences.refused("no result of this driver", &node, &empty);
    let mut claim = gpu_claim();
    "node-b".clone_into(&mut claim.devices[0].pool);
    sentences.refused("a device of another node", &node, &claim);
    let claim = allocate("a", &[("gpu", "gpu-99999999")]);
    sentences.refused("an unknown device", &node, &claim);
    let claim = allocate("a", &[("gpu", "gpu-0")]);
    sentences.refused("a device of NVIDIA's DRA driver", &node, &claim);
    let claim = allocate("a", &[("one", "gpu-00000000"), ("two", "gpu-00000000")]);
    sentences.refused("one device for two requests", &node, &claim);
    let holder = allocate("b", &[("gpu", "gpu-00000000")]);
    node.prepare(&holder).unwrap();
    let claim = gpu_claim();
    sentences.refused("a device of another claim", &node, &claim);
    let gone = || node.prepare_beside(&claim, &|_| ClaimLookup::Gone).unwrap_err();
    sentences.failed("a device of a claim that was deleted under its pod", &node, &gone());
    node.files.fail_after(0, Fault::FromNowOn(Errno::ROFS));
    sentences.failed("a device of a claim that was deleted and cannot be undone", &node, &gone());
    node.files.heal();
    assert_eq!((node.names("claims").len(), node.names("cdi").len()), (1, 2), "a refusal leaves nothing");
    let record = node.state_dir().join("claims/uid-b.json");
    let bytes = std::fs::read(&record).unwrap();
    std::fs::write(&record, &bytes[..bytes.len() - 60]).unwrap();
    sentences.refused("a device of a claim with a damaged record", &node, &claim);
    std::fs::remove_dir_all(node.state_dir().join("quarantine")).unwrap();
    std::fs::write(&record, "").unwrap();
    sentences.refused("a device of a claim of which only the spec is left", &node, &claim);
}

fn hardware(sentences: &mut Sentences) {
    let mut node = node();
    let whole = allocate("a", &[("gpu", "gpu-00000001")]);
    sentences.refused("a whole GPU in MIG mode", &node, &whole);
    let gone = allocate("a", &[("mig", "gpu-00000001-mig-19-4")]);
    sentences.refused("a MIG device that was destroyed", &node, &gone);
    let mig = allocate("m", &[("mig", "gpu-00000001-mig-19-0")]);
    node.prepare(&mig).unwrap();
    node.machine.join(1);
    node.redraw();
    sentences.refused("a MIG device that was destroyed after it was prepared", &node, &mig);
    sentences.refused("a whole GPU with a MIG device of another claim", &node, &whole);
    let claim = gpu_claim();
    node.machine.set_broken(0, true);
    sentences.refused("a GPU that breaks after the last look", &node, &claim);
    node.restart();
    sentences.refused("a GPU that is broken", &node, &claim);
    node.machine.set_broken(0, false);
    node.prepare(&claim).unwrap();
    node.machine.remove(0);
    sentences.refused("a GPU that was pulled after it was prepared", &node, &claim);
    let claim = allocate("c", &[("gpu", "gpu-00000002")]);
    std::fs::remove_file(node.dir.path().join("dev/nvidia2")).unwrap();
    sentences.refused("no device node", &node, &claim);
    node.redraw();
    std::fs::remove_file(node.dir.path().join("dev/nvidia-uvm")).unwrap();
    sentences.refused("no control node", &node, &claim);
    node.redraw();
    std::fs::remove_file(node.dir.path().join("usr/lib64/libcuda.so.550.54.15")).unwrap();
    sentences.refused("an incomplete driver", &node, &claim);
    node.machine.set_driver_loaded(false);
    sentences.refused("a driver that went away", &node, &claim);
    node.restart();
    sentences.refused("no driver since the start", &node, &claim);
    assert!(!node.names("claims").contains(&"uid-c.json".to_owned()), "a refusal leaves nothing");
}

fn configurations(sentences: &mut Sentences) {
    let node = node();
    let claim = allocate("a", &[("gpu", "gpu-00000000"), ("mig/small", "gpu-00000001-mig-19-0")]);
    let long = json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Long"}});
    for (situation, config) in [
        ("a configuration that is no object", config(&[], &json!("GpuConfig"))),
        ("a missing version", config(&[], &json!({"kind": "GpuConfig"}))),
        ("a wrong kind", config(&[], &json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "Gpu"}))),
        (
            "an unknown field",
            config(&[], &json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig", "sharringg": 1})),
        ),
        ("an unknown strategy", config(&["gpu"], &with(gpu_config(), json!({"strategy": "Shared"})))),
        ("exclusive use of a MIG device", config(&[], &with(mig_config(), json!({"strategy": "Exclusive"})))),
        (
            "an interval on a MIG device",
            ClaimConfig { source: ConfigSource::Class, ..config(&[], &with(mig_config(), long)) },
        ),
        ("a GPU's configuration for a MIG device", config(&["gpu", "mig/small"], &gpu_config())),
        ("a MIG device's configuration for a GPU", config(&["gpu"], &mig_config())),
    ] {
        let claim = Claim { configs: vec![config], ..claim.clone() };
        sentences.refused(situation, &node, &claim);
    }
    let fitting = [config(&[], &gpu_config()), config(&[], &mig_config()), config(&["mig"], &gpu_config())];
    node.prepare(&Claim { configs: fitting.to_vec(), ..claim }).unwrap();
}

fn with(mut parameters: Value, sharing: Value) -> Value {
    parameters["sharing"] = sharing;
    parameters
}

/// What can be wrong with strategies and shares.
fn strategies(sentences: &mut Sentences) {
    let node = node();
    let one = |device: &str| shares("a", vec![share("some", device, "s1", 1024, None)]);
    let (mps, ts) = (one("gpu-00000000-mps"), one("gpu-00000000-ts"));
    let strategy = |strategy: &str| json!({"strategy": strategy});
    let limit = |field: &str, limit: Value| json!({"strategy": "MPS", "mpsConfig": {field: limit}});
    let per_device = "defaultPerDevicePinnedMemoryLimit";
    let pair = || allocate("a", &[("pair", "gpu-00000000"), ("pair", "gpu-00000002")]);
    for (situation, claim) in [
        (
            "another strategy than that of the share",
            request_sharing(ts.clone(), &["some"], "GpuConfig", &strategy("MPS")),
        ),
        ("exclusive use of a share", request_sharing(mps.clone(), &[], "GpuConfig", &strategy("Exclusive"))),
        (
            "limits for a share",
            request_sharing(mps.clone(), &[], "GpuConfig", &limit("defaultActiveThreadPercentage", json!(50))),
        ),
        (
            "a MIG device's configuration for a share",
            request_sharing(ts.clone(), &["some"], "MigDeviceConfig", &Value::Null),
        ),
        (
            "a limit for a place that there is not",
            request_sharing(pair(), &[], "GpuConfig", &limit(per_device, json!({"2": "1Gi"}))),
        ),
        (
            "a limit for a device of another claim",
            request_sharing(pair(), &[], "GpuConfig", &limit(per_device, json!({gpu_uuid(1).as_str(): "1Gi"}))),
        ),
        (
            "a limit beyond the memory",
            request_sharing(pair(), &[], "GpuConfig", &limit("defaultPinnedDeviceMemoryLimit", json!("81560Mi"))),
        ),
        (
            "a limit beyond the memory of one",
            request_sharing(pair(), &[], "GpuConfig", &limit(per_device, json!({"1": "80Gi"}))),
        ),
        (
            "two daemons for one request",
            shares(
                "a",
                vec![
                    share("some", "gpu-00000000-mps", "s1", 1024, None),
                    share("some", "gpu-00000002-mps", "s2", 1024, None),
                ],
            ),
        ),
        ("a share of a GPU in MIG mode", one("gpu-00000001-ts")),
    ] {
        sentences.refused(situation, &node, &claim);
    }
    beside_shares(sentences, &node, &mps, &ts);
}

fn beside_shares(sentences: &mut Sentences, node: &Node, mps: &Claim, ts: &Claim) {
    let holder = shares("b", vec![share("some", "gpu-00000000-ts", "s2", 81_000, None)]);
    let holder = request_sharing(
        holder,
        &[],
        "GpuConfig",
        &json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Long"}}),
    );
    node.prepare(&holder).unwrap();
    sentences.refused("a whole GPU with shares of others", node, &gpu_claim());
    sentences.refused("a share of another form", node, mps);
    sentences.refused("more memory than is left", node, ts);
    let short = json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Short"}});
    let little = shares("a", vec![share("some", "gpu-00000000-ts", "s1", 1, None)]);
    sentences.refused("another interval", node, &request_sharing(little, &["some"], "GpuConfig", &short));
    node.engine.unprepare(&holder.reference).unwrap();
    node.prepare(&shares("c", vec![share("some", "gpu-00000002-mps", "s1", 1, Some(95))])).unwrap();
    let threads = shares("a", vec![share("some", "gpu-00000002-mps", "s2", 1, Some(6))]);
    sentences.refused("more threads than are left", node, &threads);
    node.prepare(&allocate("d", &[("gpu", "gpu-00000000")])).unwrap();
    sentences.refused("a share of a GPU of another claim", node, ts);
}

/// What can go wrong with settings and daemons.
fn effects(sentences: &mut Sentences) {
    let node = node();
    let exclusive = request_sharing(gpu_claim(), &[], "GpuConfig", &json!({"strategy": "Exclusive"}));
    let long = json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": "Long"}});
    let mps = request_sharing(gpu_claim(), &[], "GpuConfig", &json!({"strategy": "MPS"}));
    node.machine.set_stubborn(0, true);
    sentences.refused("a compute mode that is not taken", &node, &exclusive);
    node.machine.set_stubborn(0, false);
    node.machine.configure(0, Some(ComputeMode::Default), None);
    sentences.refused("an interval before Turing", &node, &request_sharing(gpu_claim(), &[], "GpuConfig", &long));
    node.daemons.set(Mood::Away);
    sentences.refused("no MPS host", &node, &mps);
    node.daemons.set(Mood::Silent);
    sentences.refused("an MPS host that hangs", &node, &mps);
    node.daemons.set(Mood::Refusing);
    sentences.refused("a daemon that does not start", &node, &mps);
    node.daemons.set(Mood::Willing);
    node.prepare(&mps).unwrap();
    node.daemons.set(Mood::Clinging);
    node.machine.set_stubborn(0, true);
    node.engine.unprepare(&mps.reference).unwrap();
    let next = allocate("b", &[("gpu", "gpu-00000000")]);
    sentences.refused("settings that an earlier claim left", &node, &next);
    node.machine.set_stubborn(0, false);
    sentences.refused("a daemon that an earlier claim left", &node, &next);
    node.daemons.set(Mood::Willing);
    node.prepare(&next).unwrap();
}

/// What users may read of claims that are not of their namespace; the process names them in its log.
fn other_namespaces(sentences: &mut Sentences) {
    let of_other = |claim: Claim| {
        let reference = ClaimRef { namespace: "secret".to_owned(), name: "project".to_owned(), ..claim.reference };
        Claim { reference, ..claim }
    };
    let mut refused = |situation: &str, node: &Node, claim: &Claim| {
        let error = node.prepare(claim).unwrap_err();
        assert_eq!(error.unnamed_holder().as_deref(), Some("secret/project"), "{situation}");
        assert!(!error.to_string().contains("secret") && !error.to_string().contains("project"), "{error}");
        sentences.failed(situation, node, &error);
    };
    let mut node = node();
    node.prepare(&of_other(allocate("b", &[("gpu", "gpu-00000000")]))).unwrap();
    refused("a device of a claim of another namespace", &node, &gpu_claim());
    let turn = shares("a", vec![share("some", "gpu-00000000-ts", "s1", 1, None)]);
    refused("another form than that of a claim of another namespace", &node, &turn);
    let record = node.state_dir().join("claims/uid-b.json");
    let bytes = std::fs::read(&record).unwrap();
    std::fs::write(&record, &bytes[..bytes.len() - 60]).unwrap();
    refused("a device of a claim of another namespace with a damaged record", &node, &gpu_claim());
    let interval = |interval: &str| json!({"strategy": "TimeSlicing", "timeSlicingConfig": {"interval": interval}});
    let long = shares("c", vec![share("some", "gpu-00000002-ts", "s2", 1, None)]);
    node.prepare(&of_other(request_sharing(long, &[], "GpuConfig", &interval("Long")))).unwrap();
    let short = shares("a", vec![share("some", "gpu-00000002-ts", "s1", 1, None)]);
    let short = request_sharing(short, &[], "GpuConfig", &interval("Short"));
    refused("another interval than a claim of another namespace has", &node, &short);
    node.lock_timeout = Duration::ZERO;
    node.restart();
    let locks = Locks::open(node.locks_dir()).unwrap();
    let name = format!("gpu-{}", gpu_uuid(0).hex());
    let _held = locks.take(&name, "claim secret/project", Instant::now(), Guarantee::AllInstances).unwrap();
    refused("a GPU that is locked for a claim of another namespace", &node, &gpu_claim());
}

fn api_server(sentences: &mut Sentences) {
    let node = node();
    let device = |request: &str| AllocatedDevice {
        request: request.to_owned(),
        pool: "node-a".to_owned(),
        device: "gpu-00000000".parse().unwrap(),
        admin_access: false,
        share_id: None,
        consumed: ShareLimits::default(),
    };
    let other = Claim { reference: reference("other"), devices: vec![device("gpu")], configs: Vec::new() };
    let failed = |outcome: fn() -> FetchError| {
        node.engine.prepare(&reference("a"), &|| Err(outcome()), &|_| ClaimLookup::Allocated).unwrap_err()
    };
    sentences.failed("a claim that is gone", &node, &failed(|| FetchError::Gone));
    let replaced =
        node.engine.prepare(&reference("a"), &|| Ok(other.clone()), &|_| ClaimLookup::Allocated).unwrap_err();
    sentences.failed("a claim with another UID", &node, &replaced);
    sentences.failed(
        "a claim without allocation",
        &node,
        &failed(|| FetchError::Unusable {
            source: "it has no allocation".into(),
            advice: "delete the pod to reschedule it".into(),
        }),
    );
    let silent = failed(|| FetchError::Unreachable { source: "connection refused".into() });
    sentences.failed("an API server that is away", &node, &silent);
    assert!(node.names("claims").is_empty() && node.names("cdi").is_empty());
}

fn disks(sentences: &mut Sentences) {
    for (situation, after, fault) in [
        ("a full disk under the records", 0, Fault::FromNowOn(Errno::NOSPC)),
        ("a read-only CDI directory", 3, Fault::FromNowOn(Errno::ROFS)),
        ("a full CDI directory", 5, Fault::Once(Errno::NOSPC)),
        ("a mark that cannot be written", 7, Fault::Once(Errno::NOSPC)),
    ] {
        let node = node();
        let claim = gpu_claim();
        node.files.fail_after(after, fault);
        let error = node.prepare(&claim).unwrap_err();
        sentences.failed(situation, &node, &error);
        node.files.heal();
        node.prepare(&claim).unwrap();
    }
    let node = node();
    let claim = gpu_claim();
    node.prepare(&claim).unwrap();
    node.files.fail_after(0, Fault::FromNowOn(Errno::ROFS));
    let error = node.engine.unprepare(&claim.reference).unwrap_err();
    sentences.add("unprepare on a read-only disk", &error, error.cause.disposition(), &node);
    node.files.heal();
    node.engine.unprepare(&claim.reference).unwrap();
    std::fs::remove_dir_all(node.locks_dir()).unwrap();
    let error = node.prepare(&claim).unwrap_err();
    sentences.failed("no directory for locks", &node, &error);
    std::fs::create_dir(node.locks_dir()).unwrap();
    std::fs::remove_file(node.dir.path().join("proc/sys/kernel/random/boot_id")).unwrap();
    let error = node.prepare(&claim).unwrap_err();
    sentences.failed("no boot id", &node, &error);
}
