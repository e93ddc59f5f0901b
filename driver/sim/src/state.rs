// SPDX-License-Identifier: Apache-2.0
//! The state of a simulated machine: plain values, the whole of `state.json`.
//!
//! In: a [`Setup`]. Out: a [`State`] that the engine reads and changes. Nothing here touches the outside world.
//! Readers of `state.json` must be of the same build as its writer: the file exists only during a test.

mod load;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::catalog::{Form, Model, Placement};
use crate::{Code, identity};

pub use load::{Fabric, Load, MemoryErrors, NvLinkFaults};

/// The arguments of `gpu-sim init`.
#[derive(Clone, Debug)]
pub struct Setup {
    /// All identities are computed from it; a node name is a good seed.
    pub seed: String,
    /// The boards, in the order of their indices.
    pub gpus: Vec<&'static Model>,
    /// Of the form `580.95.05`.
    pub driver_version: String,
}

/// The state of the simulated machine, shared by all its processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Grows with every change.
    pub generation: u64,
    /// Where `gpu-sim init` drew the tree, for programs that see its pieces mounted elsewhere.
    pub tree_dir: Option<PathBuf>,
    /// See [`Setup::seed`].
    pub seed: String,
    /// How often it has booted, the first time included.
    pub boots: u64,
    /// The content of `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// See [`Setup::driver_version`].
    pub driver_version: String,
    /// Whether `nvmlInit` finds a driver.
    pub driver: Driver,
    /// How the next MIG UUID is made.
    pub mig_uuids: MigUuids,
    /// Number of MIG instances ever created; distinguishes a recreated instance from its predecessor.
    pub incarnations: u64,
    /// Number of changes made through the NVML calls, for assertions in tests.
    pub effects: u64,
    /// In the order of their indices, lost ones included.
    pub gpus: Vec<Gpu>,
    /// The first that matches a call, and lets no more calls pass, counts.
    pub faults: Vec<Fault>,
    /// The longest that matches a call counts.
    pub delays: Vec<Delay>,
    /// Sequence number of the next event.
    pub next_event: u64,
    /// The last [`MAX_EVENTS`] events, oldest first.
    pub events: Vec<Event>,
}

/// A slow reader may lag behind by this number of events.
pub const MAX_EVENTS: usize = 256;

/// Whether the kernel driver is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// NVML works.
    Loaded,
    /// `NVML_ERROR_DRIVER_NOT_LOADED`.
    Unloaded,
}

/// How MIG UUIDs are created. Real ones are probably a hash of hardware properties, which is not documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MigUuids {
    /// The same instance at the same placement has the same UUID again.
    Stable,
    /// Every instance has a new UUID.
    Fresh,
}

/// One board in the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Id in the catalog, for example `h100`.
    pub model: String,
    /// With the leading `GPU-`.
    pub uuid: String,
    /// Serial number of the board.
    pub serial: String,
    /// N of `/dev/nvidiaN`.
    pub minor: u32,
    pub pci: PciSlot,
    /// As sysfs has it: -1 for none.
    pub numa_node: i32,
    /// `nvmlDeviceGetModuleId`: from 1 on SXM boards, 1 on each other one.
    pub module_id: u32,
    /// Whether GPU instance ids count from the upper half of the memory slices; both orders are seen on real boards.
    pub halves_swapped: bool,
    /// Absent on boards without MIG.
    pub mig: Option<MigMode>,
    /// `nvmlDeviceGetComputeMode`.
    pub compute_mode: ComputeMode,
    /// `nvmlDeviceGetPersistenceMode`.
    pub persistence: bool,
    /// 0 default, 1 short, 2 medium, 3 long.
    pub time_slice: u32,
    /// Fallen off the bus: `NVML_ERROR_GPU_IS_LOST`.
    pub lost: bool,
    /// Programs that hold the GPU without a compute context, such as monitors; a mode cannot become active while there are any.
    pub clients: u32,
    /// Processes with a compute context. They hold the GPU, and their GPU instance.
    pub processes: Vec<Process>,
    /// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`.
    pub recovery_action: u32,
    pub load: Load,
    pub memory_errors: MemoryErrors,
    /// Of a board that has one.
    pub fabric: Fabric,
    pub nvlink_faults: NvLinkFaults,
    /// GPU instances by their ids.
    pub instances: BTreeMap<u32, GpuInstance>,
}

