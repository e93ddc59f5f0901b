// SPDX-License-Identifier: Apache-2.0
//! What can be salvaged from the bytes of a record that cannot be decoded: its claim and its devices. Pure.
//!
//! The result errs on the side of more devices. Every device that is named counts, and a device is searched for in every part
//! of the record that names one, so that damage in one part hides nothing.

use std::collections::BTreeSet;

use dra_model::device::without_share;
use dra_model::{ClaimRef, ClaimUid, DeviceName, GpuUuid};

use crate::frame::{self, FrameError};
use crate::record::{RecordedDevice, RecordedHardware};
use crate::versions::{self, DecodeError};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Salvaged {
    pub claim: Option<ClaimRef>,
    /// Whether `claim` is certainly undamaged, so that the API server may be asked about it.
    pub is_claim_certain: bool,
    /// All devices that are named, those of `admin` included.
    pub devices: Vec<DeviceName>,
    /// Devices that are named for admin access only, which reserves nothing.
    pub admin: Vec<DeviceName>,
    /// The hardware of the other devices, as far as it can be read.
    pub hardware: Vec<RecordedHardware>,
}

/// Searches the bytes of a record. `uid` is the claim in the file name.
pub fn of(bytes: &[u8], uid: Option<&ClaimUid>) -> Salvaged {
    let is_claim_certain = match versions::decode(bytes) {
        // The remaining part of a cut file is undamaged.
        Ok(_)
        | Err(DecodeError::Version(_) | DecodeError::Content(_) | DecodeError::Frame(FrameError::Length { .. })) => {
            true
        }
        Err(DecodeError::Frame(FrameError::Header(_) | FrameError::Checksum { .. })) => false,
    };
    parts(frame::damaged_payload(bytes), uid, is_claim_certain)
}

/// The first bytes of every device of a record.
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

    /// Reads text that may be damaged: device names in `device` and in CDI names, and UUIDs of GPUs.
    fn text(&mut self, text: &str, uid: Option<&ClaimUid>) {
        let cdi_name = uid.map(|uid| format!("={uid}-"));
        for before in std::iter::once("\"device\":\"").chain(cdi_name.as_deref()) {
            self.owned.extend(quoted(text, before).filter_map(|name| without_share(name).parse().ok()));
        }
        for before in ["{\"gpu\":{\"uuid\":\"", "{\"shared\":{\"uuid\":\""] {
            // A share counts as the whole GPU if only its GPU can be read.
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

/// Whether a text can be a name of Kubernetes. Any other text is damage, which must not appear in a message.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    (1..=253).contains(&text.len()) && text.bytes().all(plain)
}
