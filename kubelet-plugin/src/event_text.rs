// SPDX-License-Identifier: Apache-2.0
//! The reasons and notes of the Events of this process. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use dra_model::{Cause, DeviceName, Disposition, Effect, GpuUuid, Inventory, LiveIdentity, NodeName, explain};
use dra_prepare::{Drift, MigChangeKind, PreparedDevice, Refusal};
use dra_resource::status::{DaemonHealth, DaemonStatus};
use kube::runtime::events::EventType;

use crate::health::permit::HeldBack;
use crate::sharing_status;

/// The longest note of an Event (`NoteLengthLimit` of events.k8s.io).
pub const MAX_NOTE_BYTES: usize = 1024;

#[derive(Debug, Clone, PartialEq)]
pub enum EventText {
    /// The devices are a list with products and UUIDs.
    DevicesPrepared {
        devices: String,
        node: NodeName,
    },
    /// Configurations that select other devices too and that a share cannot have.
    ConfigIgnored {
        refusals: String,
    },
    /// Requests of one claim.
    DaemonsOfRequests {
        requests: String,
    },
    /// Claims of one pod.
    DaemonsOfClaims {
        claims: String,
    },
    /// Requests of one claim.
    SharesOfRequests {
        count: usize,
        device: DeviceName,
        requests: String,
    },
    /// Claims of one pod.
    SharesOfClaims {
        claims: String,
    },
    Failed {
        disposition: Disposition,
        error: String,
    },
    /// On the Node: the claim that holds the device is of another namespace, so an Event on the failed claim does not name it.
    Blocked {
        disposition: Disposition,
        error: String,
        holder: String,
    },
    Daemon(DaemonStatus),
    /// A partition was created or destroyed.
    MigDevice {
        device: DeviceName,
        change: MigChangeKind,
        took: Duration,
    },
    /// On the Node: claims had these MIG devices, and their records are lost.
    RecordsLost {
        devices: String,
    },
    /// On the Node: a GPU failed.
    GpuFault {
        gpu: GpuUuid,
        cause: Cause,
        message: String,
        effect: Effect,
    },
    /// On the Node: a fault is over.
    GpuRecovered {
        gpu: GpuUuid,
        message: String,
    },
    /// On the Node: what was known about the health of GPUs is lost.
    HealthLost {
        error: String,
    },
    /// On the Node: an administrator declared a GPU well.
    GpuCleared {
        gpu: GpuUuid,
    },
    /// On the Node: a budget of evictions is used up.
    EvictionHeldBack {
        gpu: GpuUuid,
        reason: HeldBack,
    },
    /// On the Node.
    StaticMigCreated {
        devices: String,
    },
    /// On the Node.
    StaticMigFailed {
        error: String,
    },
    /// On the Node.
    HookUnavailable {
        error: String,
    },
    SettingsChanged {
        setting: String,
        gpu: GpuUuid,
        found: String,
        wanted: String,
    },
}

