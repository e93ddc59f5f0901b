// SPDX-License-Identifier: Apache-2.0
//! Conflicts with the hardware that other claims hold. Pure.
//!
//! Hardware overlaps by physical GPU and memory slices, never by name: a whole GPU overlaps every MIG device and every share
//! on it. Admin access holds nothing. A record counts in every state and of every boot, because only its removal releases the
//! hardware: the scheduler does not protect against a pod that was deleted by force.

use dra_checkpoint::{ClaimRecord, RecordedDevice};
use dra_model::ClaimRef;

use crate::decide::form::Form;
use crate::decide::holder::{Holder, QuarantinedHolder};
use crate::decide::refusal::Refusal;
use crate::decide::target::Target;
use crate::state::quarantine::QuarantinedClaim;

/// Refuses hardware that another claim holds, that the claim of a quarantined record may hold, or that one claim was allocated
/// twice.
pub fn check(
    claim: &ClaimRef,
    devices: &[RecordedDevice],
    others: &[ClaimRecord],
    quarantined: &[QuarantinedClaim],
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
            return Err(conflict(device, Holder::new(holder, claim), held));
        }
        if let Some(other) = quarantined.iter().find(|other| !other.is_about(&claim.uid) && other.holds(device)) {
            return Err(held_by_quarantined(other, claim, device));
        }
    }
    Ok(())
}

/// The refusal of a device that the claim of a quarantined record may hold.
pub(crate) fn held_by_quarantined(other: &QuarantinedClaim, refused: &ClaimRef, device: &RecordedDevice) -> Refusal {
    let (device, path) = (device.device.clone(), other.record.path.clone());
    let holder = match (&other.record.salvaged.claim, &other.record.uid) {
        (Some(claim), _) => QuarantinedHolder::Claim(Holder::new(claim, refused)),
        (None, Some(uid)) => QuarantinedHolder::Uid(uid.clone()),
        (None, None) => QuarantinedHolder::Unknown,
    };
    Refusal::HeldByQuarantined { device, holder, path }
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

fn conflict(device: &RecordedDevice, holder: Holder, held: &RecordedDevice) -> Refusal {
    let name = device.device.clone();
    match (Form::of_record(&device.hardware), Form::of_record(&held.hardware)) {
        (wanted @ Form::Share(_), had) | (wanted, had @ Form::Share(_)) => {
            Refusal::Mixed { device: name, wanted, holder, held: held.device.clone(), had }
        }
        (Form::Whole | Form::Mig, Form::Whole | Form::Mig) => {
            Refusal::Held { device: name, holder, held: held.device.clone() }
        }
    }
}

/// A claim may have several shares of one device, each of them once.
fn same_share(one: &RecordedDevice, other: &RecordedDevice) -> bool {
    one.device == other.device && one.share_id == other.share_id
}

fn overlap(one: &RecordedDevice, other: &RecordedDevice) -> bool {
    Target::of_record(&one.hardware).overlaps(&Target::of_record(&other.hardware))
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
        let identity = MigIdentity { parent: uuid(gpu), profile_id: 15 + size, placement, share };
        let hardware = RecordedHardware::Partition { identity, profile: "any".to_owned(), created: None };
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

    fn quarantined(claim: &str, salvaged: Salvaged, in_spec: &[&str]) -> QuarantinedClaim {
        let path = format!("/quarantine/{claim}.json").into();
        let record = Quarantined { path, reason: String::new(), uid: Some(claim.parse().unwrap()), salvaged };
        let in_spec = in_spec.iter().map(|name| name.parse().unwrap()).collect();
        QuarantinedClaim::new(record, in_spec, &Inventory::without_driver(String::new()))
    }

    #[test]
    fn a_quarantined_record_holds_all_hardware_that_it_may_name() {
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
            let quarantined = [quarantined("b", salvaged, in_spec)];
            let check = |name: &str| check(&claim(name), std::slice::from_ref(&wanted), &[], &quarantined);
            assert_eq!(check("a").is_ok(), free, "{} while {quarantined:?}", wanted.device);
            assert_eq!(check("b"), Ok(()), "a claim does not conflict with itself");
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
