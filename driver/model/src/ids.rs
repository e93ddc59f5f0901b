// SPDX-License-Identifier: Apache-2.0
//! Validated identifiers: each is parsed once, where it enters the process.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text is not a valid identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: expected {expected}")]
pub struct IdError {
    kind: &'static str,
    text: String,
    expected: &'static str,
}

impl IdError {
    /// Truncates the text to 80 characters, so that a user cannot make messages arbitrarily long.
    pub(crate) fn new(kind: &'static str, text: &str, expected: &'static str) -> Self {
        Self { kind, text: text.chars().take(80).collect(), expected }
    }
}

/// Defines a string identifier with its grammar, `FromStr`, `Display` and strict serde.
macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(IdError::new($kind, text, $expected))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

string_id!(
    /// `GPU-` and a UUID in lower case, as `nvmlDeviceGetUUID` returns it for a whole GPU.
    GpuUuid,
    "GPU UUID",
    "`GPU-` followed by a lower-case UUID",
    |text| text.strip_prefix("GPU-").is_some_and(is_uuid)
);

string_id!(
    /// `MIG-` and a UUID in lower case, as `nvmlDeviceGetUUID` returns it for a MIG device since R470.
    MigUuid,
    "MIG UUID",
    "`MIG-` followed by a lower-case UUID",
    |text| text.strip_prefix("MIG-").is_some_and(is_uuid)
);

string_id!(
    /// The UID of a ResourceClaim. It becomes part of file names, so its characters are restricted.
    ClaimUid,
    "claim UID",
    "1 to 63 letters, digits or dashes, beginning and ending with a letter or digit",
    is_uid
);

string_id!(
    /// A share of a device that many claims use; the scheduler creates a UUID for each (KEP-5075). It becomes part of CDI
    /// names.
    ShareId,
    "share id",
    "1 to 63 letters, digits or dashes, beginning and ending with a letter or digit",
    is_uid
);

string_id!(
    /// An MPS daemon: `gpu-<32 hex digits>` for the shares of a GPU, `claim-<claim uid>-<n>` for the n-th group of a
    /// claim. It becomes part of socket paths, which are limited to 107 bytes.
    DaemonId,
    "daemon id",
    "a DNS label of at most 63 lower-case letters, digits or dashes",
    is_dns_label
);

string_id!(
    /// The name of a device in a ResourceSlice: a DNS label (KEP-4381).
    DeviceName,
    "device name",
    "a DNS label of at most 63 lower-case letters, digits or dashes",
    is_dns_label
);

string_id!(
    /// The name of a Node, which is also the name of its pool.
    NodeName,
    "node name",
    "a DNS subdomain of at most 253 characters",
    |text| !text.is_empty() && text.len() <= 253 && text.split('.').all(is_dns_label)
);

impl DaemonId {
    /// The daemon of the shares of a GPU.
    pub fn of_gpu(gpu: &GpuUuid) -> Self {
        Self(format!("gpu-{}", gpu.hex()))
    }

    /// The daemon of the n-th group of devices of a claim. A UID is truncated to 44 characters; the UUIDs of the API server fit.
    pub fn of_claim(claim: &ClaimUid, group: u32) -> Self {
        let uid: String = claim.as_str().chars().take(44).collect();
        Self(format!("claim-{}-{group}", uid.to_ascii_lowercase()))
    }

    /// The GPU, of a daemon for shares.
    pub fn gpu(&self) -> Option<GpuUuid> {
        let hex = self.0.strip_prefix("gpu-").filter(|hex| hex.len() == 32)?;
        let groups = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)].map(|(from, to)| hex.get(from..to));
        let groups = groups.into_iter().collect::<Option<Vec<_>>>()?;
        format!("GPU-{}", groups.join("-")).parse().ok()
    }

    /// The claim, of a daemon for a claim.
    pub fn claim(&self) -> Option<ClaimUid> {
        self.0.strip_prefix("claim-")?.rsplit_once('-')?.0.parse().ok()
    }

    /// Whether this is a daemon of the claim.
    pub fn is_of_claim(&self, claim: &ClaimUid) -> bool {
        self.claim().is_some_and(|own| Some(own) == Self::of_claim(claim, 0).claim())
    }
}

impl GpuUuid {
    /// The hexadecimal digits of the UUID without dashes. Device names start with the first of them.
    pub fn hex(&self) -> String {
        self.0.chars().skip(4).filter(|c| *c != '-').collect()
    }
}

fn is_uid(text: &str) -> bool {
    text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.is_empty()
}

fn is_dns_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

/// The PCI ids of a GPU model, each with the device in the upper 16 bits and the vendor in the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciIds {
    pub device: u32,
    pub subsystem: Option<u32>,
}

/// A PCI function address; displayed as the kernel does, `0000:3b:00.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciAddress {
    /// PCI domain; more than 16 bits only on hosts behind a VMD controller.
    pub domain: u32,
    pub bus: u8,
    /// Device (slot) number.
    pub device: u8,
    pub function: u8,
}