impl EventText {
    pub fn reason(&self) -> &'static str {
        match self {
            Self::DevicesPrepared { .. } => "DevicesPrepared",
            Self::ConfigIgnored { .. } => "ConfigIgnored",
            Self::DaemonsOfRequests { .. } | Self::DaemonsOfClaims { .. } => "MultipleMPSDaemons",
            Self::SharesOfRequests { .. } | Self::SharesOfClaims { .. } => "MultipleMPSShares",
            Self::Failed { disposition: Disposition::Permanent, .. }
            | Self::Blocked { disposition: Disposition::Permanent, .. } => "PrepareRefused",
            Self::Failed { disposition: Disposition::Busy, .. }
            | Self::Blocked { disposition: Disposition::Busy, .. } => "DeviceBusy",
            Self::Failed { disposition: Disposition::Transient, .. }
            | Self::Blocked { disposition: Disposition::Transient, .. } => "PrepareFailed",
            Self::Daemon(daemon) => daemon.health.event_reason(),
            Self::MigDevice { change: MigChangeKind::Created(_), .. } => "MigCreated",
            Self::MigDevice { change: MigChangeKind::Destroyed, .. } => "MigDestroyed",
            Self::RecordsLost { .. } => "MigRecordsLost",
            Self::GpuFault { cause, .. } => match cause {
                Cause::Recovery | Cause::Xid => "GpuNeedsRecovery",
                Cause::GpuLost => "GpuLost",
                Cause::Unmonitored => "GpuUnmonitored",
                Cause::Memory => "GpuMemoryFailed",
                Cause::ResetAdvised => "GpuResetAdvised",
                Cause::Fabric => "GpuFabricNotReady",
                Cause::Throttled => "GpuThrottled",
                Cause::Unstable => "GpuUnstable",
            },
            Self::GpuRecovered { .. } => "GpuRecovered",
            Self::HealthLost { .. } => "GpuHealthLost",
            Self::GpuCleared { .. } => "GpuCleared",
            Self::EvictionHeldBack { .. } => "EvictionHeldBack",
            Self::StaticMigCreated { .. } => "StaticMigCreated",
            Self::StaticMigFailed { .. } => "StaticMigFailed",
            Self::HookUnavailable { .. } => "CDIHookUnavailable",
            Self::SettingsChanged { .. } => "GPUSettingsChanged",
        }
    }

    /// The complete text, which may be longer than [`MAX_NOTE_BYTES`].
    pub fn note(&self) -> String {
        match self {
            Self::DevicesPrepared { devices, node } => format!("Prepared {devices} on node {node}"),
            Self::ConfigIgnored { refusals } => format!("Not applied to shares: {refusals}"),
            Self::DaemonsOfRequests { requests } => format!(
                "Requests {requests} use different MPS daemons and a process can use one only: give each container one of them in resources.claims[].request"
            ),
            Self::DaemonsOfClaims { claims } => format!(
                "Claims {claims} of one pod use different MPS daemons and a process can use one only: give each container one of them in resources.claims"
            ),
            Self::SharesOfRequests { count, device, requests } => format!(
                "{count} shares of {device} were allocated (requests: {requests}), but a container with several shares is limited as with one: request one share with more memory and activeThreadPercentage, or give each container one of the requests in resources.claims[].request"
            ),
            Self::SharesOfClaims { claims } => format!(
                "Claims {claims} of one pod are MPS shares of one GPU, but a container with several shares is limited as with one: request one share with more memory and activeThreadPercentage, or give each container one of them in resources.claims"
            ),
            Self::Failed { error, .. } => format!("Claim {}", error.strip_prefix("claim ").unwrap_or(error)),
            Self::Blocked { error, holder, .. } => format!("Claim {holder} blocks another claim: {error}"),
            Self::Daemon(daemon) => daemon.message(),
            Self::MigDevice { device, change: MigChangeKind::Created(ids), took } => format!(
                "Created MIG device {device} ({}, GPU instance {}, compute instance {}) in {} ms",
                ids.uuid,
                ids.gpu_instance,
                ids.compute_instance,
                took.as_millis()
            ),
            Self::MigDevice { device, change: MigChangeKind::Destroyed, took } => {
                format!("Destroyed MIG device {device} in {} ms", took.as_millis())
            }
            Self::RecordsLost { devices } => format!(
                "The records of the claims that had MIG devices {devices} are lost. This driver no longer destroys these devices and publishes them as an administrator's: destroy those that it created with nvidia-smi mig -dci and nvidia-smi mig -dgi after their pods ended"
            ),
            Self::GpuFault { gpu, message, effect, .. } => format!("{gpu}: {message}. {}", consequence(*effect)),
            Self::GpuRecovered { gpu, message } => {
                format!("{gpu} is well again, it was reported before that {message}")
            }
            Self::HealthLost { error } => format!(
                "Faults of GPUs that were known before are forgotten: {error}. Check the GPUs of this node with nvidia-smi"
            ),
            Self::GpuCleared { gpu } => format!("An administrator cleared {gpu}. What it reports from now on counts"),
            Self::EvictionHeldBack { gpu, reason } => format!("Pods on {gpu} are not evicted: {reason}"),
            Self::StaticMigCreated { devices } => {
                format!("Created static MIG devices {devices}. They stay until an administrator destroys them")
            }
            Self::StaticMigFailed { error } => format!("Static MIG devices are missing: {error}"),
            Self::HookUnavailable { error } => format!(
                "Containers find the libraries of the NVIDIA driver in the directories of the loader, but not in its cache: {error}"
            ),
            // The kubelet prepares a claim for the first of its pods and not for pods that are added while it is prepared.
            Self::SettingsChanged { setting, gpu, found, wanted } => format!(
                "{setting} of {gpu} was changed to {found} outside this driver, the claim needs {wanted}. Set it back with nvidia-smi; else it is reset at the next prepare on this GPU, of another claim or of this one after all its pods terminated"
            ),
        }
    }

    pub fn event_type(&self) -> EventType {
        match self {
            Self::DevicesPrepared { .. }
            | Self::ConfigIgnored { .. }
            | Self::MigDevice { .. }
            | Self::StaticMigCreated { .. }
            | Self::GpuRecovered { .. }
            | Self::GpuCleared { .. } => EventType::Normal,
            Self::Daemon(daemon) if daemon.health == DaemonHealth::Ready => EventType::Normal,
            Self::DaemonsOfRequests { .. }
            | Self::DaemonsOfClaims { .. }
            | Self::SharesOfRequests { .. }
            | Self::SharesOfClaims { .. }
            | Self::Failed { .. }
            | Self::Blocked { .. }
            | Self::Daemon(_)
            | Self::RecordsLost { .. }
            | Self::StaticMigFailed { .. }
            | Self::HookUnavailable { .. }
            | Self::GpuFault { .. }
            | Self::EvictionHeldBack { .. }
            | Self::HealthLost { .. }
            | Self::SettingsChanged { .. } => EventType::Warning,
        }
    }

    pub const fn action(&self) -> &'static str {
        match self {
            Self::DevicesPrepared { .. }
            | Self::ConfigIgnored { .. }
            | Self::DaemonsOfRequests { .. }
            | Self::DaemonsOfClaims { .. }
            | Self::SharesOfRequests { .. }
            | Self::SharesOfClaims { .. }
            | Self::Failed { .. }
            | Self::Blocked { .. }
            | Self::MigDevice { change: MigChangeKind::Created(_), .. } => "Prepare",
            Self::MigDevice { change: MigChangeKind::Destroyed, .. } => "Unprepare",
            Self::StaticMigCreated { .. } | Self::StaticMigFailed { .. } => "Divide",
            Self::Daemon(_)
            | Self::RecordsLost { .. }
            | Self::SettingsChanged { .. }
            | Self::GpuFault { .. }
            | Self::GpuRecovered { .. }
            | Self::GpuCleared { .. }
            | Self::EvictionHeldBack { .. }
            | Self::HookUnavailable { .. }
            | Self::HealthLost { .. } => "Monitor",
        }
    }
}

