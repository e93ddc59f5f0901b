// SPDX-License-Identifier: Apache-2.0
//! Partitions: created for their claim, destroyed after it, whatever an administrator, a crash or a reboot does between.

use std::sync::Arc;
use std::time::Duration;

use dra_hardware::Deadline;
use dra_model::{Claim, LiveIdentity, MigOrigin, explain};
use dra_prepare::{ClaimLookup, MigChangeKind, PrepareCause, PreparedDevice, Reconciliation, Refusal};
use dra_sim::state::{Fault, MigUuids, Process};
use dra_sim::{Code, Simulator};
use parking_lot::{Condvar, Mutex};
use serde_json::json;

use crate::mig_node::MigNode;
use crate::node::{allocate, request_sharing};

fn claim(node: &MigNode, name: &str, devices: &[&str]) -> Claim {
    let devices: Vec<(String, String)> =
        devices.iter().enumerate().map(|(at, suffix)| (format!("r{at}"), format!("{}{suffix}", node.gpu(0)))).collect();
    let devices: Vec<(&str, &str)> = devices.iter().map(|(request, name)| (request.as_str(), name.as_str())).collect();
    allocate(name, &devices)
}

fn uuid(device: &PreparedDevice) -> String {
    let LiveIdentity::Mig { ids, .. } = &device.identity else { panic!("{device:?}") };
    ids.uuid.to_string()
}

/// What an administrator does with nvidia-smi.
fn create(sim: &Simulator, profile: u32, start: u32, size: u32) {
    sim.poke(|state| {
        state.set_mig_mode(0, true).unwrap();
        let placement = dra_sim::catalog::Placement { start, size };
        let instance = state.create_gpu_instance(0, profile, Some(placement)).unwrap();
        let whole = state.profile_of(instance).unwrap();
        let compute = whole.compute.iter().find(|compute| compute.slices == whole.slices).unwrap();
        state.create_compute_instance(instance, compute.id, None).unwrap();
    });
}

fn destroy_all(sim: &Simulator) {
    sim.poke(|state| state.gpus[0].instances.clear());
}

fn fail(sim: &Simulator, call: &str, code: u32, times: u64) {
    let fault = Fault { call: call.to_owned(), gpu: None, skip: 0, times: Some(times), code: Code(code) };
    sim.poke(|state| state.faults.push(fault));
}

#[test]
fn a_partition_exists_while_its_claim_is_prepared() {
    let node = MigNode::new(&["h100"]);
    let claim = claim(&node, "a", &["-mig-19-6"]);
    let answer = node.prepare(&claim).unwrap();
    assert_eq!((node.is_mig_on(0), node.instances(0)), (true, vec![(19, 6, 1)]));
    let LiveIdentity::Mig { identity, ids, profile } = &answer[0].identity else { panic!("{answer:?}") };
    assert_eq!((identity.profile_id, identity.placement.start, profile.as_str()), (19, 6, "1g.10gb"));
    let minor = 3 + ids.gpu_instance * 9;
    for path in ["/dev/nvidia0".to_owned(), format!("nvidia-cap{minor}\""), format!("nvidia-cap{}\"", minor + 1)] {
        assert!(node.spec(&claim).contains(&path), "{path} in {}", node.spec(&claim));
    }
    assert_eq!(node.prepare(&claim).unwrap(), answer, "a repeated call changes nothing");
    node.engine.unprepare(&claim.reference).unwrap();
    node.assert_untouched();
    let kinds: Vec<MigChangeKind> = node.engine.take_mig_changes().into_iter().map(|change| change.kind).collect();
    assert_eq!(kinds, [MigChangeKind::Created(ids.clone()), MigChangeKind::Destroyed]);
}

