// SPDX-License-Identifier: Apache-2.0
//! A node whose GPUs are those of the simulator, which can be divided. A process that is killed stops at files and GPUs alike.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dra_files::faults::{Fault, FaultyFiles};
use dra_hardware::{
    DriverVersions, GpuError, GpuFacts, GpuProcess, GpuSelector, GpuShape, HealthMachine, Host, Machine, MachineError,
    MigMachine, MigState, NvmlCode,
};
use dra_model::{Claim, ComputeMode, GpuUuid, Interval, MigIdentity, MigIds};
use dra_prepare::{ClaimLookup, Engine, PrepareError, PreparedDevice, Reconciliation};
use dra_sim::{Setup, Simulator, catalog};
use parking_lot::Mutex;

use crate::daemons::MemoryDaemons;
use crate::node::{draw_gpu, draw_kernel, host, install_driver, names_in, open_host, write_boot_id};

type Hook = Arc<dyn Fn(&Simulator) + Send + Sync>;

/// The simulator as a process sees it that may be killed.
pub(crate) struct MortalMachine {
    pub(crate) sim: Simulator,
    files: Arc<FaultyFiles>,
    /// What happens just before a GPU instance is created.
    before_create: Mutex<Option<Hook>>,
}

impl std::fmt::Debug for MortalMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MortalMachine").finish_non_exhaustive()
    }
}

impl MortalMachine {
    /// A killed process asks nothing, and one that is killed here writes nothing.
    fn ask<T>(&self, gpu: &GpuUuid, ask: impl FnOnce(&Simulator) -> Result<T, GpuError>) -> Result<T, GpuError> {
        let dead = || {
            let (call, code) = ("the process was killed", NvmlCode(999));
            GpuError::Failed { call, which: gpu.to_string(), code, uuid: None, pci: None }
        };
        if self.files.is_crashed() {
            return Err(dead());
        }
        let answer = ask(&self.sim);
        if self.sim.is_cut() {
            self.files.fail_after(0, Fault::Crash);
            return Err(dead());
        }
        answer
    }
}

impl Machine for MortalMachine {
    fn driver(&self) -> Result<DriverVersions, MachineError> {
        self.sim.driver()
    }

    fn gpu_count(&self) -> Result<u32, MachineError> {
        self.sim.gpu_count()
    }

    fn gpu(&self, which: GpuSelector<'_>) -> Result<GpuFacts, GpuError> {
        self.sim.gpu(which)
    }

    fn shape(&self, index: u32) -> Result<GpuShape, MachineError> {
        self.sim.shape(index)
    }

    fn compute_mode(&self, gpu: &GpuUuid) -> Result<Option<ComputeMode>, GpuError> {
        self.sim.compute_mode(gpu)
    }

    fn set_compute_mode(&self, gpu: &GpuUuid, mode: ComputeMode) -> Result<(), GpuError> {
        self.ask(gpu, |sim| sim.set_compute_mode(gpu, mode))
    }

    fn interval(&self, gpu: &GpuUuid) -> Result<Option<Interval>, GpuError> {
        self.sim.interval(gpu)
    }

    fn set_interval(&self, gpu: &GpuUuid, interval: Interval) -> Result<(), GpuError> {
        self.ask(gpu, |sim| sim.set_interval(gpu, interval))
    }
}

impl HealthMachine for MortalMachine {}

impl MigMachine for MortalMachine {
    fn mig_state(&self, gpu: &GpuUuid) -> Result<MigState, GpuError> {
        self.sim.mig_state(gpu)
    }

    fn set_mig_mode(&self, gpu: &GpuUuid, on: bool) -> Result<(), GpuError> {
        self.ask(gpu, |sim| sim.set_mig_mode(gpu, on))
    }

    fn create_gpu_instance(&self, mig: &MigIdentity) -> Result<(), GpuError> {
        let hook = self.before_create.lock().clone();
        if let Some(hook) = hook {
            hook(&self.sim);
        }
        self.ask(&mig.parent, |sim| sim.create_gpu_instance(mig))
    }