/// What a fault does to claims and pods.
const fn consequence(effect: Effect) -> &'static str {
    match effect {
        Effect::None => "New claims still get it, and running pods stay",
        Effect::NoSchedule => "No new claim gets it, and running pods stay",
        Effect::NoExecute => "No new claim gets it, and its pods are evicted",
    }
}

/// The prepared devices, each with its product and UUID. A list that is too long for an Event ends with a number.
pub fn devices_prepared(devices: &[PreparedDevice], inventory: Option<&Inventory>, node: &NodeName) -> EventText {
    let all: Vec<String> = devices.iter().map(|device| device_text(device, inventory)).collect();
    let text = |listed: usize| {
        let mut devices = all.iter().take(listed).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = all.len().saturating_sub(listed);
        if more > 0 {
            write!(devices, " and {more} more").ok();
        }
        EventText::DevicesPrepared { devices, node: node.clone() }
    };
    let fits = |text: &EventText| text.note().len() <= MAX_NOTE_BYTES;
    (1..=all.len()).rev().map(text).find(fits).unwrap_or_else(|| text(0))
}

/// The refusals of configurations, if there are any.
pub fn config_ignored(refusals: &[Refusal]) -> Option<EventText> {
    let refusals: Vec<String> = refusals.iter().map(explain).collect();
    (!refusals.is_empty()).then(|| EventText::ConfigIgnored { refusals: refusals.join("; ") })
}