#[test]
fn mig_mode_stays_until_the_last_partition_is_gone_and_then_the_gpu_is_whole_again() {
    let node = MigNode::new(&["h100"]);
    let (one, two) = (claim(&node, "one", &["-mig-9-4", "-mig-14-0"]), claim(&node, "two", &["-mig-19-2"]));
    let whole = claim(&node, "whole", &[""]);
    node.prepare(&one).unwrap();
    node.prepare(&two).unwrap();
    let refused = node.prepare(&whole).unwrap_err();
    assert!(matches!(*refused.cause, PrepareCause::Refused(Refusal::Held { .. })), "{refused}");
    node.engine.unprepare(&one.reference).unwrap();
    assert_eq!((node.is_mig_on(0), node.instances(0)), (true, vec![(19, 2, 1)]));
    node.engine.unprepare(&two.reference).unwrap();
    assert!(!node.is_mig_on(0));
    node.prepare(&whole).unwrap();
    let refused = node.prepare(&two).unwrap_err();
    assert!(matches!(*refused.cause, PrepareCause::Refused(Refusal::Held { .. })), "{refused}");
    assert!(!node.is_mig_on(0));
    node.engine.unprepare(&whole.reference).unwrap();
    node.assert_untouched();
}

#[test]
fn every_partition_of_every_model_is_made_with_its_own_profile() {
    for model in ["h100", "h200", "b200", "gb200", "a100-40", "a100-80"] {
        let node = MigNode::new(&[model]);
        node.sim.poke(|state| {
            state.set_mig_mode(0, true).unwrap();
            state.reset_gpu(0).unwrap();
        });
        node.host.refresh();
        let inventory = node.host.latest();
        let gpu = inventory.usable_gpus().next().unwrap();
        for partition in gpu.partitions() {
            let name = inventory.names().mig(&partition.identity(&gpu.uuid));
            let claim = allocate("a", &[("r", &name)]);
            let answer = node.prepare(&claim).unwrap();
            let LiveIdentity::Mig { profile, .. } = &answer[0].identity else { panic!("{answer:?}") };
            assert_eq!(*profile, partition.profile.name, "{model}");
            node.engine.unprepare(&claim.reference).unwrap();
        }
        assert_eq!((node.instances(0), node.left()), (vec![], vec![]), "{model}");
        assert!(node.is_mig_on(0), "the mode of an administrator stays");
    }
}

#[test]
fn an_ampere_gpu_is_never_switched() {
    let node = MigNode::new(&["a100-40"]);
    let refused = node.prepare(&claim(&node, "a", &["-mig-19-6"])).unwrap_err();
    assert!(matches!(*refused.cause, PrepareCause::Refused(Refusal::MigGone { .. })), "{refused}");
    node.assert_untouched();
}

#[test]
fn instances_of_an_administrator_are_used_as_they_are_and_stay() {
    let node = MigNode::new(&["h100"]);
    create(&node.sim, 9, 0, 4);
    let (theirs, ours) = (claim(&node, "theirs", &["-mig-9-0"]), claim(&node, "ours", &["-mig-19-5"]));
    node.prepare(&theirs).unwrap();
    node.prepare(&ours).unwrap();
    assert_eq!(node.instances(0), [(9, 0, 1), (19, 5, 1)]);
    let over = node.prepare(&claim(&node, "over", &["-mig-19-1"])).unwrap_err();
    assert!(matches!(*over.cause, PrepareCause::Refused(Refusal::Occupied { .. })), "{over}");
    let whole = node.prepare(&claim(&node, "whole", &[""])).unwrap_err();
    assert!(matches!(*whole.cause, PrepareCause::Refused(Refusal::MigModeOn { .. })), "{whole}");
    for claim in [&theirs, &ours] {
        node.engine.unprepare(&claim.reference).unwrap();
    }
    assert_eq!((node.is_mig_on(0), node.instances(0)), (true, vec![(9, 0, 1)]));
    assert_eq!(node.left(), Vec::<String>::new());
}

/// What is published does not change when this driver creates or destroys.
#[test]
fn own_creations_withdraw_no_form() {
    let node = MigNode::new(&["h100"]);
    let forms = |node: &MigNode| {
        let inventory = node.host.refresh();
        let all: Vec<String> = inventory.forms().into_iter().map(|device| inventory.names().device(device)).collect();
        all
    };
    let before = forms(&node);
    assert_eq!(before.len(), 3 + 25);
    let claim = claim(&node, "a", &["-mig-9-4", "-mig-20-0"]);
    node.prepare(&claim).unwrap();
    assert_eq!(forms(&node), before);
    let inventory = node.host.latest();
    let origins = inventory.usable_gpus().flat_map(dra_model::Gpu::mig_devices).map(|mig| mig.origin);
    assert_eq!(origins.collect::<Vec<_>>(), [MigOrigin::ThisDriver; 2]);
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!(forms(&node), before);
}

