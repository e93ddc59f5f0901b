// SPDX-License-Identifier: Apache-2.0
//! The sentences of Events: what a claim got and what its user should know of it, for people. Pure.
//!
//! In come the devices and the inventory, which knows product names; out goes one line.

use std::collections::{BTreeMap, BTreeSet};

use dra_model::{ClaimRef, DaemonId, Inventory, LiveIdentity, NodeName};
use dra_prepare::{Drift, PreparedDevice, Refusal};

use crate::claims::Prepared;
use crate::shown;

/// The longest note of an Event (`NoteLengthLimit` of events.k8s.io).
pub const LONGEST: usize = 1024;

/// What somebody changed behind the back of a claim. The kubelet prepares a claim for the first of its pods and not for those
/// that come while it lives (`prepareResources` of its DRA manager).
pub fn drift(drift: &Drift) -> String {
    let Drift { gpu, setting, wanted, found, claims: _ } = drift;
    format!(
        "somebody set the {setting} of {gpu} to {found}, and this claim needs {wanted}: set it back; or it is put right with \
         the next claim on that GPU, or with the next pod of this claim after all of its pods have ended"
    )
}

/// Configurations that were written for other devices too and that a share cannot have.
pub fn ignored(reasons: &[Refusal]) -> Option<String> {
    let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    (!reasons.is_empty()).then(|| format!("not applied to shares: {}", reasons.join("; ")))
}

/// What the Node is told of a claim that was not prepared because of a claim of another namespace, which the users of the first
/// are not told the name of.
pub fn in_the_way(holder: &str, text: &str) -> String {
    format!("claim {holder} is in the way of another one: {text}")
}

/// A container that gets both has the pipe directory of one: the later mount of a path replaces the earlier one.
pub fn several_daemons(devices: &[PreparedDevice]) -> Option<String> {
    let mut requests: BTreeMap<&DaemonId, BTreeSet<&str>> = BTreeMap::new();
    for device in devices {
        if let Some(daemon) = shown::daemon(device) {
            requests.entry(daemon).or_default().insert(&device.request);
        }
    }
    let all: BTreeSet<&str> = requests.values().flatten().copied().collect();
    (requests.len() > 1).then(|| {
        let all: Vec<&str> = all.into_iter().collect();
        format!(
            "the requests {} have MPS daemons of their own, and a process is the client of one: let each container name one of \
             them in resources.claims[].request, since one with several can use the devices of one only",
            all.join(" and ")
        )
    })
}

/// Shares of one GPU in one container count one by one, and each says in the environment what a client may use.
pub fn several_shares(devices: &[PreparedDevice]) -> Option<String> {
    let mut shares: BTreeMap<&DaemonId, Vec<&PreparedDevice>> = BTreeMap::new();
    for device in devices.iter().filter(|device| matches!(device.identity, LiveIdentity::Shared { .. })) {
        if let Some(daemon) = shown::daemon(device) {
            shares.entry(daemon).or_default().push(device);
        }
    }
    let shares = shares.into_values().find(|shares| shares.len() > 1)?;
    let requests: BTreeSet<&str> = shares.iter().map(|device| device.request.as_str()).collect();
    let device = shares.first().map(|device| &device.device)?;
    Some(format!(
        "{} shares of {device} were allocated (requests: {}), and each counts, but a container with several of them is limited \
         as with one: request one share with more memory and activeThreadPercentage instead, or let each container name one \
         of the requests in resources.claims[].request",
        shares.len(),
        requests.into_iter().collect::<Vec<_>>().join(", ")
    ))
}

/// What the users of a pod should know of its claims by MPS: the reason and the text of an Event on the last of them.
pub fn of_pod(claims: &[Prepared]) -> Option<(ClaimRef, &'static str, String)> {
    let daemon = |prepared: &Prepared| prepared.devices.iter().find_map(shown::daemon).cloned();
    let sharers: Vec<(&ClaimRef, DaemonId)> =
        claims.iter().filter_map(|prepared| Some((&prepared.claim, daemon(prepared)?))).collect();
    let [first, .., (last, _)] = &sharers[..] else { return None };
    let names: Vec<&str> = sharers.iter().map(|(claim, _)| claim.name.as_str()).collect();
    let names = names.join(" and ");
    let (reason, text) = if sharers.iter().any(|(_, daemon)| *daemon != first.1) {
        let why = "have MPS daemons of their own, and a process is the client of one";
        let end = "since one with several can use the devices of one only";
        (SEVERAL_DAEMONS, format!("the claims {names} of one pod {why}: {ONE_CLAIM}, {end}"))
    } else {
        let why = "are shares of one GPU by MPS, and each counts, but a container with several of them is limited as with one";
        let instead = "request one share with more memory and activeThreadPercentage instead, or";
        (SEVERAL_SHARES, format!("the claims {names} of one pod {why}: {instead} {ONE_CLAIM}"))
    };
    Some(((*last).clone(), reason, text))
}