/// The Event about MIG devices of claims whose records are lost, if there are any.
pub fn records_lost(devices: &[DeviceName]) -> Option<EventText> {
    let devices: Vec<&str> = devices.iter().map(DeviceName::as_str).collect();
    (!devices.is_empty()).then(|| EventText::RecordsLost { devices: devices.join(", ") })
}

pub fn settings_changed(drift: &Drift) -> EventText {
    let Drift { gpu, setting, wanted, found, claims: _ } = drift;
    EventText::SettingsChanged {
        setting: capitalized(&setting.to_string()),
        gpu: gpu.clone(),
        found: found.clone(),
        wanted: wanted.clone(),
    }
}

fn device_text(device: &PreparedDevice, inventory: Option<&Inventory>) -> String {
    let PreparedDevice { device: name, identity, .. } = device;
    let sharing = sharing_status::description(device);
    let product =
        inventory.and_then(|inventory| inventory.gpu(identity.gpu())).and_then(|gpu| gpu.product_name.as_deref());
    match (identity, product) {
        (LiveIdentity::Gpu { uuid }, Some(product)) => format!("{name} ({product}, {uuid}{sharing})"),
        (LiveIdentity::Gpu { uuid }, None) => format!("{name} ({uuid}{sharing})"),
        (LiveIdentity::Shared { uuid, form }, Some(product)) => {
            format!("{name} ({form} share of {product}, {uuid}{sharing})")
        }
        (LiveIdentity::Shared { uuid, form }, None) => format!("{name} ({form} share, {uuid}{sharing})"),
        (LiveIdentity::Mig { ids, profile, .. }, Some(product)) => {
            format!("{name} ({profile} of {product}, {}{sharing})", ids.uuid)
        }
        (LiveIdentity::Mig { ids, profile, .. }, None) => format!("{name} ({profile}, {}{sharing})", ids.uuid),
    }
}

