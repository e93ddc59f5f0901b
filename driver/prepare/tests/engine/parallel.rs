// SPDX-License-Identifier: Apache-2.0
//! Calls side by side: never two on one GPU, never one that waits for another GPU.

use std::time::Duration;

use dra_model::{Disposition, Interval, explain};
use dra_prepare::PrepareCause;

use crate::node::{Node, allocate, request_sharing, share, shares};
use crate::sharing::time_slicing;

#[test]
fn a_slow_gpu_delays_no_claim_of_other_gpus_and_the_error_names_the_holder() {
    let mut node = Node::new(2);
    let slow = allocate("slow", &[("gpu", "gpu-00000000")]);
    let waits = allocate("waits", &[("gpu", "gpu-00000000")]);
    let other = allocate("other", &[("gpu", "gpu-00000001")]);
    node.lock_timeout = Duration::from_millis(50);
    node.restart();
    // A first look at all GPUs, while they still answer.
    node.prepare(&other).unwrap();
    node.engine.unprepare(&other.reference).unwrap();
    node.machine.set_slow(0, true);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| node.prepare(&slow));
        node.machine.wait_until_asked();
        node.prepare(&other).unwrap();
        let error = node.prepare(&waits).unwrap_err();
        assert_eq!(explain(&error), "claim ns/waits: gpu-00000000 is locked by claim ns/slow; the kubelet retries");
        assert_eq!(error.cause.disposition(), Disposition::Busy);
        let again = node.prepare(&slow).unwrap_err();
        assert_eq!(explain(&again), "claim ns/slow: the claim is locked by another kubelet call; the kubelet retries");
        node.machine.set_slow(0, false);
        first.join().unwrap().unwrap();
    });
    assert!(node.prepare(&slow).is_ok());
}

#[test]
fn settings_of_one_gpu_are_changed_by_one_call_at_a_time_and_those_of_another_meanwhile() {
    let mut node = Node::new(2);
    let long = |name, gpu| {
        let share = share("some", &format!("gpu-0000000{gpu}-ts"), &format!("s-{name}"), 1000, None);
        request_sharing(shares(name, vec![share]), &[], "GpuConfig", &time_slicing("Long"))
    };
    node.lock_timeout = Duration::from_millis(50);
    node.restart();
    node.machine.set_slow_to_set(0, true);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| node.prepare(&long("first", 0)));
        node.machine.wait_until_asked();
        node.prepare(&long("other", 1)).unwrap();
        assert_eq!(node.machine.settings(1).1, Some(Interval::Long));
        let error = node.prepare(&long("second", 0)).unwrap_err();
        assert_eq!(error.cause.disposition(), Disposition::Busy);
        assert_eq!(node.machine.settings(0).1, Some(Interval::Default));
        node.machine.set_slow_to_set(0, false);
        first.join().unwrap().unwrap();
    });
    assert_eq!(node.machine.settings(0).1, Some(Interval::Long));
    node.prepare(&long("second", 0)).unwrap();
}

#[test]
fn a_prepare_that_waited_does_not_bring_an_unprepared_claim_back() {
    let node = Node::new(1);
    let claim = allocate("a", &[("gpu", "gpu-00000000")]);
    node.prepare(&claim).unwrap();
    node.engine.unprepare(&claim.reference).unwrap();
    node.machine.set_slow(0, true);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| node.prepare(&claim));
        node.machine.wait_until_asked();
        let second = scope.spawn(|| node.prepare(&claim));
        let unprepare = scope.spawn(|| node.engine.unprepare(&claim.reference));
        node.machine.set_slow(0, false);
        first.join().unwrap().unwrap();
        let second = second.join().unwrap();
        unprepare.join().unwrap().unwrap();
        // Either the second came before the unprepare, or was superseded by it, or began after it.
        if let Err(error) = &second {
            assert!(matches!(*error.cause, PrepareCause::Superseded), "{error}");
            assert!(node.names("claims").is_empty());
        }
    });
}

#[test]
fn many_claims_at_once_share_one_base_and_leave_no_lock() {
    let node = Node::new(8);
    let claims: Vec<_> =
        (0..8).map(|at| allocate(&format!("c{at}"), &[("gpu", &format!("gpu-0000000{at}"))])).collect();
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for claim in &claims {
                scope.spawn(|| node.prepare(claim).unwrap());
            }
        });
        assert_eq!((node.names("claims").len(), node.names("cdi").len(), node.claim_locks().len()), (8, 9, 0));
        std::thread::scope(|scope| {
            for claim in &claims {
                scope.spawn(|| node.engine.unprepare(&claim.reference).unwrap());
            }
        });
        assert_eq!((node.names("claims").len(), node.names("cdi").len(), node.claim_locks().len()), (0, 1, 0));
    }
}
