// SPDX-License-Identifier: Apache-2.0
//! Every sentence a user can read, with the chain of causes as the process prints it.
//!
//! `UPDATE_GOLDEN=1` writes `messages.txt`; read the difference as a user would.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

use dra_checkpoint::files::faults::Fault;
use dra_model::{AllocatedDevice, Claim, ClaimConfig, ConfigSource, ShareLimits};
use dra_prepare::{FetchError, PrepareError};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::node::{Node, allocate, reference};

struct Sentences {
    text: String,
}

impl Sentences {
    fn add(&mut self, situation: &str, error: &dyn Error, disposition: impl std::fmt::Debug, node: &Node) {
        let sources = std::iter::successors(error.source(), |source: &&dyn Error| (*source).source());
        let chain = sources.fold(error.to_string(), |text, source| format!("{text}: {source}"));
        let chain = chain.replace(node.dir.path().to_str().unwrap(), "<node>");
        writeln!(self.text, "# {situation} ({disposition:?})\n{chain}\n").unwrap();
    }

    fn refused(&mut self, situation: &str, node: &Node, claim: &Claim) {
        self.failed(situation, node, &node.prepare(claim).unwrap_err());
        assert!(node.claim_locks().is_empty(), "{situation}");
    }

    fn failed(&mut self, situation: &str, node: &Node, error: &PrepareError) {
        self.add(situation, error, error.cause.disposition(), node);
    }
}

fn config(requests: &[&str], parameters: Value) -> ClaimConfig {
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
fn sentences_are_the_golden_ones() {
    let mut sentences = Sentences { text: String::new() };
    allocations(&mut sentences);
    hardware(&mut sentences);
    configurations(&mut sentences);
    api_server(&mut sentences);
    disks(&mut sentences);
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
    let claim = allocate("a", &[("one", "gpu-00000000"), ("two", "gpu-00000000")]);
    sentences.refused("one device for two requests", &node, &claim);
    let holder = allocate("b", &[("gpu", "gpu-00000000")]);
    node.prepare(&holder).unwrap();
    let claim = gpu_claim();
    sentences.refused("a device of another claim", &node, &claim);
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
    for (situation, config) in [
        ("a configuration that is no object", config(&[], json!("GpuConfig"))),
        ("a missing version", config(&[], json!({"kind": "GpuConfig"}))),
        ("a wrong kind", config(&[], json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "Gpu"}))),
        ("an unknown field", config(&[], with(gpu_config(), "sharringg"))),
        ("sharing", config(&["gpu"], with(gpu_config(), "sharing"))),
        ("sharing by class", ClaimConfig { source: ConfigSource::Class, ..config(&[], with(gpu_config(), "sharing")) }),
        ("a GPU's configuration for a MIG device", config(&["gpu", "mig/small"], gpu_config())),
        ("a MIG device's configuration for a GPU", config(&["gpu"], mig_config())),
    ] {
        let claim = Claim { configs: vec![config], ..claim.clone() };
        sentences.refused(situation, &node, &claim);
    }
    let fitting = [config(&[], gpu_config()), config(&[], mig_config()), config(&["mig"], gpu_config())];
    node.prepare(&Claim { configs: fitting.to_vec(), ..claim }).unwrap();
}

fn with(mut parameters: Value, field: &str) -> Value {
    parameters[field] = json!({"strategy": "MPS"});
    parameters
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
    let failed = |outcome: fn() -> FetchError| node.engine.prepare(&reference("a"), &|| Err(outcome())).unwrap_err();
    sentences.failed("a claim that is gone", &node, &failed(|| FetchError::Gone));
    let replaced = node.engine.prepare(&reference("a"), &|| Ok(other.clone())).unwrap_err();
    sentences.failed("a claim with another UID", &node, &replaced);
    sentences.failed(
        "a claim without allocation",
        &node,
        &failed(|| FetchError::Unusable { source: "it has no allocation".into() }),
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
    sentences.failed("no folder for locks", &node, &error);
    std::fs::create_dir(node.locks_dir()).unwrap();
    std::fs::remove_file(node.dir.path().join("proc/sys/kernel/random/boot_id")).unwrap();
    let error = node.prepare(&claim).unwrap_err();
    sentences.failed("no boot id", &node, &error);
}
