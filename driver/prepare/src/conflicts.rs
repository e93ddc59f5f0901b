// SPDX-License-Identifier: Apache-2.0
//! Who else has the hardware. Pure.
//!
//! Judged on the physical GPU and its memory slices, never on names: a whole GPU overlaps every MIG device on it. Admin
//! access takes nothing and is in nobody's way. A record counts in every state and of every boot, since only its removal
//! says that the claim let go; the scheduler does not protect against a pod that was deleted by force.

use dra_checkpoint::{ClaimRecord, RecordedDevice, RecordedHardware};
use dra_model::ClaimRef;

use crate::refusal::Refusal;

/// Refuses what another claim holds, or what one claim got twice.
pub fn check(claim: &ClaimRef, devices: &[RecordedDevice], others: &[ClaimRecord]) -> Result<(), Refusal> {
    for (at, device) in owning(devices).enumerate() {
        let earlier =
            owning(devices).take(at).find(|earlier| overlap(earlier, device) && !different_shares(earlier, device));
        if let Some(earlier) = earlier {
            return Err(Refusal::Twice {
                device: device.device.clone(),
                first: earlier.request.clone(),
                second: device.request.clone(),
            });
        }
        if let Some((holder, held)) = holder(claim, device, others) {
            return Err(Refusal::Held {
                device: device.device.clone(),
                holder: holder.clone(),
                held: held.device.clone(),
            });
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

/// Two shares of one device in one claim are one owner's.
fn different_shares(one: &RecordedDevice, other: &RecordedDevice) -> bool {
    one.device == other.device && one.share_id.is_some() && other.share_id.is_some() && one.share_id != other.share_id
}

fn overlap(one: &RecordedDevice, other: &RecordedDevice) -> bool {
    match (&one.hardware, &other.hardware) {
        (RecordedHardware::Mig { identity: one, .. }, RecordedHardware::Mig { identity: other, .. }) => {
            one.overlaps(other)
        }
        (one, other) => one.gpu() == other.gpu(),
    }
}