/// Kills the process after each change of a GPU and each write, in the given work, and then goes on.
fn killed_everywhere(work: impl Fn(&MigNode, &Claim), then: impl Fn(&mut MigNode, &Claim)) {
    let setup = || {
        let node = MigNode::new(&["h100"]);
        let claim = claim(&node, "a", &["-mig-9-4", "-mig-19-2"]);
        (node, claim)
    };
    let (node, whole) = setup();
    work(&node, &whole);
    let (changes, writes) = (node.sim.effects(), node.files.effects());
    assert!(changes >= 5 && writes >= 4, "{changes} changes, {writes} writes");
    for at in 0..changes {
        let (mut node, claim) = setup();
        node.sim.cut_after(at + 1);
        work(&node, &claim);
        node.restart();
        then(&mut node, &claim);
    }
    for at in 0..writes {
        let (mut node, claim) = setup();
        node.files.fail_after(at, dra_files::faults::Fault::Crash);
        work(&node, &claim);
        node.restart();
        then(&mut node, &claim);
    }
}

fn prepared_and_unprepared(node: &mut MigNode, claim: &Claim) {
    assert_eq!(node.prepare(claim).unwrap().len(), 2);
    assert_eq!(node.instances(0), [(9, 4, 1), (19, 2, 1)]);
    node.engine.unprepare(&claim.reference).unwrap();
    node.assert_untouched();
}

#[test]
fn a_prepare_that_is_killed_anywhere_is_repeated() {
    let prepare = |node: &MigNode, claim: &Claim| drop(node.prepare(claim));
    killed_everywhere(prepare, prepared_and_unprepared);
}

#[test]
fn a_prepare_that_is_killed_anywhere_leaves_nothing_when_its_claim_is_gone() {
    let prepare = |node: &MigNode, claim: &Claim| drop(node.prepare(claim));
    killed_everywhere(prepare, |node, _| {
        for _ in 0..2 {
            let report = node.reconcile(ClaimLookup::Gone);
            assert!(report.problems.is_empty(), "{:?}", report.problems);
        }
        node.assert_untouched();
    });
}

#[test]
fn an_unprepare_that_is_killed_anywhere_is_repeated() {
    let both = |node: &MigNode, claim: &Claim| {
        drop(node.prepare(claim));
        drop(node.engine.unprepare(&claim.reference));
    };
    killed_everywhere(both, |node, claim| {
        node.engine.unprepare(&claim.reference).unwrap();
        node.reconcile(ClaimLookup::Gone);
        node.assert_untouched();
    });
}

/// The UUID that the record has is not that of the MIG device that is there when the process is killed.
#[test]
fn a_repair_that_is_killed_anywhere_is_repeated() {
    let repair = |node: &MigNode, claim: &Claim| {
        node.sim.poke(|state| state.mig_uuids = MigUuids::Fresh);
        drop(node.prepare(claim));
        if !node.is_killed() {
            destroy_all(&node.sim);
        }
        drop(node.prepare(claim));
    };
    killed_everywhere(repair, prepared_and_unprepared);
}

#[test]
fn a_failed_compute_instance_takes_its_gpu_instance_with_it() {
    let node = MigNode::new(&["h100"]);
    fail(&node.sim, "nvmlGpuInstanceCreateComputeInstance", 23, 1);
    let claim = claim(&node, "a", &["-mig-9-4"]);
    let failed = explain(&node.prepare(&claim).unwrap_err());
    assert!(failed.contains("failed to create the MIG device of profile 9 at 4:4"), "{failed}");
    node.assert_untouched();
    node.prepare(&claim).unwrap();
}

