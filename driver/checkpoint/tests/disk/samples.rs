// SPDX-License-Identifier: Apache-2.0
//! Records as this driver writes them, of every kind there is.

use std::collections::BTreeMap;

use dra_checkpoint::{ClaimRecord, ClaimState, RecordedDevice, RecordedHardware, RecordedSharing, Step, Unknown};
use dra_model::{
    Bytes, ClaimRef, ComputeMode, ComputeShare, DeviceKey, GpuSettings, GpuUuid, Interval, MigIdentity, MigIds,
    MpsConfig, Placement, ShareLimits, SharedForm, ThreadPercentage,
};

pub(crate) const UID: &str = "0b5f3a1e-7d52-4c53-9a3c-2f1f5f0f9a01";

pub(crate) fn gpu_device() -> RecordedDevice {
    RecordedDevice {
        request: "train".to_owned(),
        pool: "node-a".to_owned(),
        device: "gpu-11111111".parse().unwrap(),
        admin_access: false,
        share_id: None,
        hardware: RecordedHardware::Gpu { uuid: gpu() },
        sharing: RecordedSharing::Plain,
        cdi_ids: vec![
            "k8s.gpu.nvidia.com/base=550.54.15".to_owned(),
            format!("k8s.gpu.nvidia.com/claim={UID}-gpu-11111111"),
        ],
        unknown: Unknown::new(),
    }
}

pub(crate) fn mig_device() -> RecordedDevice {
    RecordedDevice {
        request: "infer/small".to_owned(),
        device: "gpu-11111111-mig-9-4".parse().unwrap(),
        admin_access: true,
        share_id: Some("7c2d8a0e-0000-4000-8000-000000000001".parse().unwrap()),
        hardware: RecordedHardware::Mig { identity: identity(4), ids: ids(), profile: "3g.40gb".to_owned() },
        ..gpu_device()
    }
}

pub(crate) fn identity(start: u32) -> MigIdentity {
    MigIdentity {
        parent: gpu(),
        profile_id: 9,
        placement: Placement { start, size: 4 },
        share: ComputeShare { start: 0, slices: 3, of: 3 },
    }
}

pub(crate) fn ids() -> MigIds {
    let uuid = "MIG-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee".parse().unwrap();
    MigIds { uuid, gpu_instance: 2, compute_instance: 0 }
}

fn partition(created: Option<MigIds>, state: ClaimState) -> ClaimRecord {
    let hardware = RecordedHardware::Partition { identity: identity(4), profile: "3g.40gb".to_owned(), created };
    let device = RecordedDevice { admin_access: false, share_id: None, hardware, ..mig_device() };
    ClaimRecord { devices: vec![device], ..record(state) }
}

/// Records of partitions, which version 2 cannot describe.
pub(crate) fn partitions() -> BTreeMap<&'static str, ClaimRecord> {
    let create = || Step::Partition { identity: identity(4) };
    let steps = || vec![create(), Step::ClaimSpec];
    let last_error = "a process holds the instance".to_owned();
    BTreeMap::from([
        ("partition-planned", partition(None, ClaimState::Preparing { done: vec![], next: steps() })),
        (
            "partition-created",
            partition(Some(ids()), ClaimState::Preparing { done: vec![create()], next: vec![Step::ClaimSpec] }),
        ),
        ("partition-ready", partition(Some(ids()), ClaimState::Ready { done: steps() })),
        ("partition-undoing", partition(Some(ids()), ClaimState::Undoing { left: vec![create()], last_error })),
    ])
}

pub(crate) fn record(state: ClaimState) -> ClaimRecord {
    ClaimRecord {
        claim: ClaimRef { namespace: "ml".to_owned(), name: "train-0".to_owned(), uid: UID.parse().unwrap() },
        boot_id: "5f8f7c2a-2f0e-4a51-9d0e-8c2f4b5a6d7e".to_owned(),
        base: "550.54.15".to_owned(),
        devices: vec![gpu_device(), mig_device()],
        state,
        unknown: Unknown::new(),
    }
}

