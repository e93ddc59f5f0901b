// SPDX-License-Identifier: Apache-2.0
//! One node: the machine in memory, the files of its host, and the engine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dra_cdi::{Architecture, HookSettings, Kind, Naming};
use dra_files::faults::FaultyFiles;
use dra_hardware::{Daemons, Host, Machine, ProcessRoots, Roots};
use dra_model::{
    AllocatedDevice, Bytes, Claim, ClaimConfig, ClaimRef, ConfigSource, GpuUuid, MigDevice, ShareLimits, config,
};
use dra_prepare::{ClaimLookup, Engine, PrepareError, PreparedDevice, Settings};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};

use crate::daemons::MemoryDaemons;
use crate::machine::MemoryMachine;

pub(crate) const NODE: &str = "node-a";
pub(crate) const VERSION: &str = "550.54.15";

/// The hook program of the image, if a test puts one into the directory of the node.
pub(crate) const HOOK_PROGRAM: &str = "gpu-cdi-hook";

const GPU_MAJOR: u32 = 240;
const UVM_MAJOR: u32 = 241;
const CAPS_MAJOR: u32 = 242;

pub(crate) struct Node {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) machine: Arc<MemoryMachine>,
    pub(crate) daemons: Arc<MemoryDaemons>,
    pub(crate) files: Arc<FaultyFiles>,
    pub(crate) engine: Engine,
    pub(crate) fetches: AtomicU32,
    pub(crate) lock_timeout: Duration,
    /// How long claims that are missing are left to the kubelet.
    pub(crate) grace: Duration,
    boot: u32,
}

impl Node {
    pub(crate) fn new(gpus: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let machine = Arc::new(MemoryMachine::new(gpus));
        let daemons = Arc::new(MemoryDaemons::default());
        let files = Arc::new(FaultyFiles::default());
        install_driver(dir.path(), VERSION);
        draw(dir.path(), &machine);
        write_boot_id(dir.path(), 0);
        let (lock_timeout, grace) = (Duration::from_secs(20), Duration::ZERO);
        let engine = open(dir.path(), &machine, &daemons, &files, (lock_timeout, grace));
        Self { dir, machine, daemons, files, engine, fetches: AtomicU32::new(0), lock_timeout, grace, boot: 0 }
    }

    /// A new process finds what the last one left, and a disk that works.
    pub(crate) fn restart(&mut self) {
        self.files.heal();
        self.engine = self.other_instance();
    }

    /// A second process on the same node, as during an upgrade.
    pub(crate) fn other_instance(&self) -> Engine {
        open(self.dir.path(), &self.machine, &self.daemons, &self.files, (self.lock_timeout, self.grace))
    }

    /// Nothing in memory, tmpfs or the GPUs survives, and MIG devices that come back have other ids.
    pub(crate) fn reboot(&mut self) {
        self.boot += 1;
        write_boot_id(self.dir.path(), self.boot);
        std::fs::remove_dir_all(self.cdi_dir()).ok();
        for (at, facts) in self.machine.facts().iter().enumerate() {
            let starts: Vec<u32> = mig_devices(facts).iter().map(|mig| mig.identity.placement.start).collect();
            if !starts.is_empty() {
                self.machine.cut(at, &starts, self.boot);
            }
        }
        self.machine.forget_settings();
        self.daemons.exit_all();
        self.redraw();
        self.restart();
    }

    /// Updates the files after a change of the machine.
    pub(crate) fn redraw(&self) {
        draw(self.dir.path(), &self.machine);
    }

    pub(crate) fn prepare(&self, claim: &Claim) -> Result<Vec<PreparedDevice>, PrepareError> {
        self.prepare_beside(claim, &|_| ClaimLookup::Allocated)
    }

    /// The same while the API server says this of claims that are in the way.
    pub(crate) fn prepare_beside(
        &self,
        claim: &Claim,
        look_up: &dyn Fn(&ClaimRef) -> ClaimLookup,
    ) -> Result<Vec<PreparedDevice>, PrepareError> {
        let fetch = || {
            self.fetches.fetch_add(1, Ordering::SeqCst);
            Ok(claim.clone())
        };
        self.engine.prepare(&claim.reference, &fetch, look_up)
    }