impl FromStr for PciAddress {
    type Err = IdError;

    /// Parses the notation of the kernel and that of NVML (`00000000:3B:00.0`).
    fn from_str(text: &str) -> Result<Self, IdError> {
        let expected = "domain:bus:device.function in hexadecimal";
        parse_pci(text).ok_or_else(|| IdError::new("PCI address", text, expected))
    }
}

fn parse_pci(text: &str) -> Option<PciAddress> {
    let (address, function) = text.split_once('.')?;
    let mut parts = address.split(':');
    let (domain, bus, device) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    Some(PciAddress {
        domain: u32::from_str_radix(domain, 16).ok()?,
        bus: u8::from_str_radix(bus, 16).ok()?,
        device: u8::from_str_radix(device, 16).ok()?,
        function: u8::from_str_radix(function, 16).ok()?,
    })
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl TryFrom<String> for PciAddress {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> Self {
        address.to_string()
    }
}

/// An amount of memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// From MiB, the unit NVML uses for MIG profiles.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// Whole MiB, rounded down.
    pub const fn mib(self) -> u64 {
        self.0 >> 20
    }
}

/// A version of up to three numbers, displayed as a semantic version: `12.4` becomes `12.4.0`.
///
/// ResourceSlice attributes of type version must be strict semver 2.0.0 (KEP-4381), which allows no leading zeros:
/// driver `550.54.05` is displayed as `550.54.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number, 0 when absent.
    pub minor: u32,
    /// Third number, 0 when absent.
    pub patch: u32,
}

impl FromStr for Version {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let expected = "one to three numbers separated by dots";
        parse_version(text).ok_or_else(|| IdError::new("version", text, expected))
    }
}

fn parse_version(text: &str) -> Option<Version> {
    let numbers: Vec<u32> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let mut numbers = numbers.into_iter();
    let version =
        Version { major: numbers.next()?, minor: numbers.next().unwrap_or(0), patch: numbers.next().unwrap_or(0) };
    numbers.next().is_none().then_some(version)
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl TryFrom<String> for Version {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pci_addresses_of_nvml_become_those_of_the_kernel() {
        for (given, expect) in [
            ("00000000:3B:00.0", Some("0000:3b:00.0")),
            ("0000:3b:00.1", Some("0000:3b:00.1")),
            ("00010000:01:1F.0", Some("10000:01:1f.0")),
            ("3b:00.0", None),
            ("0000:3b:00:00.0", None),
            ("", None),
        ] {
            let parsed = given.parse::<PciAddress>().ok().map(|address| address.to_string());
            assert_eq!(parsed.as_deref(), expect, "{given}");
        }
    }

    #[test]
    fn versions_become_semantic_versions() {
        for (given, expect) in [
            ("12.4", Some("12.4.0")),
            ("550.54.15", Some("550.54.15")),
            ("550.54.05", Some("550.54.5")),
            ("9", Some("9.0.0")),
            ("1.2.3.4", None),
            ("r550", None),
            ("", None),
        ] {
            assert_eq!(given.parse::<Version>().ok().map(|v| v.to_string()).as_deref(), expect, "{given}");
        }
    }

    #[test]
    fn ids_refuse_what_could_leave_a_file_name() {
        for bad in ["", "..", "a/b", "-a", "a-", "a b", &"x".repeat(64)] {
            assert!(bad.parse::<ClaimUid>().is_err(), "{bad}");
        }
        assert!("9f7c3f9e-3c7c-4b0e-8a53-0d6a1f4e2b11".parse::<ClaimUid>().is_ok());
        assert!("GPU-9F7C3F9E-3c7c-4b0e-8a53-0d6a1f4e2b11".parse::<GpuUuid>().is_err());
        assert!("worker.example.com".parse::<NodeName>().is_ok());
        let uid: ClaimUid = "x".repeat(63).parse().unwrap();
        let gpu: GpuUuid = "GPU-9f7c3f9e-3c7c-4b0e-8a53-0d6a1f4e2b11".parse().unwrap();
        for id in [DaemonId::of_claim(&uid, u32::MAX), DaemonId::of_gpu(&gpu)] {
            assert_eq!(id.as_str().parse(), Ok(id));
        }
        let other: ClaimUid = "x-1".parse().unwrap();
        assert!(DaemonId::of_claim(&uid, 7).is_of_claim(&uid) && !DaemonId::of_claim(&other, 7).is_of_claim(&uid));
        assert!(!DaemonId::of_gpu(&gpu).is_of_claim(&uid));
        assert_eq!((DaemonId::of_gpu(&gpu).gpu(), DaemonId::of_gpu(&gpu).claim()), (Some(gpu), None));
        assert!("worker..com".parse::<NodeName>().is_err());
    }

    proptest! {
        #[test]
        fn pci_addresses_survive_their_text(domain: u32, bus: u8, device: u8, function in 0_u8..8) {
            let address = PciAddress { domain, bus, device, function };
            prop_assert_eq!(address.to_string().parse::<PciAddress>(), Ok(address));
        }
    }
}
