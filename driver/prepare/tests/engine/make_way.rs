// SPDX-License-Identifier: Apache-2.0
//! Claims that hold a requested device: those that no pod can use any more are unprepared, the others stay.

use std::cell::RefCell;
use std::time::Duration;

use dra_model::{Claim, ClaimRef};
use dra_prepare::{ClaimLookup, PrepareCause, Refusal};
use rustix::fs::{FlockOperation, flock};

use crate::node::{Node, allocate, request_sharing};
use crate::sharing::{is_tidy, mps_share, time_slicing, ts_share};

/// Claims of which the second cannot be prepared beside the first, each pair for another reason.
fn pairs() -> Vec<[Claim; 2]> {
    let whole = |name| allocate(name, &[("gpu", "gpu-00000000")]);
    let time_slices = |name, interval| request_sharing(ts_share(name, 1000), &[], "GpuConfig", &time_slicing(interval));
    vec![
        [whole("before"), whole("after")],
        [whole("before"), mps_share("after", 1000, 10)],
        [mps_share("before", 1000, 10), ts_share("after", 1000)],
        [time_slices("before", "Long"), time_slices("after", "Short")],
        [mps_share("before", 50_000, 10), mps_share("after", 50_000, 10)],
    ]
}

fn is_ending(cause: &PrepareCause) -> bool {
    matches!(cause, PrepareCause::Refused(Refusal::Ending { .. }))
}

#[test]
fn a_claim_that_no_pod_can_use_releases_its_devices_at_the_second_lookup_and_is_not_named() {
    for lookup in [ClaimLookup::Gone, ClaimLookup::Released] {
        for [before, after] in pairs() {
            let node = Node::new(1);
            node.prepare(&before).unwrap();
            let error = node.prepare_beside(&after, &|_| lookup).unwrap_err();
            assert!(is_ending(&error.cause), "its containers may still be ending: {error}");
            assert!(!error.to_string().contains("ns/before"), "{error}");
            assert!(node.claim_spec_path(&before).exists());
            node.prepare_beside(&after, &|_| lookup).unwrap();
            assert_eq!(node.names("claims"), ["uid-after.json"]);
            assert!(!node.claim_spec_path(&before).exists());
            node.engine.unprepare(&after.reference).unwrap();
            is_tidy(&node);
        }
    }
}

#[test]
fn a_claim_that_the_reconciliation_missed_makes_room_at_once() {
    let [before, after] = &pairs()[0];
    let node = Node::new(1);
    node.prepare(before).unwrap();
    let report = node.engine.reconcile(&|_| ClaimLookup::Gone);
    assert_eq!((report.missing.as_slice(), report.undone.len()), (std::slice::from_ref(&before.reference), 0));
    node.prepare_beside(after, &|_| ClaimLookup::Gone).unwrap();
}

#[test]
fn a_claim_that_may_exist_stays_prepared_and_the_refusal_names_it() {
    for lookup in [ClaimLookup::Allocated, ClaimLookup::Unknown] {
        for [before, after] in pairs() {
            let node = Node::new(1);
            node.prepare(&before).unwrap();
            for _ in 0..2 {
                let error = node.prepare_beside(&after, &|_| lookup).unwrap_err();
                assert!(matches!(&*error.cause, PrepareCause::Refused(_)) && !is_ending(&error.cause), "{error}");
            }
            assert_eq!(node.names("claims"), ["uid-before.json"]);
        }
    }
}

#[test]
fn a_missing_claim_is_left_to_the_kubelet_for_its_grace_period_which_restarts_when_the_claim_is_found() {
    let [before, after] = &pairs()[0];
    let mut node = Node::new(1);
    node.grace = Duration::from_hours(1);
    node.restart();
    node.prepare(before).unwrap();
    for _ in 0..3 {
        assert!(is_ending(&node.prepare_beside(after, &|_| ClaimLookup::Gone).unwrap_err().cause));
        assert!(node.engine.reconcile(&|_| ClaimLookup::Gone).undone.is_empty());
    }
    node.grace = Duration::ZERO;
    node.restart();
    assert!(is_ending(&node.prepare_beside(after, &|_| ClaimLookup::Released).unwrap_err().cause));
    node.prepare(before).unwrap();
    assert!(is_ending(&node.prepare_beside(after, &|_| ClaimLookup::Released).unwrap_err().cause), "a pod was started");
    node.prepare_beside(after, &|_| ClaimLookup::Released).unwrap();
}

#[test]
fn a_claim_without_containers_in_this_boot_makes_room_in_the_same_call() {
    for [before, after] in pairs() {
        let mut node = Node::new(1);
        node.prepare(&before).unwrap();
        node.reboot();
        node.prepare_beside(&after, &|_| ClaimLookup::Gone).unwrap();
        assert_eq!(node.names("claims"), ["uid-after.json"]);
    }
}

#[test]
fn all_claims_that_hold_the_devices_are_looked_up_once_and_release_them_in_one_call() {
    let node = Node::new(3);
    let holders = [0, 1, 2].map(|gpu| allocate(&format!("h{gpu}"), &[("gpu", &format!("gpu-0000000{gpu}"))]));
    for holder in &holders {
        node.prepare(holder).unwrap();
    }
    node.engine.reconcile(&|_| ClaimLookup::Gone);
    let asked = RefCell::new(Vec::new());
    let look_up = |claim: &ClaimRef| {
        asked.borrow_mut().push(claim.name.clone());
        if claim.name == "h2" { ClaimLookup::Allocated } else { ClaimLookup::Gone }
    };
    let all = allocate("all", &[("a", "gpu-00000000"), ("b", "gpu-00000001"), ("c", "gpu-00000002")]);
    let error = node.prepare_beside(&all, &look_up).unwrap_err().to_string();
    assert!(error.contains("is held by claim ns/h2"), "{error}");
    assert_eq!(*asked.borrow(), ["h0", "h1", "h2"]);
    assert_eq!(node.names("claims"), ["uid-h2.json"]);
}

#[test]
fn a_claim_that_another_call_works_on_is_not_waited_for() {
    let [before, after] = &pairs()[0];
    let node = Node::new(1);
    node.prepare(before).unwrap();
    node.engine.reconcile(&|_| ClaimLookup::Gone);
    let path = node.locks_dir().join("claim-uid-before.lock");
    let file = std::fs::File::create(&path).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    assert!(is_ending(&node.prepare_beside(after, &|_| ClaimLookup::Gone).unwrap_err().cause));
    drop(file);
    node.prepare_beside(after, &|_| ClaimLookup::Gone).unwrap();
}

#[test]
fn a_quarantined_claim_that_is_gone_releases_its_devices_at_the_second_lookup() {
    let [before, after] = &pairs()[0];
    let node = Node::new(1);
    node.prepare(before).unwrap();
    let path = node.state_dir().join("claims/uid-before.json");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    assert!(node.prepare(after).unwrap_err().to_string().contains(" is damaged"));
    assert!(is_ending(&node.prepare_beside(after, &|_| ClaimLookup::Gone).unwrap_err().cause));
    node.prepare_beside(after, &|_| ClaimLookup::Gone).unwrap();
}