pub(crate) fn states() -> [(&'static str, ClaimState); 3] {
    let spec = || vec![Step::ClaimSpec];
    [
        ("preparing", ClaimState::Preparing { done: vec![], next: spec() }),
        ("ready", ClaimState::Ready { done: spec() }),
        ("undoing", ClaimState::Undoing { left: spec(), last_error: "unable to remove a file".to_owned() }),
    ]
}

pub(crate) fn gpu() -> GpuUuid {
    "GPU-11111111-2222-3333-4444-555555555555".parse().unwrap()
}

fn percent(number: u64) -> ThreadPercentage {
    number.try_into().unwrap()
}

fn settings(compute_mode: ComputeMode, interval: Option<Interval>) -> Step {
    let wanted = GpuSettings { compute_mode: Some(compute_mode), interval };
    Step::GpuSettings { gpu: gpu(), wanted }
}

fn daemon(id: &str) -> Step {
    Step::MpsDaemon { id: id.parse().unwrap(), gpus: vec![gpu()] }
}

fn share(form: SharedForm, sharing: RecordedSharing) -> RecordedDevice {
    let name = format!("gpu-11111111{}", form.suffix());
    RecordedDevice {
        share_id: mig_device().share_id,
        hardware: RecordedHardware::Shared { uuid: gpu(), form },
        sharing,
        cdi_ids: vec![format!("k8s.gpu.nvidia.com/claim={UID}-{name}-7c2d8a0e-0000-4000-8000-000000000001")],
        device: name.parse().unwrap(),
        ..gpu_device()
    }
}

fn exclusive() -> ClaimRecord {
    let devices = vec![RecordedDevice { sharing: RecordedSharing::Exclusive, ..gpu_device() }];
    let done = vec![settings(ComputeMode::ExclusiveProcess, None), Step::ClaimSpec];
    ClaimRecord { devices, ..record(ClaimState::Ready { done }) }
}

fn time_slicing_share() -> ClaimRecord {
    let limits = ShareLimits { memory: Some(Bytes::from_mib(8155)), threads: None };
    let sharing = RecordedSharing::TimeSlicing { interval: Interval::Medium, limits };
    let next = vec![settings(ComputeMode::Default, Some(Interval::Medium)), Step::ClaimSpec];
    let state = ClaimState::Preparing { done: vec![], next };
    ClaimRecord { devices: vec![share(SharedForm::TimeSlicing, sharing)], ..record(state) }
}

fn mps_share() -> ClaimRecord {
    let id = "gpu-11111111222233334444555555555555";
    let sharing = RecordedSharing::Mps {
        daemon: id.parse().unwrap(),
        config: MpsConfig::default(),
        limits: ShareLimits { memory: Some(Bytes::from_mib(10240)), threads: Some(percent(30)) },
    };
    let done = vec![settings(ComputeMode::ExclusiveProcess, Some(Interval::Default)), daemon(id), Step::ClaimSpec];
    ClaimRecord { devices: vec![share(SharedForm::Mps, sharing)], ..record(ClaimState::Ready { done }) }
}

fn mps_of_a_claim(device: RecordedDevice) -> Vec<RecordedDevice> {
    let per_device = [("0", 2048), ("GPU-11111111-2222-3333-4444-555555555555", 4096)];
    let config = MpsConfig {
        threads: Some(percent(50)),
        memory: Some(Bytes::from_mib(10240)),
        per_device: per_device.map(|(key, mib)| (key.parse::<DeviceKey>().unwrap(), Bytes::from_mib(mib))).into(),
        multi_user: true,
    };
    let daemon = format!("claim-{UID}-0").parse().unwrap();
    vec![RecordedDevice { sharing: RecordedSharing::Mps { daemon, config, limits: ShareLimits::default() }, ..device }]
}

fn mps_claim() -> ClaimRecord {
    let id = format!("claim-{UID}-0");
    let left = vec![Step::ClaimSpec, daemon(&id), settings(ComputeMode::ExclusiveProcess, None)];
    let state = ClaimState::Undoing { left, last_error: "the MPS host does not answer".to_owned() };
    ClaimRecord { devices: mps_of_a_claim(gpu_device()), ..record(state) }
}

fn mig_mps() -> ClaimRecord {
    let mig = RecordedDevice { admin_access: false, share_id: None, ..mig_device() };
    let done = vec![daemon(&format!("claim-{UID}-0")), Step::ClaimSpec];
    ClaimRecord { devices: mps_of_a_claim(mig), ..record(ClaimState::Ready { done }) }
}

/// Records of shared devices, which version 1 cannot describe.
pub(crate) fn shared() -> BTreeMap<&'static str, ClaimRecord> {
    BTreeMap::from([
        ("exclusive", exclusive()),
        ("mig-mps", mig_mps()),
        ("mps-claim", mps_claim()),
        ("mps-share", mps_share()),
        ("ts-share", time_slicing_share()),
    ])
}
