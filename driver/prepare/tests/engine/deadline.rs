// SPDX-License-Identifier: Apache-2.0
//! A call that has a deadline: all that it waits for ends by then, and it says what that was.

use std::time::Duration;

use dra_hardware::Deadline;
use dra_model::{Claim, ComputeMode, Disposition, Interval, explain};
use dra_prepare::{ClaimLookup, PrepareError, PreparedDevice};

use serde_json::json;

use crate::node::{Node, allocate, request_sharing, share, shares};
use crate::sharing::time_slicing;

/// Far less than each of the waits may take alone.
fn soon() -> Deadline {
    Deadline::after(Duration::from_millis(50))
}

fn prepare(node: &Node, claim: &Claim, deadline: &Deadline) -> Result<Vec<PreparedDevice>, PrepareError> {
    node.engine.prepare_until(&claim.reference, &|| Ok(claim.clone()), &|_| ClaimLookup::Allocated, deadline)
}

#[test]
fn gpus_that_hang_are_waited_for_together_no_longer_than_the_call_lasts() {
    let node = Node::new(2);
    let claim = allocate("a", &[("one", "gpu-00000000"), ("two", "gpu-00000001")]);
    node.prepare(&claim).unwrap();
    node.engine.unprepare(&claim.reference).unwrap();
    for gpu in 0..2 {
        node.machine.set_slow(gpu, true);
    }
    let error = prepare(&node, &claim, &soon()).unwrap_err();
    let text = explain(&error);
    let waited_for = "GPU-00000000-1111-2222-3333-444444444444";
    assert_eq!(
        text,
        format!(
            "claim ns/a: the claim is not prepared yet: the call timed out before NVML answered for {waited_for}; the kubelet retries"
        )
    );
    assert_eq!(error.cause.disposition(), Disposition::Transient);
    assert!(node.names("claims").is_empty());
    for gpu in 0..2 {
        node.machine.set_slow(gpu, false);
    }
    while node.prepare(&claim).is_err() {
        std::thread::yield_now();
    }
}

#[test]
fn the_search_for_an_unknown_device_ends_with_the_deadline_of_the_call() {
    let node = Node::new(2);
    node.machine.set_slow(1, true);
    let error = prepare(&node, &allocate("a", &[("one", "gpu-00000007")]), &soon()).unwrap_err();
    let text = explain(&error);
    let expect = "claim ns/a: the claim is not prepared yet: the call timed out before NVML answered for the GPUs of this node; the kubelet retries";
    assert_eq!(text, expect);
    node.machine.set_slow(1, false);
}

#[test]
fn the_gpu_of_another_call_is_waited_for_no_longer_than_the_call_lasts() {
    let node = Node::new(1);
    let (slow, waits) = (allocate("slow", &[("gpu", "gpu-00000000")]), allocate("waits", &[("gpu", "gpu-00000000")]));
    node.prepare(&slow).unwrap();
    node.engine.unprepare(&slow.reference).unwrap();
    node.machine.set_slow(0, true);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| node.prepare(&slow));
        node.machine.wait_until_asked();
        // Alone, a lock is waited for 20 s.
        let deadline = soon();
        let error = prepare(&node, &waits, &deadline).unwrap_err();
        assert!(deadline.limit(Duration::MAX).is_zero());
        assert_eq!(explain(&error), "claim ns/waits: gpu-00000000 is locked by claim ns/slow; the kubelet retries");
        node.machine.set_slow(0, false);
        first.join().unwrap().unwrap();
    });
}

#[test]
fn the_mps_host_gets_the_deadline_of_the_call() {
    let node = Node::new(1);
    let claim = shares("a", vec![share("some", "gpu-00000000-mps", "s1", 1000, Some(10))]);
    let deadline = Deadline::after(Duration::from_secs(40));
    prepare(&node, &claim, &deadline).unwrap();
    node.engine.unprepare_until(&claim.reference, &deadline).unwrap();
    let deadlines = node.daemons.deadlines();
    assert!(deadlines.len() >= 3 && deadlines.iter().all(|it| *it == deadline), "{deadlines:?}");
}

/// As where persistence mode is off. The claim's other GPU is set up after it, which takes some time of the call too.
#[test]
fn a_program_that_takes_longer_than_the_call_continues_and_the_next_call_gets_its_result() {
    let node = Node::new(2);
    let claim = allocate("a", &[("ts", "gpu-00000000"), ("own", "gpu-00000001")]);
    let claim = request_sharing(claim, &["ts"], "GpuConfig", &time_slicing("Long"));
    let claim = request_sharing(claim, &["own"], "GpuConfig", &json!({"strategy": "Exclusive"}));
    node.machine.set_slow_program(0, true);
    // Long enough for the rest on a busy machine.
    let deadline = Deadline::after(Duration::from_secs(2));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| prepare(&node, &claim, &deadline));
        while !deadline.is_over() {
            std::thread::yield_now();
        }
        let what = "nvidia-smi to read the time-slice interval of GPU-00000000-1111-2222-3333-444444444444";
        assert_eq!(deadline.goes_on().as_deref(), Some(what));
        let again = prepare(&node, &claim, &soon()).unwrap_err();
        let expect = "claim ns/a: the claim is locked by another kubelet call; the kubelet retries";
        assert_eq!(explain(&again), expect);
        let unprepared = node.engine.unprepare_until(&claim.reference, &soon()).unwrap_err();
        assert_eq!(explain(&unprepared), expect);
        node.machine.set_slow_program(0, false);
        let answer = first.join().unwrap().unwrap();
        assert_eq!(node.machine.interval_calls(), 2, "one look, and one after it was set");
        assert_eq!(prepare(&node, &claim, &soon()).unwrap(), answer);
    });
    assert_eq!(node.machine.settings(0).1, Some(Interval::Long));
    assert_eq!(node.machine.settings(1).0, Some(ComputeMode::ExclusiveProcess));
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!(node.machine.settings(0).1, Some(Interval::Default));
}
