// SPDX-License-Identifier: Apache-2.0
//! Claims whose records are damaged while their pods run: no other claim gets their devices.

use std::path::{Path, PathBuf};

use dra_files::faults::Fault;
use dra_model::{Claim, ClaimRef};
use dra_prepare::{ClaimLookup, PrepareCause, Refusal, UnprepareCause};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;

use crate::node::{Node, allocate};

fn record_path(node: &Node, claim: &Claim) -> PathBuf {
    node.state_dir().join(format!("claims/{}.json", claim.reference.uid))
}

/// A node on which `holder` has its only GPU, and `thief`.
fn held() -> (Node, Claim, Claim) {
    let node = Node::new(1);
    let [holder, thief] = ["holder", "thief"].map(|name| allocate(name, &[("gpu", "gpu-00000000")]));
    node.prepare(&holder).unwrap();
    (node, holder, thief)
}

fn damage(node: &Node, claim: &Claim, spoil: impl FnOnce(&mut Vec<u8>)) {
    let path = record_path(node, claim);
    let mut bytes = std::fs::read(&path).unwrap();
    spoil(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn assert_refused(node: &Node, claim: &Claim, situation: &str) {
    let outcome = node.prepare(claim);
    let Err(error) = outcome else { panic!("given away: {situation}") };
    let held = matches!(&*error.cause, PrepareCause::Refused(Refusal::HeldByQuarantined { .. } | Refusal::Held { .. }));
    assert!(held, "{situation}: {error}");
}

/// By name, as the API server is asked.
fn alive(claim: &ClaimRef) -> ClaimLookup {
    if claim.to_string() == "ns/holder" { ClaimLookup::Allocated } else { ClaimLookup::Gone }
}

#[test]
fn no_flipped_bit_of_a_record_releases_a_device() {
    let (mut node, holder, thief) = held();
    let good = std::fs::read(record_path(&node, &holder)).unwrap();
    for at in 0..good.len() {
        damage(&node, &holder, |bytes| bytes[at] ^= 1 << (at % 8));
        node.restart();
        for _ in 0..2 {
            node.engine.reconcile(&alive);
        }
        assert_refused(&node, &thief, &format!("byte {at}"));
        assert!(node.claim_spec_path(&holder).exists(), "byte {at}");
        std::fs::remove_dir_all(node.state_dir().join("quarantine")).unwrap();
        std::fs::write(record_path(&node, &holder), &good).unwrap();
        node.restart();
    }
}

#[test]
fn a_truncated_or_lost_record_releases_no_device() {
    let (mut node, holder, thief) = held();
    let good = std::fs::read(record_path(&node, &holder)).unwrap();
    for keep in 0..good.len() {
        damage_again(&node, &holder, &good[..keep]);
        node.restart();
        node.engine.reconcile(&alive);
        assert_refused(&node, &thief, &format!("{keep} bytes"));
    }
    damage_again(&node, &holder, b"\0garbage");
    for _ in 0..3 {
        node.engine.reconcile(&|_| ClaimLookup::Gone);
    }
    assert_refused(&node, &thief, "garbage");
    node.engine.unprepare(&holder.reference).unwrap();
    node.prepare(&thief).unwrap();
}

fn damage_again(node: &Node, claim: &Claim, bytes: &[u8]) {
    std::fs::write(record_path(node, claim), bytes).unwrap();
}

#[test]
fn a_quarantined_claim_releases_its_devices_when_it_is_unprepared_or_certainly_gone() {
    let ends: [fn(&Node, &Claim); 2] = [
        |node, holder| node.engine.unprepare(&holder.reference).unwrap(),
        |node, holder| {
            let gone = |_: &ClaimRef| ClaimLookup::Gone;
            assert!(node.engine.reconcile(&gone).undone.is_empty());
            assert_eq!(node.engine.reconcile(&gone).undone, std::slice::from_ref(&holder.reference));
        },
    ];
    for end in ends {
        let (mut node, holder, thief) = held();
        damage(&node, &holder, |bytes| bytes.truncate(bytes.len() - 100));
        node.restart();
        assert_refused(&node, &thief, "before");
        assert!(!node.engine.retire());
        end(&node, &holder);
        assert!(!node.claim_spec_path(&holder).exists());
        assert!(node.engine.reconcile(&alive).quarantined.is_empty());
        node.prepare(&thief).unwrap();
        node.engine.unprepare(&thief.reference).unwrap();
        node.engine.unprepare(&holder.reference).unwrap();
        assert!(node.engine.retire(), "what is there for people keeps nothing");
    }
}

/// Nothing is known of it then but what its spec says.
#[test]
fn a_damaged_record_reserves_only_its_own_devices() {
    let mut node = Node::new(2);
    let holder = allocate("holder", &[("gpu", "gpu-00000000")]);
    node.prepare(&holder).unwrap();
    let [thief, other] =
        [("thief", "gpu-00000000"), ("other", "gpu-00000001")].map(|(name, device)| allocate(name, &[("gpu", device)]));
    node.files.lose(&record_path(&node, &holder));
    assert_refused(&node, &thief, "unreadable");
    node.prepare(&other).unwrap();
    node.engine.unprepare(&other.reference).unwrap();
    let error = node.engine.unprepare(&holder.reference).unwrap_err();
    assert!(matches!(&*error.cause, UnprepareCause::Record { .. }), "{error}");
    node.engine.reconcile(&alive);
    assert!(node.claim_spec_path(&holder).exists());
    node.restart();
    node.engine.unprepare(&holder.reference).unwrap();
    node.prepare(&thief).unwrap();
}

#[test]
fn a_directory_in_place_of_a_record_is_quarantined() {
    let put: [fn(&Path); 3] = [
        |path| std::fs::create_dir(path).unwrap(),
        |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        |path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
    ];
    for put in put {
        let (node, holder, thief) = held();
        let path = record_path(&node, &holder);
        std::fs::remove_file(&path).unwrap();
        put(&path);
        assert_refused(&node, &thief, "what its spec names is held");
        node.prepare(&holder).unwrap();
        node.engine.unprepare(&holder.reference).unwrap();
        node.prepare(&thief).unwrap();
    }
}

/// What the API server would be asked about may be the name that is damaged.
#[test]
fn a_record_with_a_flipped_bit_reserves_its_devices_until_it_is_unprepared() {
    let (mut node, holder, thief) = held();
    damage(&node, &holder, |bytes| bytes[200] ^= 1);
    node.restart();
    for _ in 0..3 {
        node.engine.reconcile(&|_| ClaimLookup::Gone);
    }
    assert_refused(&node, &thief, "gone by a name that may be wrong");
    node.engine.unprepare(&holder.reference).unwrap();
    node.prepare(&thief).unwrap();
}

#[test]
fn a_person_may_remove_the_file_that_the_refusal_names() {
    let (node, holder, thief) = held();
    damage_again(&node, &holder, b"");
    let refused = node.prepare(&thief).unwrap_err().to_string();
    let path = node.state_dir().join("quarantine/uid-holder.json");
    assert!(refused.contains("the claim with UID uid-holder") && refused.contains(path.to_str().unwrap()), "{refused}");
    std::fs::remove_file(path).unwrap();
    node.prepare(&thief).unwrap();
}

#[test]
fn preparing_a_quarantined_claim_again_can_crash_at_every_effect() {
    for fault in [Fault::Crash, Fault::Once(Errno::NOSPC), Fault::FromNowOn(Errno::ROFS)] {
        for at in 0..9 {
            for garbage in [false, true] {
                let (mut node, holder, thief) = held();
                damage(&node, &holder, |bytes| if garbage { bytes.clear() } else { bytes[200] ^= 1 });
                node.files.fail_after(at, fault);
                let outcome = node.prepare(&holder);
                node.restart();
                node.engine.reconcile(&alive);
                assert_refused(&node, &thief, &format!("{fault:?} at {at}, garbage {garbage}"));
                let answer = node.prepare(&holder).unwrap();
                assert!(outcome.is_err() || outcome.is_ok_and(|before| before == answer));
                assert!(node.engine.reconcile(&alive).quarantined.is_empty());
                assert_refused(&node, &thief, "prepared again");
                node.files.fail_after(at, fault);
                let outcome = node.engine.unprepare(&holder.reference);
                node.restart();
                if outcome.is_err() {
                    node.engine.unprepare(&holder.reference).unwrap();
                }
                node.prepare(&thief).unwrap();
            }
        }
    }
}

#[test]
fn mig_devices_of_one_gpu_do_not_block_each_other() {
    let mut node = Node::new(1);
    node.machine.cut(0, &[0, 4], 1);
    node.redraw();
    let holder = allocate("holder", &[("mig", "gpu-00000000-mig-19-0")]);
    let [same, other] = [("same", "gpu-00000000-mig-19-0"), ("other", "gpu-00000000-mig-19-4")]
        .map(|(name, mig)| allocate(name, &[("mig", mig)]));
    node.prepare(&holder).unwrap();
    damage_again(&node, &holder, b"garbage");
    node.restart();
    assert_refused(&node, &same, "the same device");
    node.prepare(&other).unwrap();
}
