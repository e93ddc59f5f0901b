// SPDX-License-Identifier: Apache-2.0
//! What is put in order at start and from time to time, and what is left alone.

use std::cell::RefCell;
use std::path::PathBuf;

use dra_files::faults::Fault;
use dra_model::ClaimRef;
use dra_prepare::{ClaimLookup, Problem};
use rustix::io::Errno;
use serde_json::Value;

use crate::node::{HOOK_PROGRAM, Node, VERSION, allocate, install_driver};

fn alive(_: &ClaimRef) -> ClaimLookup {
    ClaimLookup::Allocated
}

fn gone(_: &ClaimRef) -> ClaimLookup {
    ClaimLookup::Gone
}

fn unknown(_: &ClaimRef) -> ClaimLookup {
    ClaimLookup::Unknown
}

#[test]
fn the_lost_specs_of_a_ready_claim_are_restored_also_without_the_api_server() {
    let lookups: [fn(&ClaimRef) -> ClaimLookup; 2] = [alive, unknown];
    for look_up in lookups {
        let mut node = Node::new(1);
        let claim = allocate("a", &[("gpu", "gpu-00000000")]);
        node.prepare(&claim).unwrap();
        std::fs::remove_dir_all(node.cdi_dir()).unwrap();
        node.restart();
        let report = node.engine.reconcile(&look_up);
        assert_eq!(report.repaired, std::slice::from_ref(&claim.reference));
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        assert_eq!(node.names("cdi").len(), 2);
        assert!(node.engine.reconcile(&look_up).repaired.is_empty(), "one repair is enough");
    }
}

#[test]
fn a_claim_that_is_gone_twice_in_a_row_is_undone_and_a_claim_that_may_exist_is_not() {
    let node = Node::new(2);
    let (dead, living) = (allocate("dead", &[("gpu", "gpu-00000000")]), allocate("living", &[("gpu", "gpu-00000001")]));
    node.prepare(&dead).unwrap();
    node.prepare(&living).unwrap();
    let look_up = |claim: &ClaimRef| if claim.name == "dead" { ClaimLookup::Gone } else { ClaimLookup::Unknown };
    assert!(node.engine.reconcile(&look_up).undone.is_empty());
    assert!(node.engine.reconcile(&alive).undone.is_empty(), "it was back, so the count begins again");
    assert!(node.engine.reconcile(&look_up).undone.is_empty());
    assert_eq!(node.engine.reconcile(&look_up).undone, [dead.reference]);
    assert_eq!((node.names("claims"), node.names("cdi").len()), (vec!["uid-living.json".to_owned()], 2));
}

#[test]
fn a_claim_that_is_not_allocated_here_any_more_is_undone_unless_it_is_allocated_here_again() {
    let node = Node::new(1);
    let claim = allocate("a", &[("gpu", "gpu-00000000")]);
    node.prepare(&claim).unwrap();
    let released = |_: &ClaimRef| ClaimLookup::Released;
    let report = node.engine.reconcile(&released);
    assert_eq!((report.missing.as_slice(), report.undone.len()), (std::slice::from_ref(&claim.reference), 0));
    let asked = RefCell::new(0);
    let look_up = |_: &ClaimRef| {
        *asked.borrow_mut() += 1;
        if *asked.borrow() == 1 { ClaimLookup::Released } else { ClaimLookup::Allocated }
    };
    assert!(node.engine.reconcile(&look_up).undone.is_empty(), "it is asked about again under its lock");
    assert!(node.claim_spec_path(&claim).exists());
    assert!(node.engine.reconcile(&released).undone.is_empty(), "it was back, so the count begins again");
    assert_eq!(node.engine.reconcile(&released).undone, [claim.reference]);
    assert!(node.names("claims").is_empty());
}

#[test]
fn a_record_of_an_earlier_boot_is_undone_at_once_if_its_claim_is_gone() {
    let mut node = Node::new(1);
    let claim = allocate("a", &[("gpu", "gpu-00000000")]);
    node.prepare(&claim).unwrap();
    node.reboot();
    assert!(node.engine.reconcile(&alive).undone.is_empty());
    assert_eq!(node.engine.reconcile(&gone).undone, [claim.reference]);
    assert!(node.names("claims").is_empty());
}