#[test]
fn an_instance_that_an_administrator_makes_at_the_last_moment_stays() {
    let node = MigNode::new(&["h100"]);
    node.before_create(|sim| create(sim, 19, 6, 1));
    let claim = claim(&node, "a", &["-mig-19-6"]);
    let failed = explain(&node.prepare(&claim).unwrap_err());
    assert!(failed.contains("GPU instance") && failed.contains("insufficient resources"), "{failed}");
    assert_eq!((node.is_mig_on(0), node.instances(0)), (true, vec![(19, 6, 1)]));
    assert_eq!(node.names_of_claims(), Vec::<String>::new());
    // Now it is one of the administrator's devices, and the same name means it.
    node.prepare(&claim).unwrap();
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!(node.instances(0), [(19, 6, 1)]);
}

#[test]
fn a_process_that_holds_the_instance_is_named_until_it_ends() {
    let node = MigNode::new(&["h100"]);
    let claim = claim(&node, "a", &["-mig-19-6"]);
    let answer = node.prepare(&claim).unwrap();
    let LiveIdentity::Mig { ids, .. } = &answer[0].identity else { panic!("{answer:?}") };
    let gpu_instance = Some(ids.gpu_instance);
    node.start_process(4711, "python3", Some("ns_train-0"), &[]);
    node.start_process(4712, "python3", Some("other_train-0"), &[]);
    node.start_process(4713, "nvidia-smi", None, &["dev/nvidia0"]);
    let elsewhere = Some(ids.gpu_instance + 1);
    let process = |pid, gpu_instance| Process { pid, gpu_instance, memory_mib: None };
    node.sim.poke(|state| {
        state.gpus[0].processes =
            vec![process(4711, gpu_instance), process(4712, gpu_instance), process(4714, elsewhere)];
    });
    let soon = Deadline::after(Duration::from_millis(300));
    let failed = explain(&node.engine.unprepare_until(&claim.reference, &soon).unwrap_err());
    let named = "held by process 4711 (python3 of pod ns/train-0), 4712 (of a pod of another namespace): ";
    assert!(failed.contains(named) && failed.contains("in use by another client"), "{failed}");
    assert_eq!(node.instances(0), [(19, 6, 1)]);
    node.sim.poke(|state| state.gpus[0].processes.clear());
    node.engine.unprepare(&claim.reference).unwrap();
    node.assert_untouched();
}

#[test]
fn a_client_that_blocks_the_mode_is_reported_and_no_mode_stays_pending() {
    let node = MigNode::new(&["h100"]);
    node.sim.poke(|state| state.gpus[0].clients = 1);
    node.start_process(812, "nvidia-persiste", None, &["dev/nvidiactl", "dev/nvidia0"]);
    node.start_process(813, "gpu-kubelet-plu", None, &["dev/nvidia0"]);
    node.start_process(814, "python3", None, &["dev/nvidiactl"]);
    let claim = claim(&node, "a", &["-mig-19-6"]);
    let soon = Deadline::after(Duration::from_millis(300));
    let fetch = || Ok(claim.clone());
    let failed = node.engine.prepare_until(&claim.reference, &fetch, &|_| ClaimLookup::Allocated, &soon);
    let failed = explain(&failed.unwrap_err());
    assert!(failed.contains("MIG mode") && failed.contains(", held by process 812 (nvidia-persiste): "), "{failed}");
    assert!(!node.sim.peek(|state| state.gpus[0].mig.unwrap().pending));
    node.sim.poke(|state| state.gpus[0].clients = 0);
    node.reconcile(ClaimLookup::Allocated);
    node.assert_untouched();
    node.prepare(&claim).unwrap();
}

/// The claim leaves, and the next one on that GPU waits.
#[test]
fn a_mode_that_cannot_be_turned_off_now_is_turned_off_later() {
    let node = MigNode::new(&["h100"]);
    let (mig, whole) = (claim(&node, "a", &["-mig-19-6"]), claim(&node, "whole", &[""]));
    node.prepare(&mig).unwrap();
    node.sim.poke(|state| state.gpus[0].clients = 1);
    let soon = || Deadline::after(Duration::from_millis(300));
    node.engine.unprepare_until(&mig.reference, &soon()).unwrap();
    assert_eq!((node.is_mig_on(0), node.instances(0)), (true, vec![]));
    let fetch = || Ok(whole.clone());
    let refused = node.engine.prepare_until(&whole.reference, &fetch, &|_| ClaimLookup::Allocated, &soon());
    assert!(matches!(*refused.unwrap_err().cause, PrepareCause::PendingRestore { .. }));
    node.sim.poke(|state| state.gpus[0].clients = 0);
    node.prepare(&whole).unwrap();
    assert!(!node.is_mig_on(0));
}