    pub(crate) fn cdi_dir(&self) -> PathBuf {
        self.dir.path().join("cdi")
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn claim_spec_path(&self, claim: &Claim) -> PathBuf {
        self.cdi_dir().join(Naming::new("gpu.nvidia.com").file_name(&Kind::Claim(claim.reference.uid.clone())))
    }

    /// The paths of the device nodes in a claim's spec, device by device.
    pub(crate) fn spec_nodes(&self, claim: &Claim) -> Vec<Vec<String>> {
        let spec: Value = serde_json::from_slice(&std::fs::read(self.claim_spec_path(claim)).unwrap()).unwrap();
        let nodes = |device: &Value| {
            let nodes = device["containerEdits"]["deviceNodes"].as_array().unwrap();
            nodes.iter().map(|node| node["path"].as_str().unwrap().to_owned()).collect()
        };
        spec["devices"].as_array().unwrap().iter().map(nodes).collect()
    }

    /// What the spec of a claim changes in containers, device by device.
    pub(crate) fn spec_edits(&self, claim: &Claim) -> Vec<Value> {
        let spec: Value = serde_json::from_slice(&std::fs::read(self.claim_spec_path(claim)).unwrap()).unwrap();
        spec["devices"].as_array().unwrap().iter().map(|device| device["containerEdits"].clone()).collect()
    }

    /// Names in a directory of the engine.
    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        let path = if directory == "cdi" { self.cdi_dir() } else { self.state_dir().join(directory) };
        names_in(&path)
    }

    /// Where the locks are.
    pub(crate) fn locks_dir(&self) -> PathBuf {
        self.dir.path().join("run/locks")
    }

    /// Claims whose work was started and not completed.
    pub(crate) fn claim_locks(&self) -> Vec<String> {
        names_in(&self.locks_dir()).into_iter().filter(|name| name.starts_with("claim-")).collect()
    }
}

pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn reference(name: &str) -> ClaimRef {
    ClaimRef { namespace: "ns".to_owned(), name: name.to_owned(), uid: format!("uid-{name}").parse().unwrap() }
}

/// A claim with devices of this node: pairs of request and device.
pub(crate) fn allocate(name: &str, devices: &[(&str, &str)]) -> Claim {
    let allocated = |(request, device): &(&str, &str)| AllocatedDevice {
        request: (*request).to_owned(),
        pool: NODE.to_owned(),
        device: device.parse().unwrap(),
        admin_access: false,
        share_id: None,
        consumed: ShareLimits::default(),
    };
    let devices = devices.iter().map(allocated).collect();
    Claim { reference: reference(name), devices, configs: Vec::new() }
}

/// A share for a request, as the scheduler counted it.
pub(crate) fn share(request: &str, device: &str, id: &str, mib: u64, percent: Option<u64>) -> AllocatedDevice {
    let threads = percent.map(|percent| percent.try_into().unwrap());
    AllocatedDevice {
        request: request.to_owned(),
        pool: NODE.to_owned(),
        device: device.parse().unwrap(),
        admin_access: false,
        share_id: Some(id.parse().unwrap()),
        consumed: ShareLimits { memory: Some(Bytes::from_mib(mib)), threads },
    }
}

/// A claim with shares.
pub(crate) fn shares(name: &str, devices: Vec<AllocatedDevice>) -> Claim {
    Claim { reference: reference(name), devices, configs: Vec::new() }
}

/// The claim with a `sharing` stanza for some requests, or for all devices of a kind.
pub(crate) fn request_sharing(claim: Claim, requests: &[&str], kind: &str, sharing: &Value) -> Claim {
    let mut configs = claim.configs;
    configs.push(ClaimConfig {
        source: ConfigSource::Claim,
        index: configs.len(),
        requests: requests.iter().map(|request| (*request).to_owned()).collect(),
        parameters: config::parse(
            &json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": kind, "sharing": sharing}),
        ),
    });
    Claim { configs, ..claim }
}

fn open(
    dir: &Path,
    machine: &Arc<MemoryMachine>,
    daemons: &Arc<MemoryDaemons>,
    files: &Arc<FaultyFiles>,
    times: (Duration, Duration),
) -> Engine {
    open_host(dir, Arc::new(host(dir, Arc::<MemoryMachine>::clone(machine))), daemons, files, times)
}

pub(crate) fn host(dir: &Path, machine: Arc<dyn Machine>) -> Host {
    let roots = Roots {
        driver: dir.to_owned(),
        driver_on_host: dir.to_owned(),
        proc: dir.join("proc"),
        sys: dir.join("sys"),
        processes: ProcessRoots { proc: dir.join("host-proc"), pod_logs: dir.join("pod-logs") },
    };
    Host::new(machine, roots)
}

