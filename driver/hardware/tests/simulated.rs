// SPDX-License-Identifier: Apache-2.0
//! The whole path on a simulated node: tree, libnvidia-ml.so.1, NVML, inventory, nodes, files.
//!
//! `gpu-sim` runs as a process of its own, as an administrator's shell would; this process sees only files and NVML.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on should stop")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use dra_hardware::{
    Deadline, DeviceIds, DriverFilesError, GpuError, GpuSelector, Host, Machine, MachineError, NodeError, NvmlMachine,
    ProcessRoots, ProgramError, Roots, Setting,
};
use dra_model::{
    Bytes, ComputeMode, ComputeShare, DriverState, Failure, Fault, Gpu, GpuEntry, Health, MigDevice, MigMode,
    Placement, explain,
};

/// A simulated node and the host as our processes see it.
struct Node {
    dir: tempfile::TempDir,
    host: Host,
    machine: Arc<NvmlMachine>,
}

/// Builds the simulator once; its library is no dependency cargo could build for a test.
fn gpu_sim() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package=dra-sim", "--package=dra-sim-library", "--target-dir"]);
        assert!(build.arg(target_dir).status().unwrap().success(), "the simulator does not build");
        target_dir.join("debug/gpu-sim")
    })
}

fn usable(entry: &GpuEntry) -> Gpu {
    let GpuEntry::Known { gpu, health: Health::Usable } = entry else { panic!("{entry:?}") };
    gpu.clone()
}

fn roots(root: &Path) -> Roots {
    Roots {
        driver: root.to_owned(),
        driver_on_host: PathBuf::from("/run/nvidia/driver"),
        proc: root.join("proc"),
        sys: root.join("sys"),
        processes: ProcessRoots::default(),
    }
}

fn node(gpus: &str) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let machine = Arc::new(NvmlMachine::new(dir.path(), &dir.path().join("proc")));
    let host = Host::new(Arc::<NvmlMachine>::clone(&machine), roots(dir.path()));
    let node = Node { dir, host, machine };
    node.sim(&["init", "--seed=worker", "--driver-version=580.95.05", "--gpus", gpus]);
    node
}