#[test]
fn a_lost_gpu_delays_no_claim_and_is_cleaned_when_it_returns() {
    let node = MigNode::new(&["h100"]);
    let claim = claim(&node, "a", &["-mig-19-6"]);
    node.prepare(&claim).unwrap();
    node.sim.poke(|state| state.gpus[0].lost = true);
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!(node.names_of_claims(), Vec::<String>::new());
    node.sim.poke(|state| state.gpus[0].lost = false);
    node.host.refresh();
    assert_eq!(node.host.latest().usable_gpus().next().unwrap().foreign_mig_devices().count(), 0);
    let report = node.reconcile(ClaimLookup::Gone);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    node.assert_untouched();
}

#[test]
fn a_partition_that_an_administrator_destroys_is_built_again() {
    let node = MigNode::new(&["h100"]);
    node.sim.poke(|state| state.mig_uuids = MigUuids::Fresh);
    let claim = claim(&node, "a", &["-mig-19-6"]);
    let before = uuid(&node.prepare(&claim).unwrap()[0]);
    destroy_all(&node.sim);
    let report = node.reconcile(ClaimLookup::Allocated);
    assert_eq!((report.problems.len(), report.repaired.len()), (0, 1), "{:?}", report.problems);
    let after = uuid(&node.prepare(&claim).unwrap()[0]);
    assert_eq!((after != before, node.instances(0)), (true, vec![(19, 6, 1)]));
    node.engine.unprepare(&claim.reference).unwrap();
    node.assert_untouched();
}

#[test]
fn a_partition_that_an_administrator_replaces_is_theirs() {
    let node = MigNode::new(&["h100"]);
    node.sim.poke(|state| state.mig_uuids = MigUuids::Fresh);
    let claim = claim(&node, "a", &["-mig-19-6"]);
    node.prepare(&claim).unwrap();
    destroy_all(&node.sim);
    create(&node.sim, 19, 6, 1);
    let failed = explain(&node.prepare(&claim).unwrap_err());
    assert!(failed.contains("was replaced"), "{failed}");
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!((node.is_mig_on(0), node.instances(0)), (true, vec![(19, 6, 1)]));
}

#[test]
fn after_a_reboot_a_living_claim_gets_its_partition_again_and_a_dead_one_leaves_nothing() {
    for is_allocated in [true, false] {
        let mut node = MigNode::new(&["h100"]);
        let claim = claim(&node, "a", &["-mig-9-4", "-mig-19-2"]);
        node.prepare(&claim).unwrap();
        node.reboot();
        assert!(!node.is_mig_on(0));
        if is_allocated {
            prepared_and_unprepared(&mut node, &claim);
        } else {
            node.reconcile(ClaimLookup::Gone);
            node.assert_untouched();
        }
    }
}

/// What a reboot leaves at the same placement is an administrator's.
#[test]
fn an_instance_of_another_boot_is_not_mistaken_for_an_own_one() {
    let mut node = MigNode::new(&["h100"]);
    let claim = claim(&node, "a", &["-mig-19-6"]);
    node.prepare(&claim).unwrap();
    node.reboot();
    create(&node.sim, 19, 6, 1);
    node.host.refresh();
    let report = node.reconcile(ClaimLookup::Gone);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(node.instances(0), [(19, 6, 1)]);
    assert_eq!(node.names_of_claims(), Vec::<String>::new());
}