/// The reason of an Event about devices of which a container can use only those of one MPS daemon.
pub const SEVERAL_DAEMONS: &str = "SeveralMPSDaemons";

/// The reason of an Event about shares by MPS that do not add up in a container.
pub const SEVERAL_SHARES: &str = "MultipleMPSShares";

const ONE_CLAIM: &str = "let each container name one of them in resources.claims";

/// Names every device with its product and its UUID, as many as there is room for, in at most 1024 bytes.
pub fn prepared(devices: &[PreparedDevice], inventory: Option<&Inventory>, node: &NodeName) -> String {
    let all: Vec<String> = devices.iter().map(|device| described(device, inventory)).collect();
    let sentence = |shown: usize| {
        let told: Vec<&str> = all.iter().take(shown).map(String::as_str).collect();
        let more = match all.len().saturating_sub(shown) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("prepared {}{more} on node {node}", told.join(", "))
    };
    (1..=all.len()).rev().map(sentence).find(|text| text.len() <= LONGEST).unwrap_or_default()
}

fn described(device: &PreparedDevice, inventory: Option<&Inventory>) -> String {
    let PreparedDevice { device: name, identity, .. } = device;
    let words = shown::words(device);
    let product =
        inventory.and_then(|inventory| inventory.gpu(identity.gpu())).and_then(|gpu| gpu.product_name.as_deref());
    match (identity, product) {
        (LiveIdentity::Gpu { uuid }, Some(product)) => format!("{name} ({product}, {uuid}{words})"),
        (LiveIdentity::Gpu { uuid }, None) => format!("{name} ({uuid}{words})"),
        (LiveIdentity::Shared { uuid, form }, Some(product)) => {
            format!("{name} ({form} share of {product}, {uuid}{words})")
        }
        (LiveIdentity::Shared { uuid, form }, None) => format!("{name} ({form} share, {uuid}{words})"),
        (LiveIdentity::Mig { uuid, profile, .. }, Some(product)) => {
            format!("{name} ({profile} of {product}, {uuid}{words})")
        }
        (LiveIdentity::Mig { uuid, profile, .. }, None) => format!("{name} ({profile}, {uuid}{words})"),
    }
}