impl Node {
    /// Runs `gpu-sim <command> <dir> <arguments>`.
    fn sim(&self, arguments: &[&str]) {
        let (command, rest) = arguments.split_first().unwrap();
        let output = Command::new(gpu_sim()).arg(command).arg(self.dir.path()).args(rest).output().unwrap();
        assert!(output.status.success(), "gpu-sim {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn gpu(&self, index: usize) -> Gpu {
        usable(&self.host.latest().gpus[index])
    }

    fn roots(&self) -> Roots {
        roots(self.dir.path())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }
}

#[test]
fn a_node_is_discovered() {
    let node = node("h100:2,t4:1");
    assert!(node.host.refresh_if_changed());
    assert!(!node.host.refresh_if_changed());
    insta::assert_json_snapshot!(*node.host.latest());
    let gpu = node.gpu(0);
    assert_eq!(node.host.gpu(&gpu.uuid).unwrap(), gpu);
    assert_eq!(node.host.boot_id().unwrap().len(), 36);
    let unknown = "GPU-00000000-0000-0000-0000-000000000000".parse().unwrap();
    assert!(matches!(node.host.gpu(&unknown), Err(GpuError::NotFound { .. })));
    assert!(matches!(node.machine.gpu(GpuSelector::Index(3)), Err(GpuError::NotFound { .. })));
}

#[test]
fn mig_devices_appear_and_vanish_with_their_nodes() {
    let node = node("h100:2,t4:1");
    node.host.refresh();
    node.sim(&["mig", "--gpu=1", "mode", "on"]);
    assert!(node.host.refresh_if_changed());
    assert!(matches!(node.gpu(1).mig, MigMode::On { ref devices, .. } if devices.is_empty()));
    assert!(matches!(node.gpu(0).mig, MigMode::Off(_)));
    node.sim(&["mig", "--gpu=1", "cgi", "9:4,19:0,20:3", "-C"]);
    assert!(node.host.refresh_if_changed());
    insta::assert_json_snapshot!(node.gpu(1).mig);
    let gpu = node.gpu(1);
    let nodes = node.host.device_nodes(DeviceIds::of_mig(gpu.minor, &gpu.mig_devices()[0].ids())).unwrap();
    let paths: Vec<&str> = nodes.iter().map(|node| node.path.as_str()).collect();
    assert_eq!(paths[0], "/dev/nvidia1");
    assert!(paths[1..].iter().all(|path| path.starts_with("/dev/nvidia-caps/nvidia-cap")), "{paths:?}");
    for found in &nodes {
        let seen = node.path(found.path.trim_start_matches('/'));
        let expect = rustix::fs::makedev(found.major, found.minor);
        assert_eq!(rustix::fs::stat(&seen).unwrap().st_rdev, expect, "{}", found.path);
    }
    node.sim(&["mig", "--gpu=1", "dci"]);
    node.sim(&["mig", "--gpu=1", "dgi"]);
    assert!(node.host.refresh_if_changed());
    assert!(node.gpu(1).mig_devices().is_empty());
    let gone = node.host.device_nodes(DeviceIds::of_mig(gpu.minor, &gpu.mig_devices()[0].ids())).unwrap_err();
    assert!(matches!(gone, NodeError::Capability { .. }), "{gone}");
}

#[test]
fn mig_devices_may_vanish_between_two_queries_about_them() {
    let node = node("h100:1");
    node.sim(&["mig", "mode", "on"]);
    node.host.refresh();
    let uuid = node.gpu(0).uuid;
    let store = dra_sim::store::Store::new(node.dir.path());
    std::thread::scope(|threads| {
        let churn = threads.spawn(|| {
            for _ in 0..40 {
                store.update(make_and_unmake).unwrap();
                let instance = store.update(make).unwrap();
                store.update(|state| unmake(state, instance)).unwrap();
            }
        });
        let mut seen = 0;
        while !churn.is_finished() {
            seen += node.host.gpu(&uuid).unwrap().mig_devices().len();
        }
        churn.join().unwrap();
        assert!(seen > 0, "the reader never met a device");
    });
    assert!(node.host.gpu(&uuid).unwrap().mig_devices().is_empty());
}

fn make(state: &mut dra_sim::State) -> dra_sim::engine::InstanceRef {
    let instance = state.create_gpu_instance(0, 9, None).unwrap();
    state.create_compute_instance(instance, 2, None).unwrap();
    instance
}

fn unmake(state: &mut dra_sim::State, instance: dra_sim::engine::InstanceRef) {
    let device = state.mig_devices(0).unwrap()[0];
    state.destroy_compute_instance(device).unwrap();
    state.destroy_gpu_instance(instance).unwrap();
}

/// Two changes in one, so that the slot is never empty for a reader.
fn make_and_unmake(state: &mut dra_sim::State) {
    let instance = make(state);
    unmake(state, instance);
}

#[test]
fn compute_instances_may_share_a_gpu_instance() {
    let node = node("a100-80:1");
    node.sim(&["mig", "mode", "on"]);
    node.sim(&["reset", "--gpu=0"]);
    node.sim(&["mig", "cgi", "9:0"]);
    dra_sim::store::Store::new(node.dir.path())
        .update(|state| {
            let instance = *state.gpus[0].instances.keys().next().unwrap();
            let target = state.gpu_instance_by_id(0, instance).unwrap();
            state.create_compute_instance(target, 1, None).unwrap();
            state.create_compute_instance(target, 0, None).unwrap();
        })
        .unwrap();
    node.host.refresh();
    let gpu = node.gpu(0);
    let found: Vec<_> = gpu
        .mig_devices()
        .iter()
        .map(|mig| (mig.profile.as_str(), mig.identity.share, mig.identity.placement, mig.engines.multiprocessors))
        .collect();
    let at = Placement { start: 0, size: 4 };
    let share = |start, slices| ComputeShare { start, slices, of: 3 };
    assert_eq!(found, [("2c.3g.40gb", share(0, 2), at, 28), ("1c.3g.40gb", share(2, 1), at, 14)]);
    let [one, two] = gpu.mig_devices() else { panic!("two devices") };
    assert!(!one.identity.overlaps(&two.identity));
    assert_eq!(one.memory, two.memory);
}

#[test]
fn one_broken_gpu_affects_no_other() {
    let node = node("h100:3");
    node.host.refresh();
    let before = node.host.latest();
    node.sim(&["lose", "--gpu=1"]);
    assert!(node.host.refresh_if_changed());
    let lost = node.host.latest().gpus[1].clone();
    let reason = &lost.failure().unwrap().reason;
    assert!(reason.contains("GPU is lost (NVML code 15)"), "{reason}");
    assert_eq!(lost.uuid(), before.gpus[1].uuid());
    assert_eq!(node.host.latest().gpus[0], before.gpus[0]);
    assert_eq!(node.host.latest().gpus[2], before.gpus[2]);
    assert!(!node.host.refresh_if_changed());
    node.sim(&["reset", "--gpu=1"]);
    assert!(node.host.refresh_if_changed());
    assert_eq!(node.host.latest(), before);
}

/// NVML reports its identity without access to the GPU.
#[test]
fn a_gpu_that_begins_to_fail_is_noticed_at_the_next_query() {
    let node = node("t4:1,h100:1");
    node.host.refresh();
    let before = node.host.latest();
    for gpu in [0, 1] {
        node.sim(&["fail", "nvmlDeviceGetMemoryInfo*", "--code=15", &format!("--gpu={gpu}")]);
        assert!(node.host.refresh_if_changed());
        let latest = node.host.latest();
        let reason = &latest.gpus[gpu].failure().unwrap().reason;
        assert!(reason.contains("nvmlDeviceGetMemoryInfo"), "{reason}");
        assert!(!node.host.refresh_if_changed());
        node.sim(&["heal"]);
        assert!(node.host.refresh_if_changed());
        assert_eq!(node.host.latest(), before);
    }
}

#[test]
fn a_gpu_that_fails_half_of_its_queries_keeps_its_identity() {
    let node = node("h100:2");
    node.host.refresh();
    let before = node.host.latest();
    let expect = node.gpu(1);
    for call in ["nvmlDeviceGetName", "nvmlDeviceGetMinorNumber", "nvmlDeviceGetMemoryInfo*"] {
        node.sim(&["fail", call, "--code=999", "--gpu=1"]);
    }
    node.host.refresh();
    let now = node.host.latest();
    let GpuEntry::Known { gpu, health: Health::Unusable(Failure { reason, .. }) } = &now.gpus[1] else {
        panic!("{now:?}")
    };
    assert_eq!(*gpu, expect);
    assert!(reason.contains(&format!("failed on {} at {}: unknown error", expect.uuid, expect.pci)), "{reason}");
    assert_eq!(node.host.latest().gpus[0], before.gpus[0]);
    node.sim(&["heal"]);
    assert!(node.host.refresh_if_changed());
    assert_eq!(node.host.latest(), before);
}

#[test]
fn an_unsupported_query_is_no_fault() {
    let node = node("t4:1");
    for call in ["nvmlDeviceGetMemoryInfo*", "nvmlDeviceGetAddressingMode", "nvmlDeviceGetBrand"] {
        node.sim(&["fail", call, "--code=3"]);
    }
    node.host.refresh();
    let gpu = node.gpu(0);
    assert_eq!((gpu.memory, gpu.addressing_mode, gpu.brand.as_str()), (None, None, "Unknown"));
}

/// Version 2 of the query reports it, version 1 does not. Drivers before R510 have version 1 only.
#[test]
fn reserved_memory_is_reported_from_r510_on() {
    let node = node("t4:1");
    node.host.refresh();
    let memory_mib = |gpu: Gpu| [gpu.memory, gpu.reserved, gpu.shareable_memory()].map(|memory| memory.map(Bytes::mib));
    assert_eq!(memory_mib(node.gpu(0)), [Some(15_360), Some(448), Some(14_848)]);
    node.sim(&["fail", "nvmlDeviceGetMemoryInfo_v2", "--code=13"]);
    node.host.refresh();
    assert_eq!(memory_mib(node.gpu(0)), [Some(15_360), None, Some(14_720)]);
}

/// An unsupported query leaves its value out and the GPU usable, except for three that every container needs.
#[test]
fn only_the_failure_of_a_needed_query_makes_a_gpu_unusable() {
    let node = node("t4:1");
    node.host.refresh();
    let before = node.gpu(0);
    let read = || {
        Host::new(Arc::new(NvmlMachine::new(node.dir.path(), &node.dir.path().join("proc"))), node.roots())
            .refresh()
            .gpus[0]
            .clone()
    };
    for code in [3, 13, 25] {
        for call in ["nvmlDeviceGetName", "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetArchitecture"] {
            node.sim(&["fail", call, &format!("--code={code}")]);
        }
        let gpu = usable(&read());
        assert_eq!((&gpu.product_name, &gpu.compute_capability, gpu.architecture.as_str()), (&None, &None, "Unknown"));
        assert_eq!((gpu.minor, gpu.memory), (before.minor, before.memory));
        node.sim(&["heal"]);
        for call in ["nvmlDeviceGetMinorNumber", "nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo_v3"] {
            node.sim(&["fail", call, &format!("--code={code}")]);
            let Some(Failure { reason, fault: Fault::Unsupported }) = read().failure().cloned() else {
                panic!("{call} is needed")
            };
            assert!(reason.starts_with(call), "{reason}");
            node.sim(&["heal"]);
        }
    }
    for (code, expect) in [(4, Fault::Denied), (15, Fault::Failing), (999, Fault::Failing)] {
        node.sim(&["fail", "nvmlDeviceGetName", &format!("--code={code}")]);
        assert_eq!(read().failure().unwrap().fault, expect, "{code}");
        node.sim(&["heal"]);
    }
}

#[test]
fn a_driver_without_a_cuda_version_is_a_driver() {
    let node = node("t4:1");
    node.sim(&["fail", "nvmlSystemGetCudaDriverVersion_v2", "--code=3"]);
    let inventory = node.host.refresh();
    let version = "580.95.5".parse().unwrap();
    assert_eq!((&inventory.driver, inventory.gpus.len()), (&DriverState::Loaded { version, cuda: None }, 1));
}

/// A node with a GPU that has two MIG devices.
fn mig_node() -> (Node, Vec<MigDevice>) {
    let node = node("h100:1");
    node.sim(&["mig", "mode", "on"]);
    node.sim(&["mig", "cgi", "9:4,19:0", "-C"]);
    node.host.refresh();
    let devices = node.gpu(0).mig_devices().to_vec();
    assert_eq!(devices.len(), 2);
    (node, devices)
}

#[test]
fn existing_mig_devices_are_found_if_their_profiles_are_not_listed() {
    let (node, before) = mig_node();
    for code in [3, 4] {
        for call in ["nvmlDeviceGetGpuInstanceProfileInfo*", "nvmlDeviceGetGpuInstancePossiblePlacements*"] {
            node.sim(&["fail", call, &format!("--code={code}")]);
            // Another machine, because the profiles are read once per loaded library.
            let gpu =
                Host::new(Arc::new(NvmlMachine::new(node.dir.path(), &node.dir.path().join("proc"))), node.roots())
                    .refresh()
                    .gpus[0]
                    .clone();
            let gpu = usable(&gpu);
            assert_eq!((gpu.mig_layout(), gpu.mig_devices()), (None, &before[..]), "{call} {code}");
            node.host.refresh();
            assert_eq!(node.gpu(0).mig_devices(), before, "{call} {code}");
            node.sim(&["heal"]);
        }
    }
}

#[test]
fn mig_devices_without_reported_resources_have_those_of_their_profiles() {
    let (node, before) = mig_node();
    for code in [3, 13] {
        node.sim(&["fail", "nvmlDeviceGetAttributes_v2", &format!("--code={code}")]);
        node.host.refresh();
        assert_eq!(node.gpu(0).mig_devices(), before, "{code}");
        node.sim(&["heal"]);
    }
}

#[test]
fn a_guest_without_right_to_use_mig_has_a_whole_gpu() {
    let node = node("h100:1");
    let placements = "nvmlDeviceGetGpuInstancePossiblePlacements_v2";
    for (faults, expect) in
        [(vec!["--code=3", "--times=1"], Some(8)), (vec!["--code=3"], None), (vec!["--code=4"], None)]
    {
        // Another library, because the profiles are read once per loaded library.
        node.sim(&["remove-driver"]);
        node.host.refresh();
        node.sim(&["restore-driver"]);
        node.sim(&[&["fail", placements][..], &faults].concat());
        node.host.refresh();
        let gpu = node.gpu(0);
        assert_eq!(gpu.mig_layout().map(|layout| layout.memory_slices), expect, "{faults:?}");
        node.sim(&["heal"]);
    }
}

#[test]
fn a_driver_may_be_replaced_by_another_version() {
    let node = node("t4:1");
    let before = node.host.refresh();
    node.sim(&["remove-driver"]);
    assert!(node.host.refresh_if_changed());
    let DriverState::Missing { reason } = &node.host.latest().driver else { panic!("it is gone") };
    assert!(reason.contains("driver not loaded (NVML code 9)"), "{reason}");
    assert!(!node.host.refresh_if_changed());
    node.sim(&["restore-driver"]);
    assert!(node.host.refresh_if_changed());
    assert_eq!(node.host.latest(), before);
    node.sim(&["remove-driver"]);
    node.sim(&["restore-driver", "--driver-version=590.44.01"]);
    assert!(node.host.refresh_if_changed());
    let upgraded = DriverState::Loaded { version: "590.44.1".parse().unwrap(), cuda: Some("13.1".parse().unwrap()) };
    assert_eq!(node.host.latest().driver, upgraded);
    assert_eq!(node.host.latest().gpus, before.gpus);
}

#[test]
fn a_removed_library_is_a_missing_driver() {
    let node = node("t4:1");
    let before = node.host.refresh();
    let (there, elsewhere) = (node.path("usr"), node.path("usr.gone"));
    std::fs::rename(&there, &elsewhere).unwrap();
    assert!(node.host.refresh_if_changed());
    let DriverState::Missing { reason } = &node.host.latest().driver else { panic!("it is gone") };
    let (root, dirs) = (node.dir.path().display(), "usr/lib64, usr/lib64/nvidia/current, usr/lib/");
    let expect = format!("no usable libnvidia-ml.so.1 below {root}: it is in none of {dirs}");
    assert!(reason.starts_with(&expect), "{reason}");
    let error = node.machine.driver().unwrap_err();
    assert!(explain(&error).ends_with("; install the NVIDIA driver there or correct the driver root"), "{error}");
    assert!(matches!(node.host.driver_files(), Err(DriverFilesError::NoLibrary { .. })));
    std::fs::rename(&elsewhere, &there).unwrap();
    assert!(node.host.refresh_if_changed());
    assert_eq!(node.host.latest(), before);
}

#[test]
fn the_library_is_loaded_again_after_a_driver_upgrade() {
    let node = node("t4:1");
    let before = node.machine.driver().unwrap();
    node.sim(&["fail", "nvmlSystemGetDriverVersion", "--code=18", "--times=1"]);
    let mismatch = MachineError::NotAnswering { call: "nvmlSystemGetDriverVersion", code: dra_hardware::NvmlCode(18) };
    assert_eq!(node.machine.driver(), Err(mismatch));
    assert_eq!(node.machine.driver(), Ok(before));
}

#[test]
fn containers_get_the_driver_of_the_tree() {
    let node = node("t4:2");
    node.host.refresh();
    let numbers = |nodes: Vec<dra_model::DeviceNode>| -> Vec<(String, u32, u32)> {
        nodes.into_iter().map(|node| (node.path, node.major, node.minor)).collect()
    };
    let expect = [
        ("/dev/nvidiactl", 240, 255),
        ("/dev/nvidia-uvm", 241, 0),
        ("/dev/nvidia-uvm-tools", 241, 1),
        ("/dev/nvidia-modeset", 240, 254),
    ];
    let control = node.host.control_nodes().unwrap().into_iter().map(|control| control.node).collect();
    assert_eq!(numbers(control), expect.map(|(path, x, y)| (path.to_owned(), x, y)));
    let gpu = node.gpu(1);
    let nodes = node.host.device_nodes(DeviceIds::Gpu { minor: gpu.minor }).unwrap();
    assert_eq!(nodes[0].host_path, Path::new("/run/nvidia/driver/dev/nvidia1"));
    assert_eq!(numbers(nodes), [("/dev/nvidia1".to_owned(), 240, 1)]);
    let dri = [("/dev/dri/card1".to_owned(), 243, 1), ("/dev/dri/renderD129".to_owned(), 243, 129)];
    assert_eq!(numbers(node.host.dri_nodes(gpu.pci).unwrap()), dri);
    std::fs::remove_file(node.path("dev/nvidia1")).unwrap();
    assert!(matches!(node.host.device_nodes(DeviceIds::Gpu { minor: gpu.minor }), Err(NodeError::Missing { .. })));
    std::fs::rename(node.path("dev/nvidia0"), node.path("dev/nvidia1")).unwrap();
    assert!(matches!(
        node.host.device_nodes(DeviceIds::Gpu { minor: gpu.minor }),
        Err(NodeError::WrongMinor { found: 0, .. })
    ));

    assert!(matches!(node.host.driver_files(), Err(DriverFilesError::NoProgram { name: "nvidia-smi", .. })));
    std::fs::write(node.path("usr/bin/nvidia-smi"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(node.path("usr/bin/nvidia-smi"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let files = node.host.driver_files().unwrap();
    assert_eq!(files.version, "580.95.05");
    let names: Vec<&str> = files.libraries.iter().map(|file| file.name.as_str()).collect();
    for name in ["libcuda.so.1", "libcudadebugger.so.1", "libnvidia-ml.so.1", "libnvidia-nvvm.so.4"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let cuda = files.libraries.iter().find(|file| file.name == "libcuda.so.1").unwrap();
    assert_eq!(cuda.host_path.to_str().unwrap(), "/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05");
    assert_eq!(node.host.driver_files().unwrap(), files);
}

#[test]
fn settings_need_the_driver_s_own_nvidia_smi() {
    let node = node("h100:1");
    node.host.refresh();
    let uuid = node.gpu(0).uuid;
    node.host.until(&Deadline::none()).set_compute_mode(&uuid, ComputeMode::ExclusiveProcess).unwrap();
    assert_eq!(node.host.until(&Deadline::none()).compute_mode(&uuid), Ok(Some(ComputeMode::ExclusiveProcess)));
    let missing = node.host.driver_program("nvidia-smi", &[]).unwrap_err();
    assert!(
        matches!(&missing, ProgramError::Missing { searched, .. } if searched.starts_with("usr/bin, ")),
        "{missing}"
    );
    let program = GpuError::Program { gpu: uuid.clone(), setting: Setting::Interval, source: missing };
    assert_eq!(node.host.settings(&uuid), Err(program));
    let smi_path = node.path("usr/bin/nvidia-smi");
    std::fs::write(&smi_path, "").unwrap();
    let found = node.host.driver_program("nvidia-smi", &["libnvidia-ml.so.1"]).unwrap();
    assert_eq!(found.path(), smi_path);
    let library = node.path("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05");
    assert_eq!(found.environment(), [("PATH", node.path("usr/bin").as_os_str()), ("LD_PRELOAD", library.as_os_str())]);
}