    fn create_compute_instance(&self, mig: &MigIdentity) -> Result<MigIds, GpuError> {
        self.ask(&mig.parent, |sim| sim.create_compute_instance(mig))
    }

    fn destroy_compute_instances(&self, mig: &MigIdentity) -> Result<(), GpuError> {
        self.ask(&mig.parent, |sim| sim.destroy_compute_instances(mig))
    }

    fn destroy_gpu_instance(&self, mig: &MigIdentity) -> Result<(), GpuError> {
        self.ask(&mig.parent, |sim| sim.destroy_gpu_instance(mig))
    }

    fn processes(&self, gpu: &GpuUuid) -> Result<Vec<GpuProcess>, GpuError> {
        self.sim.processes(gpu)
    }
}

pub(crate) struct MigNode {
    dir: tempfile::TempDir,
    machine: Arc<MortalMachine>,
    pub(crate) sim: Simulator,
    pub(crate) daemons: Arc<MemoryDaemons>,
    pub(crate) files: Arc<FaultyFiles>,
    pub(crate) host: Arc<Host>,
    pub(crate) engine: Engine,
    boot: u32,
}

impl MigNode {
    /// GPUs of these models.
    pub(crate) fn new(models: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let gpus = models.iter().map(|model| catalog::model(model).unwrap()).collect();
        let version = "550.54.15".to_owned();
        let sim = Simulator::new(&Setup { seed: "mig".to_owned(), gpus, driver_version: version.clone() });
        let files = Arc::new(FaultyFiles::default());
        let before_create = Mutex::default();
        let machine = Arc::new(MortalMachine { sim: sim.clone(), files: Arc::clone(&files), before_create });
        install_driver(dir.path(), &version);
        draw_kernel(dir.path());
        (0..).take(models.len()).for_each(|minor| draw_gpu(dir.path(), minor));
        write_capabilities(&dir, models.len());
        write_boot_id(dir.path(), 0);
        let daemons = Arc::new(MemoryDaemons::default());
        let (host, engine) = opened(&dir, &machine, &daemons, &files);
        Self { dir, machine, sim, daemons, files, host, engine, boot: 0 }
    }

    /// A new process finds what the last one left.
    pub(crate) fn restart(&mut self) {
        self.files.heal();
        self.sim.restart();
        (self.host, self.engine) = opened(&self.dir, &self.machine, &self.daemons, &self.files);
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.sim.is_cut() || self.files.is_crashed()
    }

    pub(crate) fn reboot(&mut self) {
        self.boot += 1;
        write_boot_id(self.dir.path(), self.boot);
        std::fs::remove_dir_all(self.dir.path().join("cdi")).ok();
        self.sim.poke(dra_sim::State::reboot);
        self.daemons.exit_all();
        self.restart();
    }

    pub(crate) fn before_create(&self, hook: impl Fn(&Simulator) + Send + Sync + 'static) {
        *self.machine.before_create.lock() = Some(Arc::new(hook));
    }

    pub(crate) fn prepare(&self, claim: &Claim) -> Result<Vec<PreparedDevice>, PrepareError> {
        self.engine.prepare(&claim.reference, &|| Ok(claim.clone()), &|_| ClaimLookup::Allocated)
    }

