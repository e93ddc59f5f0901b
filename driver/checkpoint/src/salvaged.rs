// SPDX-License-Identifier: Apache-2.0
//! What bytes that are no record still tell about a claim and its devices. Pure.
//!
//! Where the answer is not certain it errs on the side of more: a device that is named counts, and every place of the
//! record that names one is looked at, so that damage in one of them hides nothing.

use std::collections::BTreeSet;

use dra_model::device::without_share;
use dra_model::{ClaimRef, ClaimUid, DeviceName, GpuUuid};

use crate::frame::{self, FrameError};
use crate::record::{RecordedDevice, RecordedHardware};
use crate::versions::{self, DecodeError};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Whose record it was.
    pub claim: Option<ClaimRef>,
    /// Whether the bytes of `claim` are those that were written, so that other questions may be asked about it.
    pub is_claim_certain: bool,
    /// The devices it names, those of `admin` included.
    pub devices: Vec<DeviceName>,
    /// Those that it names for admin access only, which takes nothing.
    pub admin: Vec<DeviceName>,
    /// What the others are, as far as it says so.
    pub hardware: Vec<RecordedHardware>,
}

/// Looks for what there is. `uid` is the claim that the file was named after.
pub fn of(bytes: &[u8], uid: Option<&ClaimUid>) -> Salvaged {
    let is_claim_certain = match versions::decode(bytes) {
        // What is left of a file that was cut is as it was written.
        Ok(_)
        | Err(DecodeError::Version(_) | DecodeError::Content(_) | DecodeError::Frame(FrameError::Length { .. })) => {
            true
        }
        Err(DecodeError::Frame(FrameError::Header(_) | FrameError::Checksum { .. })) => false,
    };
    parts(frame::damaged_payload(bytes), uid, is_claim_certain)
}

/// Every device of a record begins like this.
const DEVICE: &[u8] = b"{\"request\":";

const CLAIM: &[u8] = b"\"claim\":";

fn parts(payload: &[u8], uid: Option<&ClaimUid>, is_claim_certain: bool) -> Salvaged {
    let mut found = Found::default();
    let starts: Vec<usize> = positions(payload, DEVICE).collect();
    let bounds = std::iter::once(0).chain(starts.iter().copied());
    let ends = starts.iter().copied().chain([payload.len()]);
    for part in bounds.zip(ends).filter_map(|(start, end)| payload.get(start..end)) {
        let parsed = versions::device_at(part);
        let length = parsed.as_ref().map_or(0, |(_, length)| *length);
        if let Some((device, _)) = parsed {
            found.device(device);
        }
        found.text(&String::from_utf8_lossy(part.get(length..).unwrap_or_default()), uid);
    }
    let mut claims = positions(payload, CLAIM).filter_map(|at| versions::claim_at(payload.get(at + CLAIM.len()..)?));
    let claim = claims.find(|claim| is_name(&claim.namespace) && is_name(&claim.name));
    found.salvaged(claim, is_claim_certain)
}

/// What was found so far.
#[derive(Default)]
struct Found {
    admin: BTreeSet<DeviceName>,
    owned: BTreeSet<DeviceName>,
    hardware: Vec<RecordedHardware>,
}

impl Found {
    fn device(&mut self, device: RecordedDevice) {
        if device.admin_access {
            self.admin.insert(device.device);
        } else {
            self.owned.insert(device.device);
            self.hardware.push(device.hardware);
        }
    }

    /// Text of which nothing is certain: names in `device` and in the CDI names, and UUIDs of GPUs.
    fn text(&mut self, text: &str, uid: Option<&ClaimUid>) {
        let cdi_name = uid.map(|uid| format!("={uid}-"));
        for before in std::iter::once("\"device\":\"").chain(cdi_name.as_deref()) {
            self.owned.extend(quoted(text, before).filter_map(|name| without_share(name).parse().ok()));
        }
        for before in ["{\"gpu\":{\"uuid\":\"", "{\"shared\":{\"uuid\":\""] {
            // A share of which only the GPU is certain counts as all of it.
            let uuids = quoted(text, before).filter_map(|uuid| uuid.parse::<GpuUuid>().ok());
            self.hardware.extend(uuids.map(|uuid| RecordedHardware::Gpu { uuid }));
        }
    }

    fn salvaged(self, claim: Option<ClaimRef>, is_claim_certain: bool) -> Salvaged {
        let Self { admin, owned, hardware } = self;
        Salvaged {
            is_claim_certain: is_claim_certain && claim.is_some(),
            claim,
            devices: admin.union(&owned).cloned().collect(),
            admin: admin.difference(&owned).cloned().collect(),
            hardware,
        }
    }
}

fn positions<'a>(bytes: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    bytes.windows(wanted.len()).enumerate().filter(move |(_, window)| *window == wanted).map(|(at, _)| at)
}

/// Every text between `before` and the next quote.
fn quoted<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(|rest| rest.split_once('"')).map(|(found, _)| found)
}

/// What Kubernetes calls namespaces and claims; anything else is damage that nobody should be shown.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    (1..=253).contains(&text.len()) && text.bytes().all(plain)
}