/// An engine with a timeout of locks and a grace period of missing claims.
pub(crate) fn open_host(
    dir: &Path,
    host: Arc<Host>,
    daemons: &Arc<MemoryDaemons>,
    files: &Arc<FaultyFiles>,
    (lock_timeout, missing_grace_period): (Duration, Duration),
) -> Engine {
    let program = dir.join(HOOK_PROGRAM);
    let hook = HookSettings { program: program.clone(), dir: dir.join("hooks"), instance: "uid".to_owned() };
    let settings = Settings {
        node: NODE.parse().unwrap(),
        driver_name: "gpu.nvidia.com".to_owned(),
        state_dir: dir.join("state"),
        run_dir: dir.join("run"),
        cdi_dir: dir.join("cdi"),
        mps_root: "/run/gpu-dra/mps".into(),
        lock_timeout,
        missing_grace_period,
        architecture: Architecture::own(),
        host_dev_dir: Some(dir.join("host-dev")),
        hook: program.exists().then_some(hook),
    };
    let daemons: Arc<dyn Daemons> = Arc::<MemoryDaemons>::clone(daemons);
    Engine::open(host, daemons, Arc::<FaultyFiles>::clone(files), settings).unwrap()
}

/// Replaces the driver's files by those of a version.
pub(crate) fn install_driver(dir: &Path, version: &str) {
    let libraries = dir.join("usr/lib64");
    std::fs::remove_dir_all(&libraries).ok();
    std::fs::create_dir_all(&libraries).unwrap();
    std::fs::create_dir_all(dir.join("usr/bin")).unwrap();
    for (name, soname) in [("libcuda", "libcuda.so.1"), ("libnvidia-ml", "libnvidia-ml.so.1")] {
        let file = format!("{name}.so.{version}");
        std::fs::write(libraries.join(&file), dra_sim::tree::elf::shared_object(soname, &[])).unwrap();
        std::os::unix::fs::symlink(&file, libraries.join(soname)).unwrap();
    }
    let program = dir.join("usr/bin/nvidia-smi");
    std::fs::write(&program, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub(crate) fn write_boot_id(dir: &Path, boot: u32) {
    let random = dir.join("proc/sys/kernel/random");
    std::fs::create_dir_all(&random).unwrap();
    std::fs::write(random.join("boot_id"), format!("{boot:08x}-0000-4000-8000-000000000000\n")).unwrap();
}

fn draw(dir: &Path, machine: &MemoryMachine) {
    draw_kernel(dir);
    let proc = dir.join("proc");
    let capabilities = proc.join("driver/nvidia/capabilities");
    std::fs::remove_dir_all(&capabilities).ok();
    for facts in machine.facts() {
        draw_gpu(dir, facts.minor);
        for mig in mig_devices(&facts) {
            let dir = capabilities.join(format!("gpu{}/mig/gi{}", facts.minor, mig.gpu_instance));
            let minor = facts.minor * 100 + mig.gpu_instance * 9;
            write_access(&dir, minor);
            write_access(&dir.join(format!("ci{}", mig.compute_instance)), minor + 1);
        }
    }
}

/// The majors of the kernel, and the nodes that do not depend on GPUs.
pub(crate) fn draw_kernel(dir: &Path) {
    let (dev, proc) = (dir.join("dev"), dir.join("proc"));
    std::fs::create_dir_all(&dev).unwrap();
    std::fs::create_dir_all(proc.join("driver/nvidia")).unwrap();
    let majors = format!("Character devices:\n{GPU_MAJOR} nvidia\n{UVM_MAJOR} nvidia-uvm\n{CAPS_MAJOR} nvidia-caps\n");
    std::fs::write(proc.join("devices"), majors).unwrap();
    for (name, major, minor) in [("nvidiactl", GPU_MAJOR, 255), ("nvidia-uvm", UVM_MAJOR, 0)] {
        make_node(&dev.join(name), major, minor);
    }
}

/// `/dev/nvidiaN` of a GPU.
pub(crate) fn draw_gpu(dir: &Path, minor: u32) {
    make_node(&dir.join(format!("dev/nvidia{minor}")), GPU_MAJOR, minor);
}

fn mig_devices(facts: &dra_hardware::GpuFacts) -> Vec<MigDevice> {
    match &facts.mig {
        dra_model::MigMode::On { devices, .. } => devices.clone(),
        dra_model::MigMode::Off(_) | dra_model::MigMode::Unsupported => Vec::new(),
    }
}

fn write_access(dir: &Path, minor: u32) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("access"), format!("DeviceFileMinor: {minor}\nDeviceFileMode: 292\n")).unwrap();
}

fn make_node(path: &Path, major: u32, minor: u32) {
    if !path.exists() {
        let device = makedev(major, minor);
        mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device).unwrap();
    }
}

pub(crate) fn hardware_uuid(device: &PreparedDevice) -> GpuUuid {
    device.identity.gpu().clone()
}