#[test]
fn an_undoing_that_failed_is_finished() {
    let mut node = Node::new(1);
    let claim = allocate("a", &[("gpu", "gpu-00000000")]);
    node.prepare(&claim).unwrap();
    node.files.fail_after(0, Fault::Once(Errno::ACCESS));
    let error = node.engine.unprepare(&claim.reference).unwrap_err().to_string();
    assert!(
        error.starts_with("claim ns/a: unprepare is incomplete: failed to remove the CDI spec of the claim: "),
        "{error}"
    );
    assert!(error.ends_with("Permission denied (os error 13)"), "{error}");
    let other = allocate("b", &[("gpu", "gpu-00000000")]);
    assert!(node.prepare(&other).unwrap_err().to_string().contains("is held by claim ns/a"));
    node.restart();
    assert_eq!(node.engine.reconcile(&alive).undone, [claim.reference]);
    node.prepare(&other).unwrap();
}

/// The claims are listed, and before the reconciliation gets to them the kubelet's retry has prepared them.
#[test]
fn a_claim_that_is_prepared_while_the_reconciliation_runs_is_not_undone() {
    for is_other_instance in [false, true] {
        let node = Node::new(1);
        let other = node.other_instance();
        let claim = allocate("a", &[("gpu", "gpu-00000000")]);
        node.prepare(&claim).unwrap();
        node.files.fail_after(0, Fault::Once(Errno::ACCESS));
        node.engine.unprepare(&claim.reference).unwrap_err();
        let look_up = |_: &ClaimRef| {
            let engine = if is_other_instance { &other } else { &node.engine };
            engine.prepare(&claim.reference, &|| Ok(claim.clone()), &alive).unwrap();
            ClaimLookup::Allocated
        };
        assert!(node.engine.reconcile(&look_up).undone.is_empty());
        assert_eq!(node.names("claims"), ["uid-a.json"]);
        assert!(node.claim_spec_path(&claim).exists(), "its pod runs");
        assert_eq!(node.prepare(&claim).unwrap().len(), 1);
    }
}

#[test]
fn a_quarantined_claim_that_is_prepared_while_the_reconciliation_runs_is_not_undone() {
    let mut node = Node::new(1);
    let claim = allocate("a", &[("gpu", "gpu-00000000")]);
    node.prepare(&claim).unwrap();
    let path = node.state_dir().join("claims/uid-a.json");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    node.restart();
    node.engine.reconcile(&gone);
    let look_up = |_: &ClaimRef| {
        node.prepare(&claim).unwrap();
        ClaimLookup::Gone
    };
    assert!(node.engine.reconcile(&look_up).undone.is_empty());
    assert!(node.claim_spec_path(&claim).exists(), "its pod runs");
}

/// Cut in the middle of a write, as another process sees it: by the time its turn comes the record is whole again.
#[test]
fn a_record_that_was_rewritten_since_it_was_read_is_not_quarantined() {
    let node = Node::new(2);
    let claim = allocate("a", &[("gpu", "gpu-00000000")]);
    node.prepare(&claim).unwrap();
    let path = node.state_dir().join("claims/uid-a.json");
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, &good[..good.len() - 100]).unwrap();
    node.machine.set_slow(0, true);
    std::thread::scope(|scope| {
        // It holds the lock of the claim and has set the bad record aside.
        let again = scope.spawn(|| node.prepare(&claim));
        node.machine.wait_until_asked();
        std::fs::write(&path, "garbage").unwrap();
        assert_eq!(node.engine.reconcile(&alive).quarantined.len(), 2);
        assert!(path.exists(), "the holder of its lock is about to write the record");
        node.machine.set_slow(0, false);
        again.join().unwrap().unwrap();
    });
    assert!(node.engine.reconcile(&alive).quarantined.is_empty());
    assert_eq!(std::fs::read(&path).unwrap(), good);
}

#[test]
fn a_lock_directory_that_fails_is_reported_once_and_changes_nothing() {
    let node = Node::new(2);
    let claims = [("a", "gpu-00000000"), ("b", "gpu-00000001")].map(|(name, gpu)| allocate(name, &[("gpu", gpu)]));
    for claim in &claims {
        node.prepare(claim).unwrap();
        std::fs::remove_file(node.claim_spec_path(claim)).unwrap();
    }
    let hidden = node.dir.path().join("hidden");
    std::fs::rename(node.locks_dir(), &hidden).unwrap();
    let report = node.engine.reconcile(&alive);
    assert!(report.repaired.is_empty() && !report.is_complete());
    let reported: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        reported,
        ["failed to remove unused lock files", "failed to lock claims or GPUs, so they are not reconciled"]
    );
    std::fs::rename(&hidden, node.locks_dir()).unwrap();
    let report = node.engine.reconcile(&alive);
    assert!(report.repaired.len() == 2 && report.is_complete(), "{report:?}");
}

