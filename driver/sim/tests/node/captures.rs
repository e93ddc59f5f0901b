// SPDX-License-Identifier: Apache-2.0
//! A simulated board answers as a real one of its model did.
//!
//! ```text
//! tests/captures/MODEL.txt (what nvidia-smi printed of a real board) --+
//! nvidia-smi -q -x of the simulated board ---------------------------+-> every field but those of `EXCEPTIONS` is equal
//! NVML calls for fields that this nvidia-smi is too old to print ----+
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::node::Node;

/// Texts by the paths of their elements.
type Facts = BTreeMap<String, String>;

const CAPTURES: [(&str, &str); 6] = [
    ("a100-40", include_str!("../captures/a100-40.txt")),
    ("h100-80", include_str!("../captures/h100-80.txt")),
    ("b200", include_str!("../captures/b200.txt")),
    ("t4", include_str!("../captures/t4.txt")),
    ("l40s", include_str!("../captures/l40s.txt")),
    ("gb200", include_str!("../captures/gb200.txt")),
];

/// What is compared instead of the whole text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    /// Whether there is a value.
    Presence,
    /// The text without its digits.
    Unit,
    /// Nothing: the call is not supported here.
    Unanswered,
    /// Nothing: the captured nvidia-smi is too new to print it, and here it is `N/A`.
    OnlyHere,
    /// Nothing: nvidia-smi 535 is too old to print it, and no NVML call gives it.
    OnlyThere,
}

use Compared::{OnlyHere, OnlyThere, Presence, Unanswered, Unit};

/// Fields that are not compared exactly. A path ends with `/` if all fields below it are meant, and begins with a model if that of one board is.
const EXCEPTIONS: [(Compared, &str, &[&str]); 13] = [
    (Presence, "each board has its own", &["serial", "uuid", "pdi"]),
    (
        Presence,
        "follows from the slot of the board",
        &["minor_number", "board_id", "pci/pci_bus", "pci/pci_device", "pci/pci_bus_id", "platformInfo/module_id"],
    ),
    (Presence, "version of the driver", &["gsp_firmware_version"]),
    (
        Unit,
        "momentary",
        &[
            "pci/tx_util",
            "pci/rx_util",
            "bar1_memory_usage/used",
            "bar1_memory_usage/free",
            "temperature/gpu_temp",
            "temperature/gpu_temp_tlimit",
            "temperature/memory_temp",
            "gpu_power_readings/average_power_draw",
            "gpu_power_readings/instant_power_draw",
            "gpu_memory_power_readings/average_power_draw",
            "module_power_readings/average_power_draw",
            "module_power_readings/instant_power_draw",
            "clocks/",
        ],
    ),
    (Unit, "nvidia-smi 535 rounds to whole MiB, newer ones round up", &["fb_memory_usage/free"]),
    (
        Unit,
        "counts since the board was made or the driver was loaded",
        &[
            "pci/replay_counter",
            "ecc_errors/aggregate/dram_correctable",
            "clocks_event_reasons_counters/clocks_event_reasons_counters_sw_power_cap",
        ],
    ),
    (Unit, "local time of the last flush", &["inforom_bbx_flush/latest_timestamp"]),
    (OnlyHere, "removed from newer output", &["gpu_reset_status/", "voltage/graphics_volt"]),
    (
        Unanswered,
        "for its slot and tray, which are `N/A`, nvmlPlatformInfo_v2_t has numbers that NVIDIA does not document",
        &["b200 platformInfo/chassis_serial_number", "b200 platformInfo/host_id", "b200 platformInfo/peer_type"],
    ),
    (OnlyThere, "each fabric has its own, in bytes whose order is not documented", &["platformInfo/gpu_fabric_guid"]),
    (OnlyThere, "NVML has no call that reads it", &["power_smoothing", "edpp_multiplier"]),
    (
        OnlyThere,
        "a structure of workload profiles, which no captured board supports",
        &["power_profiles/power_profile_requested_profiles", "power_profiles/power_profile_enforced_profiles"],
    ),
    (
        OnlyThere,
        "a mode of vGPU hosts, which no captured board is",
        &["gpu_virtualization_mode/vgpu_heterogeneous_mode"],
    ),
];

