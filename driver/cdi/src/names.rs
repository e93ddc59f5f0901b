// SPDX-License-Identifier: Apache-2.0
//! Names of spec files and CDI devices, and the inverse for file names.

use dra_model::{Capabilities, Capability, ClaimUid, DeviceName, ShareId};

/// The names that derive from the name of the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    vendor: String,
}

/// The content of a spec file of this driver.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The user-space part of one driver version.
    Base(String),
    /// The devices of one claim.
    Claim(ClaimUid),
}

impl Kind {
    fn class(&self) -> &'static str {
        match self {
            Self::Base(_) => "base",
            Self::Claim(_) => "claim",
        }
    }

    fn id(&self) -> &str {
        match self {
            Self::Base(version) => version,
            Self::Claim(uid) => uid.as_str(),
        }
    }
}

/// containerd and CRI-O read `.json` and `.yaml`; this driver writes JSON only.
const SUFFIX: &str = ".json";

impl Naming {
    /// For the driver of this name, such as `gpu.nvidia.com`: vendor `k8s.gpu.nvidia.com`, as NVIDIA's driver has it.
    pub fn new(driver_name: &str) -> Self {
        Self { vendor: format!("k8s.{driver_name}") }
    }

    /// `vendor/class`.
    pub fn kind(&self, kind: &Kind) -> String {
        format!("{}/{}", self.vendor, kind.class())
    }

    /// The file of a spec, named as the CDI libraries name transient specs: `<vendor>-<class>_<id>.json`.
    pub fn file_name(&self, kind: &Kind) -> String {
        format!("{}-{}_{}{SUFFIX}", self.vendor, kind.class(), kind.id())
    }

    /// Parses the name of a spec file of this driver.
    pub fn parse_file_name(&self, name: &str) -> Option<Kind> {
        let (class, id) = self.own_part(name)?.strip_suffix(SUFFIX)?.split_once('_')?;
        match class {
            "base" if is_version(id) => Some(Kind::Base(id.to_owned())),
            "claim" => id.parse().ok().map(Kind::Claim),
            _ => None,
        }
    }

    /// The part of a file name after the vendor, which only drivers of this name use.
    pub(crate) fn own_part<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(&self.vendor)?.strip_prefix('-')
    }

    /// The qualified names of the base devices of a driver version with these capabilities.
    pub fn base_devices(&self, version: &str, capabilities: &Capabilities) -> Vec<String> {
        let kind = self.kind(&Kind::Base(version.to_owned()));
        let usual = Capabilities::default();
        let has_usual = usual.iter().all(|capability| capabilities.contains(capability));
        let others = capabilities.iter().filter(|capability| !has_usual || !usual.contains(*capability));
        let names = has_usual.then(|| version.to_owned()).into_iter();
        let names = names.chain(others.map(|capability| base_device_name(version, capability)));
        names.map(|name| format!("{kind}={name}")).collect()
    }

    /// The capabilities of the base devices among these names, which [`Naming::base_devices`] made for any version.
    pub fn capabilities(&self, cdi_ids: &[String]) -> Capabilities {
        let before = format!("{}=", self.kind(&Kind::Base(String::new())));
        let names = cdi_ids.iter().filter_map(|id| id.strip_prefix(&before));
        let capabilities = names.flat_map(|name| match name.split_once('-') {
            None => Capabilities::default().iter().collect(),
            Some((_, capability)) => capability.parse().ok().into_iter().collect::<Vec<Capability>>(),
        });
        Capabilities::of(capabilities).unwrap_or_default()
    }

    /// The qualified name of a device of a claim, or of its share of one.
    pub fn claim_device(&self, uid: &ClaimUid, device: &DeviceName, share: Option<&ShareId>) -> String {
        format!("{}={}", self.kind(&Kind::Claim(uid.clone())), claim_device_name(uid, device, share))
    }
}

/// The name of the base device with one capability. That of compute and utility together is the version alone.
pub(crate) fn base_device_name(version: &str, capability: Capability) -> String {
    format!("{version}-{capability}")
}

/// The name of a device within the spec of its claim. The share is part of it, since a claim may have several of one device.
pub(crate) fn claim_device_name(uid: &ClaimUid, device: &DeviceName, share: Option<&ShareId>) -> String {
    match share {
        None => format!("{uid}-{device}"),
        Some(share) => format!("{uid}-{device}-{share}"),
    }
}

/// Versions become file and device names: letters, digits and inner dots only.
pub(crate) fn is_version(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 64
        && edge(text.bytes().next())
        && edge(text.bytes().next_back())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_parsed() {
        let naming = Naming::new("gpu.nvidia.com");
        let uid: ClaimUid = "9f7c3f9e-3c7c-4b0e-8a53-0d6a1f4e2b11".parse().unwrap();
        for kind in [Kind::Base("550.54.15".to_owned()), Kind::Claim(uid)] {
            assert_eq!(naming.parse_file_name(&naming.file_name(&kind)), Some(kind));
        }
    }

    #[test]
    fn base_devices_are_named_after_their_capabilities() {
        use Capability::{Compute, Graphics, Ipc, Utility, Video};
        let naming = Naming::new("gpu.nvidia.com");
        for (listed, expect) in [
            (&[Compute, Utility][..], &["550.54.15"][..]),
            (&[Utility], &["550.54.15-utility"]),
            (&[Video], &["550.54.15-compute", "550.54.15-video"]),
            (&[Compute, Utility, Graphics, Ipc], &["550.54.15", "550.54.15-graphics", "550.54.15-ipc"]),
        ] {
            let capabilities = Capabilities::of(listed.iter().copied()).unwrap();
            let mut ids = naming.base_devices("550.54.15", &capabilities);
            let expect: Vec<_> = expect.iter().map(|name| format!("k8s.gpu.nvidia.com/base={name}")).collect();
            assert_eq!(ids, expect);
            ids.push("k8s.gpu.nvidia.com/claim=9f7c3f9e-gpu-00000000".to_owned());
            assert_eq!(naming.capabilities(&ids), capabilities);
        }
        assert_eq!(naming.capabilities(&["k8s.other.com/base=1-video".to_owned()]), Capabilities::default());
    }

    #[test]
    fn names_of_other_programs_are_not_parsed() {
        let naming = Naming::new("gpu.nvidia.com");
        for name in [
            "k8s.gpu.nvidia.com-claim_9f7c3f9e-3c7c-4b0e-8a53-0d6a1f4e2b11.yaml",
            "k8s.gpu.nvidia.com-claim_.json",
            "k8s.gpu.nvidia.com-claim_a..b.json",
            "k8s.gpu.nvidia.com-claim.json",
            "k8s.gpu.nvidia.com-base_-1.json",
            "k8s.gpu.nvidia.com-base_.json",
            "k8s.gpu.nvidia.com-other_1.json",
            "k8s.gpu.nvidia.company-claim_1.json",
            "nvidia.com-gpu.json",
            "",
        ] {
            assert_eq!(naming.parse_file_name(name), None, "{name}");
        }
    }
}