#[test]
fn unused_files_of_this_driver_are_removed_and_files_of_others_stay() {
    let node = Node::new(1);
    let claim = allocate("a", &[("gpu", "gpu-00000000")]);
    node.prepare(&claim).unwrap();
    let (cdi, state) = (node.cdi_dir(), node.state_dir());
    let ours = [
        cdi.join("k8s.gpu.nvidia.com-claim_lost.json"),
        cdi.join("k8s.gpu.nvidia.com-base_1.2.3.json"),
        cdi.join(".k8s.gpu.nvidia.com-claim_lost.json.lost.tmp"),
        state.join("claims/.lost.json.lost.tmp"),
        node.locks_dir().join("claim-lost.lock"),
        node.locks_dir().join("gpu-0.lock"),
    ];
    let foreign = [
        cdi.join("k8s.gpu.nvidia.com-claim_old.yaml"),
        cdi.join("k8s.gpu.nvidia.com-claim_x.json"),
        state.join("claims/README"),
    ];
    let unrelated = [cdi.join("nvidia.com-gpu.yaml"), state.join("checkpoint.json")];
    for path in ours.iter().chain(&unrelated).chain(&foreign) {
        std::fs::write(path, "{\"kind\":\"other.example/x\"}").unwrap();
    }
    for path in &ours[..2] {
        std::fs::write(path, "half a sp").unwrap();
    }
    let report = node.engine.reconcile(&alive);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert!(ours.iter().all(|path| !path.exists()), "{:?}", node.names("cdi"));
    assert!(foreign.iter().chain(&unrelated).all(|path| path.exists()));
    let mut reported = report.foreign;
    reported.sort();
    assert_eq!(reported, foreign);
    assert_eq!(report.removed, [ours[1].clone(), ours[0].clone()]);
    assert_eq!(node.names("cdi").len(), 5);
}

#[test]
fn an_old_base_spec_stays_until_no_claim_uses_it_and_repairs_use_it() {
    let node = Node::new(2);
    let old = allocate("old", &[("gpu", "gpu-00000000")]);
    node.prepare(&old).unwrap();
    install_driver(node.dir.path(), "560.35.3");
    let new = allocate("new", &[("gpu", "gpu-00000001")]);
    node.prepare(&new).unwrap();
    std::fs::remove_file(node.claim_spec_path(&old)).unwrap();
    let report = node.engine.reconcile(&alive);
    assert_eq!((report.repaired.len(), report.removed.len()), (1, 0));
    assert_eq!(node.names("cdi").len(), 4, "two bases and two claims");
    node.engine.unprepare(&old.reference).unwrap();
    let report = node.engine.reconcile(&alive);
    assert_eq!(report.removed, [node.cdi_dir().join("k8s.gpu.nvidia.com-base_550.54.15.json")]);
}

#[test]
fn the_hook_of_an_earlier_version_stays_while_a_base_spec_names_it() {
    let mut node = Node::new(2);
    let release = |node: &Node, version: u32| {
        let path = node.dir.path().join(HOOK_PROGRAM);
        std::fs::write(&path, format!("#!/bin/sh\n# Version {version}.\n")).unwrap();
    };
    let hooks = |node: &Node| {
        let entries = std::fs::read_dir(node.dir.path().join("hooks")).unwrap();
        entries.map(|entry| entry.unwrap().path().display().to_string()).collect::<Vec<_>>()
    };
    let base = |node: &Node, version: &str| {
        let name = format!("k8s.gpu.nvidia.com-base_{version}.json");
        let spec: Value = serde_json::from_slice(&std::fs::read(node.cdi_dir().join(name)).unwrap()).unwrap();
        spec["devices"][0]["containerEdits"]["hooks"][0]["path"].as_str().map(str::to_owned)
    };
    release(&node, 1);
    node.restart();
    node.prepare(&allocate("a", &[("gpu", "gpu-00000000")])).unwrap();
    let first = base(&node, VERSION);
    assert_eq!(hooks(&node), [first.clone().unwrap()]);
    // The base spec of this claim is that of a driver that is not loaded any more, so nothing replaces it.
    install_driver(node.dir.path(), "560.35.3");
    release(&node, 2);
    node.restart();
    node.prepare(&allocate("b", &[("gpu", "gpu-00000001")])).unwrap();
    for _ in 0..3 {
        assert!(node.engine.reconcile(&alive).removed.is_empty());
    }
    assert_eq!(base(&node, VERSION), first);
    assert_ne!(base(&node, "560.35.3"), first);
    assert_eq!(hooks(&node).len(), 2);
    for claim in ["a", "b"] {
        node.engine.unprepare(&allocate(claim, &[]).reference).unwrap();
    }
    assert_eq!(node.engine.reconcile(&alive).removed.len(), 1, "the base spec of the first driver");
    assert_eq!(node.engine.reconcile(&alive).removed, [PathBuf::from(first.unwrap())]);
    assert!(node.engine.retire());
    assert_eq!(hooks(&node), Vec::<String>::new());
}

