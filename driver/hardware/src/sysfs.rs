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

/// The names and numbers of the DRM devices of a GPU, such as `card1` (226:1) and `renderD129` (226:129), sorted; not those for
/// an older control interface, `controlD65`.
pub fn drm_devices(sys_root: &Path, pci: PciAddress) -> Vec<(String, (u32, u32))> {
    let dir = device_path(sys_root, pci).join("drm");
    let names = std::fs::read_dir(&dir).into_iter().flatten().flatten();
    let mut devices: Vec<_> = names
        .filter_map(|entry| entry.file_name().into_string().ok().filter(|name| is_drm(name)))
        .filter_map(|name| Some((numbers(&dir.join(&name).join("dev"))?, name)))
        .map(|(numbers, name)| (name, numbers))
        .collect();
    devices.sort_unstable();
    devices
}

fn is_drm(name: &str) -> bool {
    let number = name.strip_prefix("card").or_else(|| name.strip_prefix("renderD"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `226:1` of a file `dev`.
fn numbers(path: &Path) -> Option<(u32, u32)> {
    let text = std::fs::read_to_string(path).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
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
    fn drm_devices_are_named_with_their_numbers() {
        let sys = tempfile::tempdir().unwrap();
        let dir = device_path(sys.path(), GPU).join("drm");
        assert_eq!(drm_devices(sys.path(), GPU), []);
        for (name, text) in [
            ("renderD129", "226:129\n"),
            ("card1", "226:1\n"),
            // A connector, an old interface, and what the kernel never writes.
            ("card1-DP-1", "226:9\n"),
            ("controlD65", "226:65\n"),
            ("card", "226:2\n"),
            ("card3", "none"),
        ] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
            std::fs::write(dir.join(name).join("dev"), text).unwrap();
        }
        std::fs::create_dir(dir.join("card4")).unwrap();
        let expect = [("card1".to_owned(), (226, 1)), ("renderD129".to_owned(), (226, 129))];
        assert_eq!(drm_devices(sys.path(), GPU), expect);
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