#[cfg(test)]
mod tests {
    use dra_hardware::Setting;
    use dra_model::{
        Bytes, DriverState, Gpu, GpuEntry, GpuSettings, Interval, MigMode, ShareLimits, SharedForm, Version,
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

    fn whole(number: u32) -> PreparedDevice {
        let uuid = format!("GPU-{number:08}-0000-0000-0000-000000000000").parse().unwrap();
        device(&format!("gpu-{number:08}"), LiveIdentity::Gpu { uuid })
    }

    fn part() -> PreparedDevice {
        let identity = LiveIdentity::Mig {
            uuid: "MIG-aaaaaaaa-0000-0000-0000-000000000000".parse().unwrap(),
            parent: "GPU-00000000-0000-0000-0000-000000000000".parse().unwrap(),
            gpu_instance: 7,
            compute_instance: 0,
            profile: "1g.10gb".to_owned(),
        };
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
        Inventory { driver: DriverState::Loaded { version, cuda: Some(version) }, gpus: vec![GpuEntry::Good(gpu)] }
    }

    #[test]
    fn every_device_has_its_product_and_its_uuid() {
        let (inventory, node) = (inventory(), "node-1".parse().unwrap());
        assert_eq!(
            prepared(&[whole(0), part(), whole(1)], Some(&inventory), &node),
            "prepared gpu-00000000 (NVIDIA H100 80GB HBM3, GPU-00000000-0000-0000-0000-000000000000), \
             gpu-00000000-mig-19-0 (1g.10gb of NVIDIA H100 80GB HBM3, MIG-aaaaaaaa-0000-0000-0000-000000000000), \
             gpu-00000001 (GPU-00000001-0000-0000-0000-000000000000) on node node-1"
        );
        assert_eq!(
            prepared(&[part()], None, &node),
            "prepared gpu-00000000-mig-19-0 (1g.10gb, MIG-aaaaaaaa-0000-0000-0000-000000000000) on node node-1"
        );
    }

    #[test]
    fn requests_with_daemons_of_their_own_are_named() {
        let mps = |request: &str, daemon: &str, number| PreparedDevice {
            request: request.to_owned(),
            sharing: PreparedSharing::Mps { daemon: daemon.parse().unwrap(), limits: ShareLimits::default() },
            ..whole(number)
        };
        for one_daemon in [vec![], vec![whole(0)], vec![mps("a", "claim-u-0", 0), mps("b", "claim-u-0", 1), whole(2)]] {
            assert_eq!(several_daemons(&one_daemon), None);
        }
        assert_eq!(
            several_daemons(&[mps("b", "gpu-1", 1), whole(2), mps("a", "gpu-0", 0)]).unwrap(),
            "the requests a and b have MPS daemons of their own, and a process is the client of one: let each container \
             name one of them in resources.claims[].request, since one with several can use the devices of one only"
        );
    }

    fn share(request: &str, gpu: u32) -> PreparedDevice {
        let uuid = format!("GPU-{gpu:08}-0000-0000-0000-000000000000").parse().unwrap();
        let identity = LiveIdentity::Shared { uuid, form: SharedForm::Mps };
        let daemon = format!("gpu-{gpu}").parse().unwrap();
        let sharing = PreparedSharing::Mps { daemon, limits: ShareLimits::default() };
        let request = request.to_owned();
        PreparedDevice { request, sharing, ..device(&format!("gpu-{gpu:08}-mps"), identity) }
    }

    #[test]
    fn shares_of_one_gpu_in_one_claim_are_counted() {
        for one_each in [vec![], vec![share("a", 0)], vec![share("a", 0), share("b", 1), whole(0)]] {
            assert_eq!(several_shares(&one_each), None);
        }
        for (devices, requests) in
            [(vec![share("b", 1), share("a", 0), share("c", 0)], "a, c"), (vec![share("a", 0), share("a", 0)], "a")]
        {
            let expect = format!(
                "2 shares of gpu-00000000-mps were allocated (requests: {requests}), and each counts, but a container with \
                 several of them is limited as with one: request one share with more memory and activeThreadPercentage \
                 instead, or let each container name one of the requests in resources.claims[].request"
            );
            assert_eq!(several_shares(&devices), Some(expect));
        }
    }

    #[test]
    fn claims_of_one_pod_by_mps_are_told_on_the_last_of_them() {
        let prepared = |name: &str, devices| {
            let claim = ClaimRef { namespace: "ns".to_owned(), name: name.to_owned(), uid: name.parse().unwrap() };
            Prepared { claim, devices }
        };
        let told = |claims: &[Prepared]| of_pod(claims).map(|(claim, reason, text)| (claim.name, reason, text));
        assert_eq!(told(&[prepared("a", vec![share("r", 0), share("s", 0)]), prepared("b", vec![whole(1)])]), None);
        let plain = || prepared("plain", vec![whole(2)]);
        assert_eq!(
            told(&[prepared("a", vec![share("r", 0)]), prepared("b", vec![share("r", 0)]), plain()]).unwrap(),
            (
                "b".to_owned(),
                "MultipleMPSShares",
                "the claims a and b of one pod are shares of one GPU by MPS, and each counts, but a container with several \
                 of them is limited as with one: request one share with more memory and activeThreadPercentage instead, or \
                 let each container name one of them in resources.claims"
                    .to_owned()
            )
        );
        let (claim, reason, text) =
            told(&[prepared("a", vec![share("r", 0)]), prepared("b", vec![share("r", 1)])]).unwrap();
        assert_eq!((claim.as_str(), reason), ("b", "SeveralMPSDaemons"));
        assert!(text.starts_with("the claims a and b of one pod have MPS daemons of their own"), "{text}");
    }

    #[test]
    fn who_finds_a_changed_setting_hears_what_puts_it_right() {
        let changed = Drift {
            gpu: "GPU-00000000-0000-0000-0000-000000000000".parse().unwrap(),
            setting: Setting::ComputeMode,
            wanted: "Exclusive_Process".to_owned(),
            found: "Default".to_owned(),
            claims: Vec::new(),
        };
        assert_eq!(
            drift(&changed),
            "somebody set the compute mode of GPU-00000000-0000-0000-0000-000000000000 to Default, and this claim needs \
             Exclusive_Process: set it back; or it is put right with the next claim on that GPU, or with the next pod of \
             this claim after all of its pods have ended"
        );
    }

    #[test]
    fn sharing_is_said_with_what_it_may_use() {
        let memory = Some(Bytes::from_mib(8155));
        let threads = Some(10.try_into().unwrap());
        for (sharing, expect) in [
            (PreparedSharing::Exclusive, ", compute mode Exclusive_Process"),
            (
                PreparedSharing::TimeSlicing { interval: Interval::Default, limits: ShareLimits::default() },
                ", time-slicing",
            ),
            (
                PreparedSharing::TimeSlicing {
                    interval: Interval::Long,
                    limits: ShareLimits { memory, threads: None },
                },
                ", time-slicing by Long turns with 8155 MiB",
            ),
            (
                PreparedSharing::Mps { daemon: "gpu-0".parse().unwrap(), limits: ShareLimits { memory, threads } },
                ", MPS with 8155 MiB and 10% of the threads",
            ),
        ] {
            assert_eq!(shown::words(&PreparedDevice { sharing, ..whole(0) }), expect);
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let devices: Vec<_> = (0..40).map(whole).collect();
        let text = prepared(&devices, None, &"node-1".parse().unwrap());
        assert!(text.len() <= LONGEST && text.len() > LONGEST - 60, "{}", text.len());
        let told = text.matches("(GPU-").count();
        assert!(text.ends_with(&format!(") and {} more on node node-1", 40 - told)), "{text}");
    }
}
