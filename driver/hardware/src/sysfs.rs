// SPDX-License-Identifier: Apache-2.0
//! Properties of a PCI device that NVML does not report.
//!
//! A value that is absent or unreadable is `None`, because a GPU is useful without its NUMA node and PCIe root.

use std::path::{Path, PathBuf};

use dra_model::{PciAddress, PciIds};

/// The NUMA node of a PCI device; the kernel writes -1 if there is none.
pub fn numa_node(sys_root: &Path, pci: PciAddress) -> Option<u32> {
    let text = std::fs::read_to_string(device_path(sys_root, pci).join("numa_node")).ok()?;
    text.trim().parse().ok()
}

/// The PCI root complex of a PCI device, `pci0000:00`: the value of the standard attribute `pcieRoot` (KEP-4381).
pub fn pcie_root(sys_root: &Path, pci: PciAddress) -> Option<String> {
    let target = std::fs::read_link(device_path(sys_root, pci)).ok()?;
    let root = target.components().filter_map(|component| component.as_os_str().to_str()).find(|name| is_root(name))?;
    Some(root.to_owned())
}

/// The PCI ids of a GPU model, which mig-parted selects GPUs by.
pub fn pci_ids(sys_root: &Path, pci: PciAddress) -> Option<PciIds> {
    let path = device_path(sys_root, pci);
    let id = |name: &str| {
        let text = std::fs::read_to_string(path.join(name)).ok()?;
        u16::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok().map(u32::from)
    };
    let both = |device: &str, vendor: &str| Some(id(device)? << 16 | id(vendor)?);
    Some(PciIds { device: both("device", "vendor")?, subsystem: both("subsystem_device", "subsystem_vendor") })
}

fn device_path(sys_root: &Path, pci: PciAddress) -> PathBuf {
    sys_root.join("bus/pci/devices").join(pci.to_string())
}

/// `pciDDDD:BB` in hexadecimal; the domain is longer behind some controllers.
fn is_root(name: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.strip_prefix("pci")
        .and_then(|rest| rest.split_once(':'))
        .is_some_and(|(domain, bus)| domain.len() >= 4 && bus.len() == 2 && is_hex(domain) && is_hex(bus))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const GPU: PciAddress = PciAddress { domain: 0, bus: 0x3b, device: 0, function: 0 };

    #[test]
    fn numa_nodes_are_numbers_from_0() {
        let sys = tempfile::tempdir().unwrap();
        let dir = device_path(sys.path(), GPU);
        assert_eq!(numa_node(sys.path(), GPU), None);
        std::fs::create_dir_all(&dir).unwrap();
        for (given, expect) in [("1\n", Some(1)), ("0\n", Some(0)), ("-1\n", None), ("", None), ("x", None)] {
            std::fs::write(dir.join("numa_node"), given).unwrap();
            assert_eq!(numa_node(sys.path(), GPU), expect, "{given}");
        }
    }

    #[test]
    fn a_model_has_the_ids_of_its_device_and_of_its_subsystem() {
        let sys = tempfile::tempdir().unwrap();
        let dir = device_path(sys.path(), GPU);
        assert_eq!(pci_ids(sys.path(), GPU), None);
        std::fs::create_dir_all(&dir).unwrap();
        for (name, text) in [("device", "0x2330\n"), ("vendor", "0x10de\n")] {
            std::fs::write(dir.join(name), text).unwrap();
        }
        assert_eq!(pci_ids(sys.path(), GPU), Some(PciIds { device: 0x2330_10de, subsystem: None }));
        for (name, text) in [("subsystem_device", "0x16c1\n"), ("subsystem_vendor", "0x10de\n")] {
            std::fs::write(dir.join(name), text).unwrap();
        }
        assert_eq!(pci_ids(sys.path(), GPU).unwrap().subsystem, Some(0x16c1_10de));
    }

    #[test]
    fn the_pcie_root_is_the_first_root_in_the_path_of_the_device() {
        let sys = tempfile::tempdir().unwrap();
        let link_path = device_path(sys.path(), GPU);
        std::fs::create_dir_all(link_path.parent().unwrap()).unwrap();
        assert_eq!(pcie_root(sys.path(), GPU), None);
        for (given, expect) in [
            ("../../../devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0", Some("pci0000:3a")),
            ("../../../devices/pci10000:00/10000:00:02.0/10000:01:00.0", Some("pci10000:00")),
            ("../../../devices/LNXSYSTM:00/pci0001:00/0001:00:00.0", Some("pci0001:00")),
            ("../../../devices/platform/pcie/0000:3b:00.0", None),
        ] {
            symlink(given, &link_path).unwrap();
            assert_eq!(pcie_root(sys.path(), GPU).as_deref(), expect, "{given}");
            std::fs::remove_file(&link_path).unwrap();
        }
    }
}