/// Names of fields in nvidia-smi 535 and in newer ones.
const RENAMED: [(&str, &str); 3] = [
    ("gpu_module_id", "platformInfo/module_id"),
    ("gpu_power_readings/power_draw", "gpu_power_readings/instant_power_draw"),
    ("module_power_readings/power_draw", "module_power_readings/instant_power_draw"),
];

/// What newer programs print for a field that they do not read any more.
const REMOVED: &str = "Requested functionality has been deprecated";

#[test]
fn a_simulated_board_answers_as_the_captured_one() {
    let models: Vec<String> = CAPTURES.iter().map(|(model, _)| format!("{model}:1")).collect();
    let node = Node::new(&models.join(","));
    let by_nvml = facts_by_nvml(&node);
    let (mut used, mut differing) = (BTreeSet::new(), Vec::new());
    for (index, (model, text)) in CAPTURES.iter().enumerate() {
        let captured = captured_facts(text);
        let xml = node.smi(&["-i", &index.to_string(), "-q", "-x"]).ok();
        let simulated = complete(printed_facts(&xml), &by_nvml[index], &captured);
        for path in captured.keys().chain(simulated.keys()).collect::<BTreeSet<_>>() {
            let (here, there) = (simulated.get(path), captured.get(path));
            let exception = exception_of(model, path);
            used.extend(exception.map(|(_, listed)| listed));
            if there.is_none_or(|text| text != REMOVED) && !agree(exception.map(|(kind, _)| kind), here, there) {
                differing.push(format!("{model} {path}: {here:?}, on the real board {there:?}"));
            }
        }
    }
    assert!(differing.is_empty(), "\n{}", differing.join("\n"));
    let listed = EXCEPTIONS.iter().flat_map(|(_, _, paths)| paths.iter().copied()).collect();
    assert_eq!(used, listed, "an exception that no field needs");
}

fn exception_of(model: &str, path: &str) -> Option<(Compared, &'static str)> {
    let of_model = format!("{model} {path}");
    let is_meant =
        |listed: &str| path == listed || of_model == listed || listed.ends_with('/') && path.starts_with(listed);
    EXCEPTIONS
        .iter()
        .find_map(|(kind, _, paths)| paths.iter().find(|listed| is_meant(listed)).map(|listed| (*kind, *listed)))
}

fn agree(exception: Option<Compared>, here: Option<&String>, there: Option<&String>) -> bool {
    let is_present = |text: &String| text != "N/A";
    match exception {
        None => here == there,
        Some(Presence) => here.map(is_present) == there.map(is_present),
        Some(Unit) => here.map(|text| unit(text)) == there.map(|text| unit(text)),
        Some(Unanswered) => here.is_some_and(|text| text == "N/A"),
        Some(OnlyHere) => here.is_some_and(|text| text == "N/A") && there.is_none_or(|text| text == "N/A"),
        Some(OnlyThere) => here.is_none(),
    }
}

/// `31.5 W` and `-7 W` are `# W`.
fn unit(text: &str) -> String {
    let is_number = |word: &str| word.trim_start_matches('-').starts_with(|first: char| first.is_ascii_digit());
    let words: Vec<&str> = text.split_whitespace().map(|word| if is_number(word) { "#" } else { word }).collect();
    words.join(" ")
}

fn captured_facts(text: &str) -> Facts {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(path, text)| (path.to_owned(), text.trim().to_owned()))
        .collect()
}

/// The fields of the first GPU in the output of `nvidia-smi -q -x`, which has one tag or one text a line.
fn printed_facts(xml: &str) -> Facts {
    let (mut facts, mut path, mut memory) = (Facts::new(), Vec::new(), String::new());
    let mut leaf: Option<String> = None;
    for line in xml.lines().map(str::trim).skip_while(|line| !line.starts_with("<gpu ")).skip(1) {
        if line == "</gpu>" {
            break;
        } else if line.starts_with("</") {
            if let Some(text) = leaf.take() {
                facts.insert(path.join("/"), text);
            }
            path.pop();
        } else if let Some((tag, rest)) = line.strip_prefix('<').and_then(|line| line.split_once('>')) {
            path.push(tag.to_owned());
            leaf = rest.is_empty().then(String::new);
            let Some((text, _)) = rest.split_once("</") else { continue };
            match tag {
                "value" => text.clone_into(&mut memory),
                "supported_graphics_clock" => {
                    let clocks = facts.entry(format!("supported_clocks/{memory}")).or_default();
                    let separator = if clocks.is_empty() { "" } else { " " };
                    clocks.extend([separator, text.trim_end_matches(" MHz")]);
                }
                _ => drop(facts.insert(path.join("/"), text.trim().to_owned())),
            }
            path.pop();
        } else if let Some(text) = &mut leaf {
            text.push_str(line);
        }
    }
    facts
}

