// SPDX-License-Identifier: Apache-2.0
//! From bytes to a record and back, whatever version wrote the bytes.
//!
//! Each version is a frozen module with types of its own and golden files that never change. Every version is decoded; the
//! newest one alone is encoded. An older driver leaves a record of a newer version in place.

pub mod v1;
pub mod v2;
pub mod v3;
pub(crate) mod words;

use dra_model::ClaimRef;

use crate::frame::{self, FrameError, Kind};
use crate::record::{ClaimRecord, ClaimState, RecordedDevice};

/// Why a record cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("damaged: {0}")]
    Frame(FrameError),
    #[error("written in format {0}, which this version of the driver does not know")]
    Version(u32),
    /// The bytes are undamaged, but do not describe a claim.
    #[error("not a claim record: {0}")]
    Content(serde_json::Error),
}

/// The version that is written.
pub const CURRENT: u32 = 3;

pub fn encode(record: &ClaimRecord) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = frame::encode(Kind::Claim, CURRENT, &serde_json::to_vec(&v3::Record::from(record))?);
    if record.is_ready() {
        bytes.extend_from_slice(frame::READY_MARK);
    }
    Ok(bytes)
}

pub fn decode(bytes: &[u8]) -> Result<ClaimRecord, DecodeError> {
    let frame = frame::decode(Kind::Claim, bytes).map_err(DecodeError::Frame)?;
    let record = match frame.version {
        1 => serde_json::from_slice::<v1::Record>(frame.payload).map(ClaimRecord::from),
        2 => serde_json::from_slice::<v2::Record>(frame.payload).map(ClaimRecord::from),
        CURRENT => serde_json::from_slice::<v3::Record>(frame.payload).map(ClaimRecord::from),
        other => return Err(DecodeError::Version(other)),
    };
    let mut record = record.map_err(DecodeError::Content)?;
    if frame.ready {
        mark_ready(&mut record.state);
    }
    Ok(record)
}

/// Decodes a device at the start of some bytes, and returns its length. For records that are damaged elsewhere.
pub fn device_at(bytes: &[u8]) -> Option<(RecordedDevice, usize)> {
    v3::device_at(bytes).or_else(|| v2::device_at(bytes)).or_else(|| v1::device_at(bytes))
}

/// Decodes a claim at the start of some bytes, in any version. For records that are damaged elsewhere.
pub fn claim_at(bytes: &[u8]) -> Option<ClaimRef> {
    words::claim_at(bytes)
}

/// The mark is appended to `Preparing` records only.
pub(crate) fn mark_ready(state: &mut ClaimState) {
    if let ClaimState::Preparing { done, next } = state {
        let done = [std::mem::take(done), std::mem::take(next)].concat();
        *state = ClaimState::Ready { done };
    }
}
