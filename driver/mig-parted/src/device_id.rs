// SPDX-License-Identifier: Apache-2.0
//! PCI ids of a GPU model, as mig-parted writes them: `0x233010DE`, or `0x233010DE:0x16C110DE` with the subsystem.

use std::fmt;

use dra_model::PciIds;

/// The PCI ids in a `device-filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceId {
    text: String,
    ids: PciIds,
}

impl DeviceId {
    pub fn parse(text: &str) -> Option<Self> {
        let (device, subsystem) = match text.split_once(':') {
            Some((device, subsystem)) => (device, Some(hex(subsystem)?)),
            None => (text, None),
        };
        Some(Self { text: text.to_owned(), ids: PciIds { device: hex(device)?, subsystem } })
    }

    /// Whether a GPU is of the model. A subsystem that is not written, or not known, is not compared.
    pub fn matches(&self, gpu: PciIds) -> bool {
        let is_same = |(wanted, found)| wanted == found;
        self.ids.device == gpu.device && self.ids.subsystem.zip(gpu.subsystem).is_none_or(is_same)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn hex(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_by_its_ids_in_either_case() {
        let gpu = PciIds { device: 0x2330_10de, subsystem: Some(0x16c1_10de) };
        for (text, expect) in [
            ("0x233010DE", true),
            ("0x233010de", true),
            ("0x233010DE:0x16C110DE", true),
            ("0x233010DE:0x16C010DE", false),
            ("0x232210DE", false),
        ] {
            assert_eq!(DeviceId::parse(text).unwrap().matches(gpu), expect, "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_ids() {
        for text in ["", "0x", "2330", "0x2330 10DE", "0x+23", "0x233010DE:", "0x1233010DE", "H100"] {
            assert_eq!(DeviceId::parse(text), None, "{text:?}");
        }
    }
}