/// With the names of newer programs, and with what NVML reports where nvidia-smi 535 prints nothing, knows no name or has
/// not enough room, as for more than 256 clocks.
fn complete(mut printed: Facts, by_nvml: &Facts, captured: &Facts) -> Facts {
    for (old, new) in RENAMED {
        let text = printed.remove(old).unwrap();
        printed.insert(new.to_owned(), text);
    }
    for (path, text) in by_nvml.iter().filter(|(path, _)| captured.contains_key(*path)) {
        if printed.get(path).is_none_or(|text| text == "Unknown" || text == "Unknown Error") {
            printed.insert(path.clone(), text.clone());
        }
    }
    printed
}

fn facts_by_nvml(node: &Node) -> Vec<Facts> {
    let text = node.python(BY_NVML).ok();
    text.split("---\n").skip(1).map(captured_facts).collect()
}

const BY_NVML: &str = r#"
from ctypes import *
lib = CDLL("libnvidia-ml.so.1")

def structure(*fields):
    return type("S", (Structure,), {"_fields_": list(fields)})

def versioned(number, *fields):
    made = structure(("version", c_uint), *fields)()
    made.version = sizeof(made) | number << 24
    return made

Field = structure(("id", c_uint), ("scope", c_uint), ("timestamp", c_longlong), ("latency", c_longlong),
                  ("type", c_uint), ("code", c_uint), ("value", c_ulonglong))

def read(name, out, text):
    return "N/A" if getattr(lib, name)(device, byref(out)) else text(out)

def field(id, scope, text):
    one = Field(id=id, scope=scope)
    assert lib.nvmlDeviceGetFieldValues(device, 1, byref(one)) == 0
    return "N/A" if one.code else text(one.value)

def clocks(call, *memory):
    count, list = c_uint(512), (c_uint * 512)()
    assert call(device, *memory, byref(count), list) == 0
    return list[:count.value]

def watts(milli): return f"{milli / 1000:.2f} W"
def yes_no(value): return "Yes" if value else "No"

def fabric():
    info = versioned(3, ("uuid", c_ubyte * 16), ("status", c_uint), ("clique", c_uint), ("state", c_ubyte),
                     ("mask", c_uint), ("summary", c_ubyte))
    assert lib.nvmlDeviceGetGpuFabricInfoV(device, byref(info)) == 0
    on = info.state != 0
    def bits(shift): return ["N/A", "True", "False"][info.mask >> shift & 3] if on else "N/A"
    hex = bytes(info.uuid).hex()
    print("fabric/cliqueId:", info.clique if on else "N/A")
    print("fabric/clusterUuid:", f"{hex[:8]}-{hex[8:12]}-{hex[12:16]}-{hex[16:20]}-{hex[20:]}" if on else "N/A")
    print("fabric/health/summary:", ["N/A", "Healthy", "Unhealthy", "Limited Capacity"][info.summary] if on else "N/A")
    print("fabric/health/bandwidth:", ["N/A", "Degraded", "Full"][info.mask & 3] if on else "N/A")
    for name, shift in [("route_recovery_in_progress", 2), ("route_unhealthy", 4),
                        ("access_timeout_recovery", 6), ("partition_assigned", 12)]:
        print(f"fabric/health/{name}:", bits(shift))
    print("fabric/health/incorrect_configuration:", ["N/A", "None"][info.mask >> 8 & 15])