#[test]
fn a_hook_that_cannot_be_installed_is_a_problem_and_no_claim_fails() {
    let mut node = Node::new(1);
    std::fs::write(node.dir.path().join(HOOK_PROGRAM), "no program").unwrap();
    node.restart();
    node.prepare(&allocate("a", &[("gpu", "gpu-00000000")])).unwrap();
    let spec = std::fs::read_to_string(node.cdi_dir().join(format!("k8s.gpu.nvidia.com-base_{VERSION}.json"))).unwrap();
    assert!(!spec.contains("hooks"));
    let problems = node.engine.reconcile(&alive).problems;
    assert!(matches!(&problems[..], [Problem::Hook { .. }]), "{problems:?}");
    std::fs::write(node.dir.path().join(HOOK_PROGRAM), "#!/bin/sh\n").unwrap();
    assert!(node.engine.reconcile(&alive).problems.is_empty());
    node.prepare(&allocate("a", &[("gpu", "gpu-00000000")])).unwrap();
    let spec = std::fs::read_to_string(node.cdi_dir().join(format!("k8s.gpu.nvidia.com-base_{VERSION}.json"))).unwrap();
    assert!(spec.contains("createContainer"));
}

#[test]
fn a_damaged_record_is_reported_and_its_spec_stays_until_its_claim_is_prepared_again() {
    let mut node = Node::new(1);
    let claim = allocate("a", &[("gpu", "gpu-00000000")]);
    let answer = node.prepare(&claim).unwrap();
    let path = node.state_dir().join("claims/uid-a.json");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - 30);
    std::fs::write(&path, bytes).unwrap();
    node.restart();
    for _ in 0..2 {
        let report = node.engine.reconcile(&alive);
        assert_eq!(report.quarantined.len(), 1);
        assert!(report.quarantined[0].reason.starts_with("damaged: "), "{}", report.quarantined[0].reason);
        assert_eq!(report.quarantined[0].salvaged.devices, ["gpu-00000000".parse().unwrap()]);
    }
    assert_eq!(node.names("cdi").len(), 2, "its pod may be running");
    assert_eq!(node.prepare(&claim).unwrap(), answer);
    assert!(node.engine.reconcile(&alive).quarantined.is_empty());
    assert_eq!(
        node.names("quarantine"),
        ["uid-a.json.reason", "uid-a.json.settled"],
        "the files stay for the administrator"
    );
    node.engine.unprepare(&claim.reference).unwrap();
    assert!(node.names("claims").is_empty());
}

#[test]
fn without_a_driver_claims_that_are_gone_are_undone_and_nothing_is_collected_wrongly() {
    let node = Node::new(2);
    let (dead, living) = (allocate("dead", &[("gpu", "gpu-00000000")]), allocate("living", &[("gpu", "gpu-00000001")]));
    node.prepare(&dead).unwrap();
    node.prepare(&living).unwrap();
    node.machine.set_driver_loaded(false);
    std::fs::remove_dir_all(node.dir.path().join("usr")).unwrap();
    let asked = RefCell::new(Vec::new());
    let look_up = |claim: &ClaimRef| {
        asked.borrow_mut().push(claim.name.clone());
        if claim.name == "dead" { ClaimLookup::Gone } else { ClaimLookup::Allocated }
    };
    node.engine.reconcile(&look_up);
    let report = node.engine.reconcile(&look_up);
    assert_eq!(report.undone, [dead.reference]);
    assert!(!report.problems.is_empty());
    assert_eq!(node.names("cdi").len(), 2);
    assert_eq!(asked.into_inner(), ["dead", "living", "dead", "living"]);
}

#[test]
fn a_read_only_disk_is_reported_and_stops_nothing_else() {
    let node = Node::new(1);
    let claim = allocate("a", &[("gpu", "gpu-00000000")]);
    node.prepare(&claim).unwrap();
    std::fs::remove_file(node.claim_spec_path(&claim)).unwrap();
    node.files.fail_after(0, Fault::FromNowOn(Errno::ROFS));
    let report = node.engine.reconcile(&alive);
    assert_eq!((report.problems.len(), report.repaired.len()), (1, 0));
    node.files.heal();
    assert_eq!(node.engine.reconcile(&alive).repaired, [claim.reference]);
}
