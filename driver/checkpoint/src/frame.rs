// SPDX-License-Identifier: Apache-2.0
//! The bytes of a record file: one header line, the payload, and the mark of a ready claim.
//!
//! ```text
//! dra-claim 1 612 995dc9bbdf1939fa     format version, payload length, CRC-64 of the payload's raw bytes
//! {"claim":{...},...}
//! ready                                absent until the claim is ready
//! ```
//!
//! Anything but the exact mark after the payload is the remains of a cut write and counts as no mark. That is always
//! safe: a claim that is not marked is prepared anew, and every step of that is idempotent.

/// A record longer than this was not written by this driver; it is not even read.
pub const MAX_BYTES: u64 = 512 * 1024;

/// Marks the claim of a `Preparing` payload as ready.
pub const READY_MARK: &[u8] = b"ready\n";

/// No header is longer.
const HEADER_REACH: usize = 64;

const MAGIC: &str = "dra-claim";

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

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No header line, or not ours.
    #[error("the first line is not the header of a claim record")]
    Header,
    /// Cut, or with foreign bytes in it.
    #[error("the payload has {found} of {expected} bytes")]
    Length {
        /// As the header says.
        expected: usize,
        /// As the file has.
        found: usize,
    },
    /// Changed after it was written.
    #[error("the checksum is {found:016x} instead of {expected:016x}")]
    Checksum {
        /// As the header says.
        expected: u64,
        /// Of the bytes in the file.
        found: u64,
    },
}

/// Puts the header before a payload.
pub fn encode(version: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{MAGIC} {version} {} {:016x}\n", payload.len(), crc64(payload)).into_bytes();
    bytes.extend_from_slice(payload);
    bytes.push(b'\n');
    bytes
}

/// Checks the frame and gives the payload.
pub fn decode(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(FrameError::Header)?;
    let (header, rest) = bytes.split_at_checked(end).ok_or(FrameError::Header)?;
    let (version, length, checksum) = header_fields(header).ok_or(FrameError::Header)?;
    let body = rest.get(1..).unwrap_or_default();
    let payload = body.get(..length).ok_or(FrameError::Length { expected: length, found: body.len() })?;
    let found = crc64(payload);
    if found != checksum {
        return Err(FrameError::Checksum { expected: checksum, found });
    }
    let ready = body.get(length..).and_then(|tail| tail.strip_prefix(b"\n")) == Some(READY_MARK);
    Ok(Frame { version, payload, ready })
}

/// The bytes as they were, if exactly one bit of them changed since: a wrong fit is as unlikely as a checksum that fits
/// by chance.
pub fn mend(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut mended = bytes.to_vec();
    let header = bytes.iter().take(HEADER_REACH).position(|byte| *byte == b'\n').map_or(HEADER_REACH, |end| end + 1);
    let flips_in_header = (0..header.min(bytes.len())).flat_map(|at| (0..8).map(move |bit| (at, 1_u8 << bit)));
    for (at, mask) in flip_in_payload(bytes).into_iter().chain(flips_in_header) {
        *mended.get_mut(at)? ^= mask;
        if decode(&mended).is_ok() {
            return Some(mended);
        }
        *mended.get_mut(at)? ^= mask;
    }
    None
}

/// The payload as far as it is there, for telling people what a damaged record was about.
pub fn remains(bytes: &[u8]) -> &[u8] {
    bytes.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or(bytes)
}

/// The bit in which the payload differs from what the header says. A checksum is linear: a flipped bit changes it in a
/// way that depends on nothing but the distance to the end, so it is looked for from there.
fn flip_in_payload(bytes: &[u8]) -> Option<(usize, u8)> {
    let Err(FrameError::Checksum { expected, found }) = decode(bytes) else { return None };
    let start = bytes.len() - remains(bytes).len();
    let (_, length, _) = header_fields(bytes.get(..start.checked_sub(1)?)?)?;
    let mut changes: Vec<(u8, u64)> = (0..8).map(|bit| (1 << bit, crc64_step(1 << bit))).collect();
    for at in (start..start + length).rev() {
        if let Some((mask, _)) = changes.iter().find(|(_, change)| *change == expected ^ found) {
            return Some((at, *mask));
        }
        for (_, change) in &mut changes {
            *change = crc64_step(*change);
        }
    }
    None
}

fn header_fields(header: &[u8]) -> Option<(u32, usize, u64)> {
    let mut fields = std::str::from_utf8(header).ok()?.split(' ');
    let magic = fields.next()?;
    let (version, length) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let checksum = fields.next().filter(|text| text.len() == 16)?;
    let checksum = u64::from_str_radix(checksum, 16).ok()?;
    (magic == MAGIC && fields.next().is_none()).then_some((version, length, checksum))
}

/// CRC-64/XZ (ECMA-182, reflected); it finds every burst of up to 64 wrong bits.
fn crc64(bytes: &[u8]) -> u64 {
    !bytes.iter().fold(u64::MAX, |crc, byte| crc64_step(crc ^ u64::from(*byte)))
}

fn crc64_step(crc: u64) -> u64 {
    (0..8).fold(crc, |crc, _| (crc >> 1) ^ (0xC96C_5795_D787_0F42 * (crc & 1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_the_published_one() {
        assert_eq!(crc64(b"123456789"), 0x995D_C9BB_DF19_39FA, "check value of CRC-64/XZ");
    }

    #[test]
    fn the_mark_makes_it_ready_and_half_a_mark_does_not() {
        let mut bytes = encode(1, b"{}");
        assert_eq!(decode(&bytes), Ok(Frame { version: 1, payload: b"{}", ready: false }));
        bytes.extend_from_slice(READY_MARK);
        assert_eq!(decode(&bytes), Ok(Frame { version: 1, payload: b"{}", ready: true }));
        for cut in 1..=READY_MARK.len() {
            let short = &bytes[..bytes.len() - cut];
            assert_eq!(decode(short), Ok(Frame { version: 1, payload: b"{}", ready: false }), "{cut}");
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
            let bytes = encode(1, &payload);
            if let Ok(frame) = decode(&bytes[..cut.index(bytes.len())]) {
                prop_assert_eq!(frame.payload, payload.as_slice());
            }
            let mut changed = bytes.clone();
            changed[flip.index(bytes.len())] ^= 1 << bit;
            if let Ok(frame) = decode(&changed) {
                prop_assert_eq!(frame.payload, payload.as_slice());
            }
        }

        #[test]
        fn one_flipped_bit_is_mended_and_two_are_not_mistaken(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            flips in proptest::collection::vec((any::<proptest::sample::Index>(), 0_u32..8), 1..3),
        ) {
            let bytes = encode(1, &payload);
            let mut changed = bytes.clone();
            for (at, bit) in &flips {
                changed[at.index(bytes.len() - 1)] ^= 1 << bit;
            }
            if decode(&changed).is_err() {
                let mended = mend(&changed);
                prop_assert!(mended.is_some() || flips.len() == 2);
                if let Some(mended) = mended {
                    prop_assert_eq!(decode(&mended).unwrap().payload, payload.as_slice());
                }
            }
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&bytes).is_err());
            prop_assert!(remains(&bytes).len() <= bytes.len());
        }
    }
}