/// Notes of Events start with a capital letter.
fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use dra_hardware::Setting;
    use dra_model::{
        ComputeShare, DriverState, Gpu, GpuEntry, GpuSettings, MigIdentity, MigIds, MigMode, Placement, Version,
    };
    use dra_prepare::PreparedSharing;

    use super::*;

    fn device(name: &str, identity: LiveIdentity) -> PreparedDevice {
        PreparedDevice {
            request: "r".to_owned(),
            pool: "node-1".to_owned(),
            device: name.parse().unwrap(),
            admin_access: false,
            share_id: None,
            cdi_ids: Vec::new(),
            identity,
            sharing: PreparedSharing::Plain,
            settings: GpuSettings::default(),
        }
    }

    fn gpu(number: u32) -> PreparedDevice {
        let uuid = format!("GPU-{number:08}-0000-0000-0000-000000000000").parse().unwrap();
        device(&format!("gpu-{number:08}"), LiveIdentity::Gpu { uuid })
    }

    fn mig_ids() -> MigIds {
        let uuid = "MIG-aaaaaaaa-0000-0000-0000-000000000000".parse().unwrap();
        MigIds { uuid, gpu_instance: 7, compute_instance: 0 }
    }

    fn mig_device() -> PreparedDevice {
        let identity = MigIdentity {
            parent: "GPU-00000000-0000-0000-0000-000000000000".parse().unwrap(),
            profile_id: 19,
            placement: Placement { start: 0, size: 1 },
            share: ComputeShare { start: 0, slices: 1, of: 1 },
        };
        let identity = LiveIdentity::Mig { identity, ids: mig_ids(), profile: "1g.10gb".to_owned() };
        device("gpu-00000000-mig-19-0", identity)
    }

    /// One H100, which is GPU 0.
    fn inventory() -> Inventory {
        let version = Version { major: 580, minor: 95, patch: 5 };
        let gpu = Gpu {
            uuid: "GPU-00000000-0000-0000-0000-000000000000".parse().unwrap(),
            minor: 0,
            pci: "0000:3b:00.0".parse().unwrap(),
            pcie_root: None,
            numa_node: None,
            product_name: Some("NVIDIA H100 80GB HBM3".to_owned()),
            brand: "Nvidia".to_owned(),
            architecture: "Hopper".to_owned(),
            compute_capability: Some(version),
            memory: None,
            reserved: None,
            addressing_mode: None,
            mig: MigMode::Unsupported,
        };
        Inventory {
            driver: DriverState::Loaded { version, cuda: Some(version) },
            gpus: vec![GpuEntry::usable(gpu)],
            findings: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn each_prepared_device_has_its_product_and_its_uuid() {
        let (inventory, node) = (inventory(), "node-1".parse().unwrap());
        assert_eq!(
            devices_prepared(&[gpu(0), mig_device(), gpu(1)], Some(&inventory), &node).note(),
            "Prepared gpu-00000000 (NVIDIA H100 80GB HBM3, GPU-00000000-0000-0000-0000-000000000000), \
             gpu-00000000-mig-19-0 (1g.10gb of NVIDIA H100 80GB HBM3, MIG-aaaaaaaa-0000-0000-0000-000000000000), \
             gpu-00000001 (GPU-00000001-0000-0000-0000-000000000000) on node node-1"
        );
        assert_eq!(
            devices_prepared(&[mig_device()], None, &node).note(),
            "Prepared gpu-00000000-mig-19-0 (1g.10gb, MIG-aaaaaaaa-0000-0000-0000-000000000000) on node node-1"
        );
    }

    #[test]
    fn a_list_of_devices_that_is_too_long_ends_with_the_number_of_the_others() {
        let devices: Vec<_> = (0..40).map(gpu).collect();
        let text = devices_prepared(&devices, None, &"node-1".parse().unwrap()).note();
        assert!(text.len() <= MAX_NOTE_BYTES && text.len() > MAX_NOTE_BYTES - 60, "{}", text.len());
        let listed = text.matches("(GPU-").count();
        assert!(text.ends_with(&format!(") and {} more on node node-1", 40 - listed)), "{text}");
    }

    #[test]
    fn the_note_about_a_changed_setting_names_both_values_and_the_ways_to_reset_it() {
        let changed = Drift {
            gpu: "GPU-00000000-0000-0000-0000-000000000000".parse().unwrap(),
            setting: Setting::ComputeMode,
            wanted: "Exclusive_Process".to_owned(),
            found: "Default".to_owned(),
            claims: Vec::new(),
        };
        let text = settings_changed(&changed);
        assert_eq!((text.reason(), text.action()), ("GPUSettingsChanged", "Monitor"));
        assert_eq!(
            text.note(),
            "Compute mode of GPU-00000000-0000-0000-0000-000000000000 was changed to Default outside this driver, the claim \
             needs Exclusive_Process. Set it back with nvidia-smi; else it is reset at the next prepare on this GPU, of \
             another claim or of this one after all its pods terminated"
        );
    }

    #[test]
    fn a_failure_has_the_reason_of_its_disposition_and_blames_the_holder_on_the_node() {
        let error = || "claim ns/a: gpu-0 is held by another claim".to_owned();
        for (disposition, reason) in [
            (Disposition::Permanent, "PrepareRefused"),
            (Disposition::Busy, "DeviceBusy"),
            (Disposition::Transient, "PrepareFailed"),
        ] {
            let failed = EventText::Failed { disposition, error: error() };
            assert_eq!(
                (failed.reason(), failed.note().as_str()),
                (reason, "Claim ns/a: gpu-0 is held by another claim")
            );
            let blocked = EventText::Blocked { disposition, error: error(), holder: "other/b".to_owned() };
            let note = "Claim other/b blocks another claim: claim ns/a: gpu-0 is held by another claim";
            assert_eq!((blocked.reason(), blocked.note().as_str()), (reason, note));
        }
    }
}