#[test]
fn without_its_records_the_driver_destroys_nothing() {
    let mut node = MigNode::new(&["h100"]);
    let claim = claim(&node, "a", &["-mig-19-6"]);
    node.prepare(&claim).unwrap();
    std::fs::remove_dir_all(node.state_dir()).unwrap();
    node.restart();
    let names =
        |report: Reconciliation| -> Vec<String> { report.without_record.iter().map(ToString::to_string).collect() };
    assert_eq!(names(node.reconcile(ClaimLookup::Gone)), [format!("{}-mig-19-6", node.gpu(0))]);
    assert_eq!(names(node.reconcile(ClaimLookup::Gone)), [""; 0], "it is reported once");
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!((node.is_mig_on(0), node.instances(0)), (true, vec![(19, 6, 1)]));
    let inventory = node.host.refresh();
    assert_eq!(inventory.usable_gpus().next().unwrap().foreign_mig_devices().count(), 1);
}

#[test]
fn the_partition_of_a_damaged_record_goes_with_its_claim() {
    let mut node = MigNode::new(&["h100"]);
    let claim = claim(&node, "a", &["-mig-19-6"]);
    node.prepare(&claim).unwrap();
    let path = node.state_dir().join("claims/uid-a.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"base\"", "\"bade\"", 1)).unwrap();
    node.restart();
    node.reconcile(ClaimLookup::Allocated);
    assert_eq!(node.instances(0), [(19, 6, 1)]);
    assert_eq!(node.host.refresh().usable_gpus().next().unwrap().foreign_mig_devices().count(), 0);
    node.engine.unprepare(&claim.reference).unwrap();
    node.assert_untouched();
}

#[test]
fn a_partition_is_shared_by_mps_with_a_daemon_of_its_own() {
    let node = MigNode::new(&["h100"]);
    let sharing = json!({"strategy": "MPS", "mpsConfig": {"defaultPinnedDeviceMemoryLimit": "1Gi"}});
    let claim = request_sharing(claim(&node, "a", &["-mig-9-4"]), &[], "MigDeviceConfig", &sharing);
    let answer = node.prepare(&claim).unwrap();
    let running = node.daemons.running();
    assert_eq!(running.values().next().unwrap().devices, [uuid(&answer[0])]);
    node.engine.unprepare(&claim.reference).unwrap();
    assert!(node.daemons.running().is_empty());
    node.assert_untouched();
}

#[test]
fn admin_access_creates_nothing() {
    let node = MigNode::new(&["h100"]);
    let ours = claim(&node, "ours", &["-mig-9-4"]);
    let mut admin = claim(&node, "admin", &["-mig-9-4"]);
    admin.devices[0].admin_access = true;
    let refused = node.prepare(&admin).unwrap_err();
    assert!(matches!(*refused.cause, PrepareCause::Refused(Refusal::MigGone { .. })), "{refused}");
    let answer = node.prepare(&ours).unwrap();
    assert_eq!(uuid(&node.prepare(&admin).unwrap()[0]), uuid(&answer[0]));
    node.engine.unprepare(&admin.reference).unwrap();
    assert_eq!(node.instances(0), [(9, 4, 1)]);
    node.engine.unprepare(&ours.reference).unwrap();
    node.assert_untouched();
}

#[test]
fn partitions_on_different_gpus_are_made_side_by_side() {
    let node = MigNode::new(&["h100", "h100"]);
    let meeting = Arc::new((Mutex::new(0), Condvar::new()));
    let at_meeting = Arc::clone(&meeting);
    node.before_create(move |_| {
        let (arrived, changed) = &*at_meeting;
        let mut arrived = arrived.lock();
        *arrived += 1;
        changed.notify_all();
        changed.wait_while_for(&mut arrived, |arrived| *arrived < 2, Duration::from_secs(10));
    });
    let claims: Vec<Claim> =
        (0..2).map(|gpu| allocate(&format!("c{gpu}"), &[("r", &format!("{}-mig-9-4", node.gpu(gpu)))])).collect();
    std::thread::scope(|scope| {
        for claim in &claims {
            scope.spawn(|| {
                node.prepare(claim).unwrap();
                assert_eq!(*meeting.0.lock(), 2, "one waited for the other");
            });
        }
    });
    assert_eq!((node.instances(0), node.instances(1)), (vec![(9, 4, 1)], vec![(9, 4, 1)]));
}
