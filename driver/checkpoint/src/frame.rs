// SPDX-License-Identifier: Apache-2.0
//! The bytes of a file: one header line, the payload and, of a claim's record, the mark of a ready claim.
//!
//! ```text
//! dra-claim 2 612 995dc9bbdf1939fa     kind of file, format version, payload length, CRC-64 of the raw payload
//! {"claim":{...},...}
//! ready                                absent until the claim is ready
//! ```
//!
//! Anything but the exact mark after the payload comes from a cut write and counts as no mark. That is safe: a claim without
//! mark is prepared again, and every step of preparing is idempotent.

use std::fmt;

use crc::{CRC_64_XZ, Crc};

/// No file of this driver is longer. A longer file is not read.
pub const MAX_BYTES: u64 = 512 * 1024;

/// Marks the claim of a `Preparing` payload as ready.
pub const READY_MARK: &[u8] = b"ready\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Claim,
    Ledger,
}

impl Kind {
    /// The first word of the file.
    const fn magic(self) -> &'static str {
        match self {
            Self::Claim => "dra-claim",
            Self::Ledger => "gpu-ledger",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Claim => "claim record",
            Self::Ledger => "GPU ledger",
        })
    }
}

/// A payload and its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Format version of the payload.
    pub version: u32,
    /// The payload, with a checksum that fits.
    pub payload: &'a [u8],
    /// Whether the ready mark follows.
    pub ready: bool,
}

/// Why a file cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the first line is not the header of a {0}")]
    Header(Kind),
    #[error("the payload has {found} of {expected} bytes")]
    Length {
        /// From the header.
        expected: usize,
        found: usize,
    },
    #[error("the checksum is {found:016x} instead of {expected:016x}")]
    Checksum {
        /// From the header.
        expected: u64,
        found: u64,
    },
}

/// Puts the header before a payload.
pub fn encode(kind: Kind, version: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("{} {version} {} {:016x}\n", kind.magic(), payload.len(), CRC64.checksum(payload)).into_bytes();
    bytes.extend_from_slice(payload);
    bytes.push(b'\n');
    bytes
}

/// Checks the frame.
pub fn decode(kind: Kind, bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(FrameError::Header(kind))?;
    let (header, rest) = bytes.split_at_checked(end).ok_or(FrameError::Header(kind))?;
    let (version, length, checksum) = header_fields(kind, header).ok_or(FrameError::Header(kind))?;
    let body = rest.get(1..).unwrap_or_default();
    let payload = body.get(..length).ok_or(FrameError::Length { expected: length, found: body.len() })?;
    let found = CRC64.checksum(payload);
    if found != checksum {
        return Err(FrameError::Checksum { expected: checksum, found });
    }
    let ready = body.get(length..).and_then(|tail| tail.strip_prefix(b"\n")) == Some(READY_MARK);
    Ok(Frame { version, payload, ready })
}

/// The remaining payload of a damaged file.
pub fn damaged_payload(bytes: &[u8]) -> &[u8] {
    bytes.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or(bytes)
}

fn header_fields(kind: Kind, header: &[u8]) -> Option<(u32, usize, u64)> {
    let mut fields = std::str::from_utf8(header).ok()?.split(' ');
    let magic = fields.next()?;
    let (version, length) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let checksum = fields.next().filter(|text| text.len() == 16)?;
    let checksum = u64::from_str_radix(checksum, 16).ok()?;
    (magic == kind.magic() && fields.next().is_none()).then_some((version, length, checksum))
}

/// ECMA-182, reflected; it finds every burst of up to 64 wrong bits.
static CRC64: Crc<u64> = Crc::<u64>::new(&CRC_64_XZ);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_the_published_one() {
        assert_eq!(CRC64.checksum(b"123456789"), 0x995D_C9BB_DF19_39FA, "check value of CRC-64/XZ");
    }

    #[test]
    fn the_mark_makes_it_ready_and_half_a_mark_does_not() {
        let mut bytes = encode(Kind::Claim, 1, b"{}");
        assert_eq!(decode(Kind::Claim, &bytes), Ok(Frame { version: 1, payload: b"{}", ready: false }));
        bytes.extend_from_slice(READY_MARK);
        assert_eq!(decode(Kind::Claim, &bytes), Ok(Frame { version: 1, payload: b"{}", ready: true }));
        for cut in 1..=READY_MARK.len() {
            let short = &bytes[..bytes.len() - cut];
            assert_eq!(decode(Kind::Claim, short), Ok(Frame { version: 1, payload: b"{}", ready: false }), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn cut_or_changed_bytes_are_never_another_payload(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            cut: proptest::sample::Index,
            flip: proptest::sample::Index,
            bit in 0_u32..8,
        ) {
            let bytes = encode(Kind::Claim, 1, &payload);
            if let Ok(frame) = decode(Kind::Claim, &bytes[..cut.index(bytes.len())]) {
                prop_assert_eq!(frame.payload, payload.as_slice());
            }
            let mut changed = bytes.clone();
            changed[flip.index(bytes.len())] ^= 1 << bit;
            if let Ok(frame) = decode(Kind::Claim, &changed) {
                prop_assert_eq!(frame.payload, payload.as_slice());
            }
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(Kind::Claim, &bytes).is_err());
            prop_assert!(damaged_payload(&bytes).len() <= bytes.len());
        }
    }
}
