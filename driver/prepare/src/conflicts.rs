// SPDX-License-Identifier: Apache-2.0
//! Who else has the hardware. Pure.
//!
//! Judged on the physical GPU and its memory slices, never on names: a whole GPU overlaps every MIG device and every share
//! on it. Admin access takes nothing and is in nobody's way. A record counts in every state and of every boot, since only its removal
//! says that the claim let go; the scheduler does not protect against a pod that was deleted by force.

use dra_checkpoint::{ClaimRecord, RecordedDevice};
use dra_model::ClaimRef;

use crate::doubts::{Doubt, target_of};
use crate::holder::Holder;
use crate::refusal::{Form, Refusal};

/// Refuses what another claim holds, what one may hold whose record cannot be read, or what one claim got twice.
pub fn check(
    claim: &ClaimRef,
    devices: &[RecordedDevice],
    others: &[ClaimRecord],
    doubts: &[Doubt],
) -> Result<(), Refusal> {
    for (at, device) in owning(devices).enumerate() {
        let mut earlier = owning(devices).take(at);
        if let Some(earlier) = earlier.find(|earlier| overlap(earlier, device) || same_share(earlier, device)) {
            return Err(Refusal::Twice {
                device: device.device.clone(),
                first: earlier.request.clone(),
                second: device.request.clone(),
            });
        }
        if let Some((holder, held)) = holder(claim, device, others) {
            return Err(in_the_way(device, Holder::new(holder, claim), held));
        }
        if let Some(doubt) = doubts.iter().find(|doubt| !doubt.is_about(&claim.uid) && doubt.holds(device)) {
            return Err(doubt.refusal(claim, device));
        }
    }
    Ok(())
}

fn owning(devices: &[RecordedDevice]) -> impl Iterator<Item = &RecordedDevice> {
    devices.iter().filter(|device| !device.admin_access)
}

fn holder<'a>(
    claim: &ClaimRef,
    device: &RecordedDevice,
    others: &'a [ClaimRecord],
) -> Option<(&'a ClaimRef, &'a RecordedDevice)> {
    let others = others.iter().filter(|other| other.claim.uid != claim.uid);
    others
        .flat_map(|other| owning(&other.devices).map(move |held| (&other.claim, held)))
        .find(|(_, held)| overlap(held, device))
}

fn in_the_way(device: &RecordedDevice, holder: Holder, held: &RecordedDevice) -> Refusal {
    let name = device.device.clone();
    match (Form::of(&device.hardware), Form::of(&held.hardware)) {
        (wanted @ Form::Share(_), had) | (wanted, had @ Form::Share(_)) => {
            Refusal::Mixed { device: name, wanted, holder, held: held.device.clone(), had }
        }
        (Form::Whole | Form::Mig, Form::Whole | Form::Mig) => {
            Refusal::Held { device: name, holder, held: held.device.clone() }
        }
    }
}

/// One claim may have several shares of one device, but none of them twice.
fn same_share(one: &RecordedDevice, other: &RecordedDevice) -> bool {
    one.device == other.device && one.share_id == other.share_id
}

fn overlap(one: &RecordedDevice, other: &RecordedDevice) -> bool {
    target_of(&one.hardware).overlaps(&target_of(&other.hardware))
}

#[cfg(test)]
mod tests {
    use dra_checkpoint::{ClaimState, Quarantined, RecordedHardware, RecordedSharing, Salvaged, Unknown};
    use dra_model::{ComputeShare, GpuUuid, Inventory, MigIdentity, Placement, SharedForm};

    use super::*;

    fn uuid(gpu: u32) -> GpuUuid {
        format!("GPU-{gpu:08x}-0000-0000-0000-000000000000").parse().unwrap()
    }

    fn device(name: &str, hardware: RecordedHardware) -> RecordedDevice {
        RecordedDevice {
            request: format!("for-{name}"),
            pool: "node-a".to_owned(),
            device: name.parse().unwrap(),
            admin_access: false,
            share_id: None,
            hardware,
            sharing: RecordedSharing::Plain,
            cdi_ids: Vec::new(),
            unknown: Unknown::new(),
        }
    }

    fn gpu(gpu: u32) -> RecordedDevice {
        device(&format!("gpu-{gpu}"), RecordedHardware::Gpu { uuid: uuid(gpu) })
    }

    fn mig(gpu: u32, start: u32, size: u32) -> RecordedDevice {
        let placement = Placement { start, size };
        let share = ComputeShare { start: 0, slices: 1, of: 1 };
        let hardware = RecordedHardware::Mig {
            identity: MigIdentity { parent: uuid(gpu), profile_id: 15 + size, placement, share },
            uuid: "MIG-00000000-0000-0000-0000-000000000000".parse().unwrap(),
            gpu_instance: 1,
            compute_instance: 0,
            profile: "any".to_owned(),
        };
        device(&format!("gpu-{gpu}-mig-{start}"), hardware)
    }

    fn admin(device: RecordedDevice) -> RecordedDevice {
        RecordedDevice { admin_access: true, ..device }
    }

    fn share(gpu: u32, form: SharedForm, id: &str) -> RecordedDevice {
        let hardware = RecordedHardware::Shared { uuid: uuid(gpu), form };
        let device = device(&format!("gpu-{gpu}{}", form.suffix()), hardware);
        RecordedDevice { share_id: Some(id.parse().unwrap()), ..device }
    }

    fn mps(gpu: u32, id: &str) -> RecordedDevice {
        share(gpu, SharedForm::Mps, id)
    }

    fn ts(gpu: u32, id: &str) -> RecordedDevice {
        share(gpu, SharedForm::TimeSlicing, id)
    }

    fn claim(name: &str) -> ClaimRef {
        ClaimRef { namespace: "ns".to_owned(), name: name.to_owned(), uid: name.parse().unwrap() }
    }