/// A process with a compute context, `nvmlProcessInfo_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Absent on a GPU without MIG mode.
    pub gpu_instance: Option<u32>,
    /// Absent where the driver does not know it.
    pub memory_mib: Option<u64>,
}

/// The PCI position of a board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciSlot {
    pub domain: u32,
    pub bus: u32,
    /// PCI device; the function is always 0.
    pub device: u32,
    /// First component below `/sys/devices`, for example `pci0000:10`.
    pub root: String,
    /// Address of the bridge between root and board.
    pub bridge: String,
}

impl PciSlot {
    /// The address as sysfs and procfs write it: `0000:1b:00.0`.
    pub fn address(&self) -> String {
        format!("{:04x}:{:02x}:{:02x}.0", self.domain, self.bus, self.device)
    }

    /// The address as NVML writes it: `00000000:1B:00.0`.
    pub fn nvml_address(&self) -> String {
        format!("{:08X}:{:02X}:{:02X}.0", self.domain, self.bus, self.device)
    }
}

/// MIG mode, `nvmlDeviceGetMigMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigMode {
    /// Whether the GPU is in MIG mode.
    pub current: bool,
    /// Whether it will be after its next reset.
    pub pending: bool,
}

/// `nvmlComputeMode_t` without the value that drivers no longer support (1, exclusive thread).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComputeMode {
    /// Any number of processes.
    Default,
    /// No process.
    Prohibited,
    /// One process at a time.
    ExclusiveProcess,
}

impl ComputeMode {
    /// The NVML number.
    pub const fn number(self) -> u32 {
        match self {
            Self::Default => 0,
            Self::Prohibited => 2,
            Self::ExclusiveProcess => 3,
        }
    }

    /// The mode with this NVML number.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Default),
            2 => Some(Self::Prohibited),
            3 => Some(Self::ExclusiveProcess),
            _ => None,
        }
    }
}

/// A GPU instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuInstance {
    /// `nvmlGpuInstanceProfileInfo_t::id`.
    pub profile_id: u32,
    /// In memory slices of the GPU.
    pub placement: Placement,
    /// Which creation it came from.
    pub incarnation: u64,
    /// Compute instances by their ids.
    pub compute: BTreeMap<u32, ComputeInstance>,
}

/// A compute instance: with its GPU instance it is a MIG device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComputeInstance {
    /// `nvmlComputeInstanceProfileInfo_t::id`.
    pub profile_id: u32,
    /// In compute slices of the GPU instance.
    pub placement: Placement,
    /// Which creation it came from.
    pub incarnation: u64,
    /// With the leading `MIG-`.
    pub uuid: String,
}

/// A rule that makes calls fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// NVML function name, or `prefix*`.
    pub call: String,
    /// Only calls about this GPU; without it, the call as such.
    pub gpu: Option<usize>,
    /// Matching calls that still pass.
    pub skip: u64,
    /// Matching calls that still fail; without it, all.
    pub times: Option<u64>,
    /// What a failing call returns. With [`Code::SUCCESS`] a call that sets something forgets it.
    pub code: Code,
}

/// A rule that makes calls slow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delay {
    /// NVML function name, or `prefix*`.
    pub call: String,
    /// Only calls about this GPU; without it, the call as such.
    pub gpu: Option<usize>,
    /// How much longer a matching call takes, in milliseconds.
    pub millis: u64,
}

/// Something that `nvmlEventSetWait_v2` reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows with every event.
    pub sequence: u64,
    pub gpu: usize,
    /// One bit of `nvmlEventType*`.
    pub kind: u64,
    /// The XID for XID events.
    pub data: u64,
    /// Id of the GPU instance it is about, if any.
    pub gpu_instance: Option<u32>,
    /// Id of the compute instance it is about, if any.
    pub compute_instance: Option<u32>,
}

