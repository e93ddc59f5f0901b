// SPDX-License-Identifier: Apache-2.0
//! NVIDIA's nvidia-smi reads and changes the node.

use std::collections::BTreeSet;

use dra_sim::catalog::models;

use crate::node::Node;

fn lines_with<'a>(text: &'a str, part: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.contains(part)).map(str::trim).collect()
}

#[test]
fn lists_gpus_with_their_identities() {
    let node = Node::new("h100:1,t4:1");
    let state = node.state();
    let expect = format!(
        "GPU 0: NVIDIA H100 80GB HBM3 (UUID: {})\nGPU 1: Tesla T4 (UUID: {})\n",
        state.gpus[0].uuid, state.gpus[1].uuid
    );
    assert_eq!(node.smi(&["-L"]).ok(), expect);
}

#[test]
fn shows_the_default_table() {
    let node = Node::new("h200:1,b200:1,a100-40:1,l4:1");
    let text = node.smi(&[]).ok();
    for part in [
        "Driver Version: 580.95.05",
        "CUDA Version: 13.0",
        "NVIDIA H200",
        "/ 14377",
        "NVIDIA B200",
        "/ 18335",
        "NVIDIA A100-SXM4-40GB",
        "40960MiB",
        "NVIDIA L4",
        "No running processes found",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn answers_queries_as_csv() {
    let node = Node::new("h100:1,t4:1");
    let fields = "--query-gpu=index,name,mig.mode.current,compute_mode,memory.total,pci.bus_id,driver_version";
    let expect = "0, NVIDIA H100 80GB HBM3, Disabled, Default, 81559 MiB, 00000000:1B:00.0, 580.95.05\n\
                  1, Tesla T4, [N/A], Default, 15360 MiB, 00000000:27:00.0, 580.95.05\n";
    assert_eq!(node.smi(&[fields, "--format=csv,noheader"]).ok(), expect);
}

/// A row of NVIDIA's tables: profile id, name, instances, GiB from and to, multiprocessors where they are published.
type Row = (u32, &'static str, u32, f64, f64, Option<u32>);

/// The profiles of NVIDIA's MIG user guide, and the memory that real boards report (mig-parted's tests, the GPU operator's
/// configuration), which differs a little between drivers.
const PROFILES: [(&str, [Row; 7]); 6] = [
    (
        "a100-40",
        [
            (19, "1g.5gb", 7, 4.75, 4.75, Some(14)),
            (20, "1g.5gb+me", 1, 4.75, 4.75, Some(14)),
            (15, "1g.10gb", 4, 9.62, 9.75, Some(14)),
            (14, "2g.10gb", 3, 9.75, 9.75, Some(28)),
            (9, "3g.20gb", 2, 19.62, 19.62, Some(42)),
            (5, "4g.20gb", 1, 19.62, 19.62, Some(56)),
            (0, "7g.40gb", 1, 39.5, 39.5, Some(98)),
        ],
    ),
    (
        "a100-80",
        [
            (19, "1g.10gb", 7, 9.5, 9.62, Some(14)),
            (20, "1g.10gb+me", 1, 9.5, 9.62, Some(14)),
            (15, "1g.20gb", 4, 19.5, 19.5, Some(14)),
            (14, "2g.20gb", 3, 19.5, 19.5, Some(28)),
            (9, "3g.40gb", 2, 39.25, 39.25, Some(42)),
            (5, "4g.40gb", 1, 39.25, 39.25, Some(56)),
            (0, "7g.80gb", 1, 78.5, 79.25, Some(98)),
        ],
    ),
    (
        "h100-80",
        [
            (19, "1g.10gb", 7, 9.75, 9.75, Some(16)),
            (20, "1g.10gb+me", 1, 9.75, 9.75, Some(16)),
            (15, "1g.20gb", 4, 19.62, 19.62, Some(26)),
            (14, "2g.20gb", 3, 19.62, 19.62, Some(32)),
            (9, "3g.40gb", 2, 39.5, 39.5, Some(60)),
            (5, "4g.40gb", 1, 39.5, 39.5, Some(64)),
            (0, "7g.80gb", 1, 79.25, 79.25, Some(132)),
        ],
    ),
    (
        "h200",
        [
            (19, "1g.18gb", 7, 16.0, 16.0, Some(16)),
            (20, "1g.18gb+me", 1, 16.0, 16.0, Some(16)),
            (15, "1g.35gb", 4, 32.25, 32.25, Some(26)),
            (14, "2g.35gb", 3, 32.25, 32.25, Some(32)),
            (9, "3g.71gb", 2, 69.5, 69.5, Some(60)),
            (5, "4g.71gb", 1, 69.5, 69.5, Some(64)),
            (0, "7g.141gb", 1, 139.5, 140.5, Some(132)),
        ],
    ),
    (
        "b200",
        [
            (19, "1g.23gb", 7, 20.5, 22.0, Some(18)),
            (20, "1g.23gb+me", 1, 20.5, 22.0, Some(18)),
            (15, "1g.45gb", 4, 44.25, 44.25, Some(30)),
            (14, "2g.45gb", 3, 44.25, 44.25, Some(36)),
            (9, "3g.90gb", 2, 86.0, 90.0, None),
            (5, "4g.90gb", 1, 86.0, 90.0, None),
            (0, "7g.180gb", 1, 172.0, 180.0, None),
        ],
    ),
    (
        "gb200",
        [
            (19, "1g.23gb", 7, 22.0, 22.0, Some(18)),
            (20, "1g.23gb+me", 1, 22.0, 22.0, Some(18)),
            (15, "1g.47gb", 4, 45.5, 45.5, Some(32)),
            (14, "2g.47gb", 3, 45.5, 45.5, Some(38)),
            // No listing of these is at hand: what the names allow.
            (9, "3g.93gb", 2, 89.0, 93.0, None),
            (5, "4g.93gb", 1, 89.0, 93.0, None),
            (0, "7g.186gb", 1, 178.0, 186.0, None),
        ],
    ),
];

/// Those of every board with eight memory slices, in the same source.
const PLACEMENTS: &str = "GPU  0 Profile ID 19 Placements: {0,1,2,3,4,5,6}:1\n\
                          GPU  0 Profile ID 20 Placements: {0,1,2,3,4,5,6}:1\n\
                          GPU  0 Profile ID 15 Placements: {0,2,4,6}:2\n\
                          GPU  0 Profile ID 14 Placements: {0,2,4}:2\n\
                          GPU  0 Profile ID  9 Placements: {0,4}:4\n\
                          GPU  0 Profile ID  5 Placement : {0}:4\n\
                          GPU  0 Profile ID  0 Placement : {0}:8\n";

#[test]
fn lists_the_profiles_and_placements_of_nvidias_tables() {
    let with_mig = models().iter().filter(|model| model.mig.is_some()).map(|model| model.id.as_str());
    assert_eq!(with_mig.collect::<BTreeSet<_>>(), PROFILES.iter().map(|(model, _)| *model).collect());
    for (model, table) in PROFILES {
        let node = Node::new(&format!("{model}:1"));
        node.smi(&["-mig", "1"]);
        node.gpu_sim("reset", &["-g", "0"]).ok();
        assert_eq!(node.smi(&["mig", "-lgipp"]).ok(), PLACEMENTS, "{model}");
        let listed = node.smi(&["mig", "-lgip"]).ok();
        let rows: Vec<Vec<&str>> = lines_with(&listed, " MIG ")
            .iter()
            .map(|line| line.trim_matches('|').split_whitespace().collect())
            .collect();
        assert_eq!(rows.len(), table.len(), "{model}\n{listed}");
        for (row, (id, name, count, from, to, multiprocessors)) in rows.iter().zip(table) {
            let expect = ["0", "MIG", name, &id.to_string(), &format!("{count}/{count}")];
            assert_eq!(row[..5], expect, "{model}\n{listed}");
            let memory: f64 = row[5].parse().unwrap();
            assert!((from..=to).contains(&memory), "{model} {name}: {memory}");
            if let Some(count) = multiprocessors {
                assert_eq!(row[7], count.to_string(), "{model} {name}");
            }
        }
    }
}

#[test]
fn creates_shows_and_destroys_instances() {
    let node = Node::new("h100:2");
    node.smi(&["-i", "0", "-mig", "1"]).ok();
    let created = node.smi(&["mig", "-i", "0", "-cgi", "9", "-C"]).ok();
    let expect = "Successfully created GPU instance ID  2 on GPU  0 using profile MIG 3g.40gb (ID  9)\n\
                  Successfully created compute instance ID  0 on GPU  0 GPU instance ID  2 using profile MIG 3g.40gb (ID  2)\n";
    assert_eq!(created, expect);
    let placed = node.smi(&["mig", "-i", "0", "-cgi", "19:3"]).ok();
    assert!(placed.contains("GPU instance ID 10 on GPU  0 using profile MIG 1g.10gb (ID 19)"), "{placed}");
    node.smi(&["mig", "-i", "0", "-cgi", "1g.10gb+me", "-C"]).ok();

    let listed = node.smi(&["mig", "-lgi"]).ok();
    assert_eq!(lines_with(&listed, "3g.40gb"), ["|   0  MIG 3g.40gb          9        2          4:4     |"]);
    assert_eq!(lines_with(&listed, "1g.10gb "), ["|   0  MIG 1g.10gb         19       10          3:1     |"]);
    let compute = node.smi(&["mig", "-lci"]).ok();
    assert_eq!(
        lines_with(&compute, "3g.40gb"),
        ["|   0      2       MIG 3g.40gb          2         0          0:3     |"]
    );
    let devices = node.smi(&["-L"]).ok();
    let uuid = &node.state().gpus[0].instances[&2].compute[&0].uuid;
    assert_eq!(lines_with(&devices, "3g.40gb"), [format!("MIG 3g.40gb     Device  0: (UUID: {uuid})")]);

    let refused = node.smi(&["mig", "-dgi"]);
    assert!(refused.code != Some(0) && refused.text.contains("In use by another client"), "{refused:?}");
    node.smi(&["mig", "-i", "0", "-dci"]).ok();
    node.smi(&["mig", "-i", "0", "-dgi"]).ok();
    assert!(node.state().gpus[0].instances.is_empty());
    node.smi(&["-i", "0", "-mig", "0"]).ok();
    assert_eq!(node.smi(&["-L"]).ok().lines().count(), 2);
}

#[test]
fn reports_insufficient_resources_on_a_full_gpu() {
    let node = Node::new("h100:1");
    node.smi(&["-mig", "1"]).ok();
    node.smi(&["mig", "-cgi", "19,19,19,19,19,19,19", "-C"]).ok();
    let refused = node.smi(&["mig", "-cgi", "19"]);
    assert!(refused.code != Some(0) && refused.text.contains("Insufficient Resources"), "{refused:?}");
    let profiles = node.smi(&["mig", "-lgip"]).ok();
    assert!(lines_with(&profiles, "1g.10gb  ")[0].contains("0/7"), "{profiles}");
}

#[test]
fn mig_mode_of_an_a100_waits_for_a_reset() {
    let node = Node::new("a100-80:1,t4:1");
    let pending = node.smi(&["-i", "0", "-mig", "1"]).ok();
    assert!(pending.contains("pending enable state"), "{pending}");
    let mode = ["-i", "0", "--query-gpu=mig.mode.current,mig.mode.pending", "--format=csv,noheader"];
    assert_eq!(node.smi(&mode).ok(), "Disabled, Enabled\n");
    node.gpu_sim("reset", &["-g", "0"]).ok();
    assert_eq!(node.smi(&mode).ok(), "Enabled, Enabled\n");
    // nvidia-smi exits 0 where MIG is not supported; our driver must read the mode back.
    let unsupported = node.smi(&["-i", "1", "-mig", "1"]).ok();
    assert!(unsupported.contains("Not Supported"), "{unsupported}");
}

#[test]
fn sets_compute_mode_persistence_and_time_slice() {
    let node = Node::new("h100:2");
    node.smi(&["-i", "1", "-c", "EXCLUSIVE_PROCESS"]).ok();
    node.smi(&["-i", "1", "-pm", "0"]).ok();
    node.smi(&["compute-policy", "-i", "1", "--set-timeslice", "2"]).ok();
    let fields = ["--query-gpu=compute_mode,persistence_mode", "--format=csv,noheader"];
    assert_eq!(node.smi(&fields).ok(), "Default, Enabled\nExclusive_Process, Disabled\n");
    let policies = node.smi(&["compute-policy", "-l"]).ok();
    let values: Vec<&str> = lines_with(&policies, "Timeslice");
    assert!(values[0].contains("Default") && values[1].contains("Medium"), "{policies}");
}

/// nvidia-smi reads these through entry points of NVML that have no names.
#[test]
fn prints_what_it_reads_through_private_entry_points() {
    let node = Node::new("h100:1,b200:1,h200:1");
    let fields = |gpu: &str| {
        let text = node.smi(&["-i", gpu, "-q"]).ok();
        ["Addressing Mode", "GPU Part Number", "GPU T.Limit Temp", "Sparse Operation Mode", "Atomic Caps Inbound"]
            .map(|name| lines_with(&text, name)[0].split_once(": ").unwrap().1.trim().to_owned())
    };
    assert_eq!(fields("0"), ["HMM", "2330-885-A1", "55 C", "Disabled", "N/A"]);
    let atomics = "FETCHADD_32 FETCHADD_64 SWAP_32 SWAP_64 CAS_32 CAS_64";
    assert_eq!(fields("1"), ["None", "2901-886-A1", "56 C", "N/A", atomics]);
    assert_eq!(fields("2"), ["HMM", "N/A", "N/A", "N/A", "N/A"]);
}

/// Declared errors are those of the DRAM, and only root reads the counters of the SRAM.
#[test]
fn counts_errors_of_dram_and_sram() {
    let node = Node::new("h100:1");
    node.gpu_sim("memory-errors", &["-g", "0", "--corrected", "3", "--uncorrected", "1"]).ok();
    let fields = [
        "--query-gpu=ecc.errors.corrected.volatile.dram,ecc.errors.uncorrected.aggregate.dram,\
         ecc.errors.corrected.volatile.sram,ecc.errors.corrected.volatile.total",
        "--format=csv,noheader",
    ];
    assert_eq!(node.smi(&fields).ok(), "3, 1, 0, 3\n");
    let parity = |text: &str| lines_with(text, "Parity")[0].split_once(": ").unwrap().1.to_owned();
    assert_eq!(parity(&node.smi(&["-q", "-d", "ECC"]).ok()), "0");
    assert_eq!(parity(&node.smi_unprivileged(&["-q", "-d", "ECC"]).ok()), "Insufficient Permissions");
}

/// Only root may change a GPU; every user may read it.
#[test]
fn refuses_changes_by_others() {
    let node = Node::new("h100:1");
    node.smi_unprivileged(&["-L"]).ok();
    let refused = node.smi_unprivileged(&["-mig", "1"]);
    assert!(refused.code != Some(0) && refused.text.contains("Insufficient Permissions"), "{refused:?}");
    assert_eq!(node.state().generation, 1);
}

/// `--gpu-reset` and `topo -m` use private entry points that the simulator does not implement; `gpu-sim reset` replaces the
/// first, and sysfs has the data of the second.
#[test]
fn reset_and_topology_are_the_known_gaps() {
    let node = Node::new("h100:2");
    for arguments in [&["--gpu-reset", "-i", "0"][..], &["topo", "-m"]] {
        assert_ne!(node.smi(arguments).code, Some(0), "{arguments:?} is answered: use it and change this test");
    }
    node.gpu_sim("reset", &["-g", "0"]).ok();
}

/// `gpu-sim mig` does what nvidia-smi does, with the same words.
#[test]
fn gpu_sim_mig_equals_nvidia_smi() {
    let (by_smi, by_us) = (Node::new("h100:1"), Node::new("h100:1"));
    by_smi.smi(&["-mig", "1"]).ok();
    by_us.gpu_sim("mig", &["mode", "on"]).ok();
    let theirs = by_smi.smi(&["mig", "-cgi", "9,19:3,1g.10gb", "-C"]).ok();
    assert_eq!(by_us.gpu_sim("mig", &["cgi", "9,19:3,1g.10gb", "-C"]).ok(), theirs);
    assert_eq!(by_us.state().gpus, by_smi.state().gpus);
    assert_eq!(by_us.gpu_sim("mig", &["dgi"]).code, Some(1));
    by_us.gpu_sim("mig", &["dci"]).ok();
    by_us.gpu_sim("mig", &["dgi"]).ok();
    by_us.gpu_sim("mig", &["mode", "off"]).ok();
    assert!(by_us.gpu_sim("status", &[]).ok().contains("off"));
}