    pub(crate) fn reconcile(&self, lookup: ClaimLookup) -> Reconciliation {
        self.engine.reconcile(&move |_| lookup)
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn spec(&self, claim: &Claim) -> String {
        let name =
            names_in(&self.dir.path().join("cdi")).into_iter().find(|name| name.contains(claim.reference.uid.as_str()));
        std::fs::read_to_string(self.dir.path().join("cdi").join(name.unwrap())).unwrap()
    }

    /// A process of the node, of a pod `namespace_name` if it has one, which has these files of the node open.
    pub(crate) fn start_process(&self, id: u32, command: &str, pod: Option<&str>, open: &[&str]) {
        let dir = self.dir.path().join("host-proc").join(id.to_string());
        std::fs::create_dir_all(dir.join("fd")).unwrap();
        std::fs::write(dir.join("comm"), format!("{command}\n")).unwrap();
        if let Some(pod) = pod {
            let uid = format!("00000000-0000-4000-8000-{id:012}");
            std::fs::write(dir.join("cgroup"), format!("0::/kubepods/pod{uid}/1")).unwrap();
            std::fs::create_dir_all(self.dir.path().join("pod-logs").join(format!("{pod}_{uid}"))).unwrap();
        }
        for (number, path) in open.iter().enumerate() {
            let path = self.dir.path().join(path);
            std::os::unix::fs::symlink(path, dir.join("fd").join(number.to_string())).unwrap();
        }
    }

    /// The prefix of the devices of a GPU.
    pub(crate) fn gpu(&self, index: usize) -> String {
        let uuid = self.sim.peek(|state| state.gpus[index].uuid.clone());
        uuid.replace("GPU-", "gpu-")[..12].to_owned()
    }

    /// Profile id and start of the GPU instances of a GPU, each with the number of its compute instances.
    pub(crate) fn instances(&self, gpu: usize) -> Vec<(u32, u32, usize)> {
        self.sim.peek(|state| {
            let all = state.gpus[gpu].instances.values();
            let mut all: Vec<_> = all.map(|one| (one.profile_id, one.placement.start, one.compute.len())).collect();
            all.sort_unstable();
            all
        })
    }

    pub(crate) fn is_mig_on(&self, gpu: usize) -> bool {
        self.sim.peek(|state| state.gpus[gpu].mig.unwrap().current)
    }

    /// Names of records, ledgers and claim specs.
    pub(crate) fn left(&self) -> Vec<String> {
        let state = ["claims", "gpus"].into_iter().flat_map(|dir| names_in(&self.state_dir().join(dir)));
        let specs = names_in(&self.dir.path().join("cdi")).into_iter().filter(|name| name.contains("claim_"));
        state.chain(specs).collect()
    }

    /// Names of records.
    pub(crate) fn names_of_claims(&self) -> Vec<String> {
        names_in(&self.state_dir().join("claims"))
    }

    /// Every GPU as an idle one without MIG mode, and nothing on disk.
    #[track_caller]
    pub(crate) fn assert_untouched(&self) {
        let gpus = self.sim.peek(|state| state.gpus.len());
        let instances: Vec<_> = (0..gpus).map(|gpu| (self.is_mig_on(gpu), self.instances(gpu))).collect();
        assert_eq!(instances, vec![(false, Vec::new()); gpus]);
        assert_eq!(self.left(), Vec::<String>::new());
    }
}

fn opened(
    dir: &tempfile::TempDir,
    machine: &Arc<MortalMachine>,
    daemons: &Arc<MemoryDaemons>,
    files: &Arc<FaultyFiles>,
) -> (Arc<Host>, Engine) {
    let host = Arc::new(host(dir.path(), Arc::<MortalMachine>::clone(machine)));
    let times = (Duration::from_secs(20), Duration::ZERO);
    let engine = open_host(dir.path(), Arc::clone(&host), daemons, files, times);
    (host, engine)
}

/// The table of the NVIDIA module, which names every possible instance.
fn write_capabilities(dir: &tempfile::TempDir, gpus: usize) {
    let mut text = String::new();
    for (gpu, instance) in (0..gpus).flat_map(|gpu| (0..15).map(move |instance| (gpu, instance))) {
        let minor = 3 + gpu * 135 + instance * 9;
        writeln!(text, "gpu{gpu}/gi{instance}/access {minor}").unwrap();
        writeln!(text, "gpu{gpu}/gi{instance}/ci0/access {}", minor + 1).unwrap();
    }
    std::fs::create_dir_all(dir.path().join("proc/driver/nvidia-caps")).unwrap();
    std::fs::write(dir.path().join("proc/driver/nvidia-caps/mig-minors"), text).unwrap();
}