/// `nvmlEventTypeXidCriticalError`.
pub const EVENT_XID: u64 = 0x8;
/// `nvmlEventMigConfigChange`.
pub const EVENT_MIG_CONFIG: u64 = 0x100;

impl State {
    /// A machine that has just booted.
    pub fn new(setup: &Setup) -> Self {
        let count = setup.gpus.len();
        Self {
            generation: 1,
            tree_dir: None,
            seed: setup.seed.clone(),
            boots: 1,
            boot_id: boot_id(&setup.seed, 1),
            driver_version: setup.driver_version.clone(),
            driver: Driver::Loaded,
            mig_uuids: MigUuids::Stable,
            incarnations: 0,
            effects: 0,
            gpus: setup.gpus.iter().enumerate().map(|(index, model)| Gpu::new(setup, model, index, count)).collect(),
            faults: Vec::new(),
            delays: Vec::new(),
            next_event: 1,
            events: Vec::new(),
        }
    }

    /// CUDA version of the driver as NVML reports it, 13000 for 13.0. Source: CUDA release notes, driver table.
    pub fn cuda_version(&self) -> i32 {
        match self.driver_branch() {
            0..=534 => 12_010,
            535..=544 => 12_020,
            545..=549 => 12_030,
            550..=554 => 12_040,
            555..=559 => 12_050,
            560..=564 => 12_060,
            565..=569 => 12_070,
            570..=574 => 12_080,
            575..=579 => 12_090,
            580..=589 => 13_000,
            590..=594 => 13_010,
            _ => 13_020,
        }
    }

    /// The number before the first point of the driver version.
    pub fn driver_branch(&self) -> u32 {
        self.driver_version.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

impl Gpu {
    /// Whether anything holds the GPU.
    pub fn is_in_use(&self) -> bool {
        self.clients > 0 || !self.processes.is_empty()
    }

    /// Whether a process holds a GPU instance.
    pub fn is_instance_in_use(&self, gpu_instance: u32) -> bool {
        self.processes.iter().any(|process| process.gpu_instance == Some(gpu_instance))
    }

    fn new(setup: &Setup, model: &Model, index: usize, count: usize) -> Self {
        let text = index.to_string();
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        Self {
            model: model.id.clone(),
            uuid: format!("GPU-{}", identity::uuid(&[&setup.seed, "gpu", &text])),
            serial: identity::serial(&[&setup.seed, "serial", &text]),
            minor: number,
            pci: slot(number),
            numa_node: i32::from(index >= count.div_ceil(2)),
            module_id: if model.form == Form::Sxm { number + 1 } else { 1 },
            halves_swapped: index % 2 == 1,
            mig: model.mig.as_ref().map(|_| MigMode::default()),
            compute_mode: ComputeMode::Default,
            persistence: model.persists_after_boot(),
            time_slice: 0,
            lost: false,
            clients: 0,
            processes: Vec::new(),
            recovery_action: 0,
            load: Load::default(),
            memory_errors: MemoryErrors::default(),
            fabric: Fabric::default(),
            nvlink_faults: NvLinkFaults::default(),
            instances: BTreeMap::new(),
        }
    }
}

/// A boot id as `/proc/sys/kernel/random/boot_id` shows it.
pub(crate) fn boot_id(seed: &str, boots: u64) -> String {
    identity::uuid(&[seed, "boot", &boots.to_string()])
}

/// Two boards below each PCIe root, seven roots to a domain, addresses as servers with eight boards have them.
fn slot(index: u32) -> PciSlot {
    let (root, side) = (index / 2, index % 2);
    let (domain, root_bus) = (root / 7, 0x10 + (root % 7) * 0x20);
    PciSlot {
        domain,
        bus: root_bus + 0x0b + side * 0x0c,
        device: 0,
        root: format!("pci{domain:04x}:{root_bus:02x}"),
        bridge: format!("{domain:04x}:{root_bus:02x}:{:02x}.0", 1 + side * 2),
    }
}
