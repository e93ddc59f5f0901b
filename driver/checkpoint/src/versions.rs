// SPDX-License-Identifier: Apache-2.0
//! From bytes to a record and back, whatever version wrote the bytes.
//!
//! Each version is a frozen module with types of its own. A new one adds a module here and a conversion from the one
//! before; the old module and its golden files stay as they are.

pub mod v1;

use crate::frame::{self, FrameError};
use crate::record::{ClaimRecord, ClaimState};

/// The version that is written.
const NEWEST: u32 = 1;

/// Why a record cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not what was written.
    #[error("damaged: {0}")]
    Frame(FrameError),
    /// Written by a newer driver.
    #[error("written in format {0}, which this version of the driver does not know")]
    Version(u32),
    /// The bytes are as written, but do not describe a claim.
    #[error("not a claim record: {0}")]
    Content(serde_json::Error),
}

/// The bytes of a record.
pub fn encode(record: &ClaimRecord) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = frame::encode(NEWEST, &serde_json::to_vec(&v1::Record::from(record))?);
    if record.is_ready() {
        bytes.extend_from_slice(frame::READY_MARK);
    }
    Ok(bytes)
}

/// The record in some bytes.
pub fn decode(bytes: &[u8]) -> Result<ClaimRecord, DecodeError> {
    let frame = frame::decode(bytes).map_err(DecodeError::Frame)?;
    let mut record = match frame.version {
        1 => {
            serde_json::from_slice::<v1::Record>(frame.payload).map(ClaimRecord::from).map_err(DecodeError::Content)?
        }
        other => return Err(DecodeError::Version(other)),
    };
    if frame.ready {
        record.state = marked_ready(record.state);
    }
    Ok(record)
}

/// Only a prepared claim becomes ready; nothing else is ever marked.
fn marked_ready(state: ClaimState) -> ClaimState {
    match state {
        ClaimState::Preparing { mut done, next } => {
            done.extend(next);
            ClaimState::Ready { done }
        }
        ClaimState::Ready { .. } | ClaimState::Undoing { .. } => state,
    }
}