    fn record(name: &str, devices: Vec<RecordedDevice>) -> ClaimRecord {
        ClaimRecord {
            claim: claim(name),
            boot_id: String::new(),
            base: String::new(),
            devices,
            state: ClaimState::Undoing { left: Vec::new(), last_error: String::new() },
            unknown: Unknown::new(),
        }
    }

    #[test]
    fn hardware_is_given_to_one_claim_at_a_time() {
        for (held, wanted, free) in [
            (gpu(1), gpu(1), false),
            (gpu(1), gpu(2), true),
            (gpu(1), mig(1, 0, 1), false),
            (mig(1, 0, 1), gpu(1), false),
            (mig(1, 0, 1), mig(1, 1, 1), true),
            (mig(1, 0, 4), mig(1, 3, 1), false),
            (mig(1, 0, 4), mig(2, 3, 1), true),
            (admin(gpu(1)), gpu(1), true),
            (gpu(1), admin(mig(1, 0, 1)), true),
            (mps(1, "s1"), mps(1, "s2"), true),
            (ts(1, "s1"), ts(1, "s1"), true),
            (ts(1, "s1"), mps(1, "s2"), false),
            (ts(1, "s1"), mps(2, "s2"), true),
            (ts(1, "s1"), gpu(1), false),
            (gpu(1), mps(1, "s1"), false),
            (mig(1, 0, 1), ts(1, "s1"), false),
            (admin(gpu(1)), ts(1, "s1"), true),
            (admin(mps(1, "s1")), ts(1, "s2"), true),
        ] {
            let others = [record("a", vec![wanted.clone()]), record("b", vec![gpu(7), held.clone()])];
            let outcome = check(&claim("a"), std::slice::from_ref(&wanted), &others, &[]);
            assert_eq!(outcome.is_ok(), free, "{} while {} is held", wanted.device, held.device);
            if let Err(refusal) = outcome {
                let (Refusal::Held { holder, held: as_device, .. } | Refusal::Mixed { holder, held: as_device, .. }) =
                    refusal
                else {
                    panic!("{refusal}")
                };
                assert_eq!((*holder.claim, as_device), (claim("b"), held.device));
            }
        }
    }

    fn doubt(claim: &str, salvaged: Salvaged, in_spec: &[&str]) -> Doubt {
        let path = format!("/quarantine/{claim}.json").into();
        let record = Quarantined { path, reason: String::new(), uid: Some(claim.parse().unwrap()), salvaged };
        let in_spec = in_spec.iter().map(|name| name.parse().unwrap()).collect();
        Doubt::new(record, in_spec, &Inventory::without_driver(String::new()))
    }

    #[test]
    fn a_record_that_cannot_be_read_holds_all_that_it_may_be_about() {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>();
        let about = |devices: &[&str]| Salvaged { devices: names(devices), ..Salvaged::default() };
        let known = |hardware: RecordedDevice| Salvaged { hardware: vec![hardware.hardware], ..Salvaged::default() };
        let admin = Salvaged { admin: names(&["gpu-1"]), ..about(&["gpu-1", "gpu-2"]) };
        for (salvaged, in_spec, wanted, free) in [
            (about(&["gpu-1"]), [].as_slice(), gpu(1), false),
            (about(&["gpu-1"]), &[], gpu(2), true),
            (about(&["gpu-1"]), &[], mig(1, 0, 1), false),
            (about(&["gpu-1-mig-0"]), &[], gpu(1), false),
            (about(&["gpu-1-mig-0"]), &[], mig(1, 4, 1), false),
            (about(&[]), &["gpu-1"], gpu(1), false),
            (about(&["gpu-2"]), &["gpu-1"], gpu(1), false),
            (admin.clone(), &["gpu-1", "gpu-2"], gpu(1), true),
            (admin, &["gpu-1", "gpu-2"], gpu(2), false),
            (known(gpu(1)), &[], mig(1, 0, 1), false),
            (known(mig(1, 0, 1)), &[], mig(1, 1, 1), true),
            (known(mig(1, 0, 1)), &[], gpu(1), false),
            (known(ts(1, "s1")), &[], gpu(1), false),
            (known(ts(1, "s1")), &[], mps(1, "s2"), false),
            (known(ts(1, "s1")), &[], ts(1, "s2"), true),
            (about(&["gpu-1-ts"]), &[], gpu(1), false),
            (about(&["gpu-1-ts"]), &[], mig(1, 0, 1), false),
            (about(&["gpu-1"]), &[], mps(1, "s1"), false),
            (Salvaged::default(), &[], gpu(1), true),
        ] {
            let doubts = [doubt("b", salvaged, in_spec)];
            let check = |name: &str| check(&claim(name), std::slice::from_ref(&wanted), &[], &doubts);
            assert_eq!(check("a").is_ok(), free, "{} while {doubts:?}", wanted.device);
            assert_eq!(check("b"), Ok(()), "nobody is in the way of himself");
        }
    }

    #[test]
    fn one_claim_gets_no_hardware_twice_but_may_have_two_shares_of_it() {
        for (one, other, fine) in [
            (gpu(1), gpu(2), true),
            (gpu(1), gpu(1), false),
            (gpu(1), mig(1, 0, 1), false),
            (admin(gpu(1)), gpu(1), true),
            (mps(1, "s1"), mps(1, "s2"), true),
            (mps(1, "s1"), mps(1, "s1"), false),
            (mps(1, "s1"), ts(1, "s2"), false),
            (ts(1, "s1"), gpu(1), false),
        ] {
            let outcome = check(&claim("a"), &[one.clone(), other.clone()], &[], &[]);
            assert_eq!(outcome.is_ok(), fine, "{} and {}", one.device, other.device);
        }
    }
}
