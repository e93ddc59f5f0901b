// SPDX-License-Identifier: Apache-2.0
//! The numbers of NVML as words for selectors.
//!
//! The spelling is that of NVIDIA's own DRA driver (go-nvlib), because selectors are written against it. A number that is newer
//! than this file is `Unknown`, and the GPU stays usable.

/// `nvmlBrandType_t`.
pub(super) fn brand(number: Option<u32>) -> &'static str {
    match number {
        Some(1) => "Quadro",
        Some(2) => "Tesla",
        Some(3) => "NVS",
        Some(4) => "Grid",
        Some(5) => "GeForce",
        Some(6) => "Titan",
        Some(7) => "NvidiaVApps",
        Some(8) => "NvidiaVPC",
        Some(9) => "NvidiaVCS",
        Some(10) => "NvidiaVWS",
        Some(11) => "NvidiaCloudGaming",
        Some(12) => "QuadroRTX",
        Some(13) => "NvidiaRTX",
        Some(14) => "Nvidia",
        Some(15) => "GeForceRTX",
        Some(16) => "TitanRTX",
        Some(_) | None => "Unknown",
    }
}

/// `nvmlDeviceArchitecture_t`.
pub(super) fn architecture(number: Option<u32>) -> &'static str {
    match number {
        Some(2) => "Kepler",
        Some(3) => "Maxwell",
        Some(4) => "Pascal",
        Some(5) => "Volta",
        Some(6) => "Turing",
        Some(7) => "Ampere",
        Some(8) => "Ada Lovelace",
        Some(9) => "Hopper",
        Some(10) => "Blackwell",
        Some(13) => "Rubin",
        Some(_) | None => "Unknown",
    }
}

/// `nvmlDeviceAddressingModeType_t`.
pub(super) fn addressing_mode(number: u32) -> Option<String> {
    let word = match number {
        0 => "None",
        1 => "HMM",
        2 => "ATS",
        _ => return None,
    };
    Some(word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_newer_than_this_driver_is_unknown() {
        for number in [None, Some(0), Some(11_111), Some(u32::MAX)] {
            assert_eq!((brand(number), architecture(number)), ("Unknown", "Unknown"), "{number:?}");
        }
        assert_eq!(addressing_mode(7), None);
        assert_eq!((brand(Some(14)), architecture(Some(9))), ("Nvidia", "Hopper"));
    }
}