lib.nvmlInit_v2()
count = c_uint()
lib.nvmlDeviceGetCount_v2(byref(count))
for index in range(count.value):
    device = c_void_p()
    lib.nvmlDeviceGetHandleByIndex_v2(index, byref(device))
    print("---")
    print("product_architecture:", read("nvmlDeviceGetArchitecture", c_uint(),
          lambda n: {6: "Turing", 7: "Ampere", 8: "Ada Lovelace", 9: "Hopper", 10: "Blackwell"}[n.value]))
    print("display_attached:", read("nvmlDeviceGetDisplayMode", c_uint(), lambda on: yes_no(on.value)))
    print("pdi:", read("nvmlDeviceGetPdi", versioned(1, ("value", c_ulonglong)), lambda pdi: f"{pdi.value:#018x}"))
    platform = versioned(2, ("guid", c_ubyte * 16), ("serial", c_char * 16),
                         *[(name, c_ubyte) for name in ("slot_number", "tray_index", "host_id", "peer_type", "module")])
    platform_of = lambda text: read("nvmlDeviceGetPlatformInfo", platform, text)
    print("platformInfo/chassis_serial_number:", platform_of(lambda info: info.serial.decode()))
    for name in ("slot_number", "tray_index", "host_id"):
        print(f"platformInfo/{name}:", platform_of(lambda info: getattr(info, name)))
    print("platformInfo/peer_type:", platform_of(lambda info: {1: "Switch Connected"}[info.peer_type]))
    print("c2c_mode:", read("nvmlDeviceGetC2cModeInfoV", c_uint(), lambda on: ["Disabled", "Enabled"][on.value]))
    print("gpu_recovery_action:", field(230, 0, lambda action: {0: "None"}[action]))
    pci = versioned(1, *[(name, c_uint) for name in ("domain", "bus", "device", "id", "subsystem", "base", "sub")],
                    ("address", c_char * 32))
    print("pci/pci_base_class:", read("nvmlDeviceGetPciInfoExt", pci, lambda pci: f"{pci.base:X}"))
    print("pci/pci_sub_class:", read("nvmlDeviceGetPciInfoExt", pci, lambda pci: f"{pci.sub:X}"))
    for name, id in [("sw_power_cap", 74), ("sync_boost", 76), ("sw_therm_slowdown", 251), ("hw_therm_slowdown", 252),
                     ("hw_power_brake", 253)]:
        print(f"clocks_event_reasons_counters/clocks_event_reasons_counters_{name}:",
              field(id, 0, lambda nanoseconds: f"{nanoseconds // 1000} us"))
    repair = versioned(1, ("channel", c_uint), ("tpc", c_uint))
    print("ecc_errors/channel_repair_pending:", read("nvmlDeviceGetRepairStatus", repair, lambda s: yes_no(s.channel)))
    print("ecc_errors/tpc_repair_pending:", read("nvmlDeviceGetRepairStatus", repair, lambda s: yes_no(s.tpc)))
    print("ecc_errors/unrepairable_memory:", read("nvmlDeviceGetUnrepairableMemoryFlag_v1", c_uint(), lambda on: yes_no(on.value)))
    rows = structure(*[(name, c_uint) for name in ("corr", "corr_inactive", "unc", "unc_inactive", "pending", "failed")])()
    for name in ("corr_inactive", "unc_inactive"):
        print(f"remapped_rows/remapped_row_{name}:", read("nvmlDeviceGetRemappedRows_v2", rows, lambda rows: getattr(rows, name)))
    print("gpu_power_readings/average_power_draw:", field(185, 0, watts))
    print("gpu_memory_power_readings/average_power_draw:", field(185, 2, watts))
    print("gpu_memory_power_readings/instant_power_draw:", field(186, 2, watts))
    print("module_power_readings/average_power_draw:", field(185, 1, watts))
    mode = versioned(1, ("state", c_uint))
    assert lib.nvmlDeviceGetDramEncryptionMode(device, byref(mode), byref(mode)) == 3
    print("dram_encryption_mode/current_dram_encryption: N/A")
    print("dram_encryption_mode/pending_dram_encryption: N/A")
    print("capabilities/egm:", read("nvmlDeviceGetCapabilities", versioned(1, ("mask", c_uint)),
          lambda s: ["disabled", "enabled"][s.mask & 1]))
    fabric()
    for memory in clocks(lib.nvmlDeviceGetSupportedMemoryClocks):
        print(f"supported_clocks/{memory} MHz:", *clocks(lib.nvmlDeviceGetSupportedGraphicsClocks, memory))
"#;
