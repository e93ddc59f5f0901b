// SPDX-License-Identifier: Apache-2.0
//! What holds for every inventory and every state of the API server.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test")]

use std::collections::{BTreeMap, BTreeSet};

use dra_model::quantity::parse_bytes;
use dra_model::{
    Bytes, ComputeShare, DriverState, Engines, Failure, Fault, Gpu, GpuEntry, GpuInstance, Health, Inventory,
    MigDevice, MigIdentity, MigLayout, MigMode, MigOrigin, MigProfile, PciAddress, Placement, Version,
};
use dra_resource::{
    Features, Form, Offer, PartitionSettings, Pool, ShareSettings, SliceContent, WithoutAmount, Write, diff, pack,
};
use k8s_openapi::api::resource::v1::{
    CapacityRequestPolicyRange, Counter, Device, DeviceCapacity, DeviceTaint, ResourceSlice,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

fn hex_uuid(prefix: &str, seed: u128) -> String {
    let hex = format!("{seed:032x}");
    format!("{prefix}-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

prop_compose! {
    fn engines()(counts in prop::array::uniform6(0_u32..200)) -> Engines {
        let [multiprocessors, copy_engines, decoders, encoders, jpeg_engines, ofa_engines] = counts;
        Engines { multiprocessors, copy_engines, decoders, encoders, jpeg_engines, ofa_engines }
    }
}

prop_compose! {
    fn mig_device()(
        seed: u128, profile_id in 0_u32..30, start in 0_u32..40, size in 1_u32..12, first in 0_u32..4, slices in 1_u32..4,
        of in 1_u32..8, engines in engines(), mib in 1_u64..200_000, profile in "[a-z0-9.+]{1,80}", origin in origin(),
    ) -> MigDevice {
        MigDevice {
            identity: MigIdentity {
                parent: hex_uuid("GPU", 0).parse().unwrap(),
                profile_id,
                placement: Placement { start, size },
                share: ComputeShare { start: first, slices: slices.min(of), of },
            },
            uuid: hex_uuid("MIG", seed).parse().unwrap(),
            gpu_instance: start,
            compute_instance: first,
            profile,
            memory: Bytes::from_mib(mib),
            engines,
            origin,
        }
    }
}

fn origin() -> impl Strategy<Value = MigOrigin> {
    prop_oneof![Just(MigOrigin::Administrator), Just(MigOrigin::ThisDriver)]
}

fn placement() -> impl Strategy<Value = Placement> {
    (0_u32..40, 1_u32..12).prop_map(|(start, size)| Placement { start, size })
}

prop_compose! {
    fn profile()(
        id in 0_u32..30, slices in 1_u32..8, engines in engines(), mib in 1_u64..200_000, name in "[a-z0-9.+]{1,80}",
        placements in prop::collection::vec(placement(), 0..8),
    ) -> MigProfile {
        MigProfile { id, name, slices, memory: Bytes::from_mib(mib), engines, placements }
    }
}

prop_compose! {
    fn layout()(
        memory_slices in 1_u32..40, engines in engines(), resetless: bool, profiles in prop::collection::vec(profile(), 0..6),
    ) -> MigLayout {
        MigLayout { memory_slices, engines, resetless, profiles }
    }
}

prop_compose! {
    fn gpu_instance()(id in 0_u32..15, profile_id in 0_u32..30, placement in placement(), origin in origin()) -> GpuInstance {
        GpuInstance { id, profile_id, placement, origin }
    }
}

fn mig_mode() -> impl Strategy<Value = MigMode> {
    let instances = || prop::collection::vec(gpu_instance(), 0..3);
    let devices = || prop::collection::vec(mig_device(), 0..20);
    prop_oneof![
        Just(MigMode::Unsupported),
        layout().prop_map(MigMode::Off),
        (prop::option::of(layout()), devices(), instances(), origin()).prop_map(
            |(layout, devices, gpu_instances, origin)| MigMode::On { layout, devices, gpu_instances, origin }
        ),
    ]
}

prop_compose! {
    fn gpu()(
        seed in prop_oneof![0_u128..4, any::<u128>()], domain in 0_u32..0x20000, bus: u8, mut mig in mig_mode(),
        name in ".{0,100}", memory in prop::option::of(0_u64..1 << 40), reserved in prop::option::of(0_u64..1 << 31), root in prop::option::of("pci[0-9]{4}:[0-9]{2}"),
        numa in prop::option::of(0_u32..8), addressing in prop::option::of("HMM|ATS|None"),
    ) -> Gpu {
        let uuid: dra_model::GpuUuid = hex_uuid("GPU", seed).parse().unwrap();
        if let MigMode::On { devices, .. } = &mut mig {
            for device in devices {
                device.identity.parent = uuid.clone();
            }
        }
        Gpu {
            uuid, minor: 0, pci: PciAddress { domain, bus, device: 0, function: 0 }, pcie_root: root, numa_node: numa,
            product_name: Some(name).filter(|name| !name.is_empty()), brand: "Nvidia".to_owned(), architecture: "Hopper".to_owned(),
            compute_capability: Some(Version { major: 9, minor: 0, patch: 0 }), memory: memory.map(Bytes), reserved: reserved.map(Bytes),
            addressing_mode: addressing, mig,
        }
    }
}

prop_compose! {
    fn inventory()(gpus in prop::collection::vec((gpu(), prop::bool::weighted(0.2)), 0..20), unidentified in any::<bool>()) -> Inventory {
        let version = Version { major: 580, minor: 95, patch: 5 };
        let failure = Failure { reason: "lost".to_owned(), fault: Fault::Failing };
        let entry = |(gpu, lost)| if lost { GpuEntry::unusable(gpu, failure.clone()) } else { GpuEntry::usable(gpu) };
        let mut gpus: Vec<GpuEntry> = gpus.into_iter().map(entry).collect();
        if unidentified {
            gpus.push(GpuEntry::Unidentified { index: 99, uuid: None, pci: None, failure });
        }
        Inventory { driver: DriverState::Loaded { version, cuda: Some(version) }, gpus, findings: BTreeMap::new() }
    }
}

prop_compose! {
    fn offer()(
        partitionable: bool, consumable: bool, taints: bool, forms in prop::sample::subsequence(Form::ALL.to_vec(), 0..=4),
        default_shares in 1_u32..300, max_time_slices in 1_u32..300,
        without_amount in prop::sample::select(vec![WithoutAmount::DefaultShare, WithoutAmount::NoShare]), divides: bool,
    ) -> Offer {
        let shares = ShareSettings {
            default_shares: default_shares.try_into().unwrap(), max_time_slices: max_time_slices.try_into().unwrap(),
            without_amount,
        };
        let partitions = if divides { PartitionSettings::default() } else { PartitionSettings::None };
        let features = Features { partitionable, consumable, taints };
        Offer { features, forms: forms.into_iter().collect(), shares, partitions }
    }
}

/// All forms and features.
fn everything() -> Offer {
    let features = Features::ALL;
    let partitions = PartitionSettings::default();
    Offer { features, forms: Form::ALL.into(), shares: ShareSettings::default(), partitions }
}

/// What the API server accepts (`validateRequestPolicy`, apis/resource/validation, and the text of the API), in either
/// reading of "a multiple of the step".
fn check_policy(capacity: &DeviceCapacity) {
    let number = |quantity: &Quantity| parse_bytes(&quantity.0).unwrap().0;
    let value = number(&capacity.value);
    let policy = capacity.request_policy.as_ref().unwrap();
    let default = number(policy.default.as_ref().unwrap());
    match (&policy.valid_range, &policy.valid_values) {
        (Some(CapacityRequestPolicyRange { min, max: Some(max), step: Some(step) }), None) => {
            let (min, max, step) = (number(min), number(max), number(step));
            assert!(min <= default && default <= max && max <= value && min + step <= value, "{capacity:?}");
            for multiple in [default, max] {
                assert!(multiple.is_multiple_of(step) && (multiple - min).is_multiple_of(step), "{capacity:?}");
            }
        }
        (Some(CapacityRequestPolicyRange { min, max: None, step }), None) => {
            let (min, step) = (number(min), step.as_ref().map_or(0, number));
            assert!(min <= value && min <= default && min + step <= value, "{capacity:?}");
            let fits = |step| default.is_multiple_of(step) && (default - min).is_multiple_of(step);
            assert!(step == 0 || fits(step), "{capacity:?}");
        }
        (None, Some(values)) => {
            let values: Vec<u64> = values.iter().map(number).collect();
            assert!(values.is_sorted() && values.len() <= 10 && values.contains(&default), "{capacity:?}");
            assert!(values.iter().all(|one| *one <= value), "{capacity:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// The number of default shares that fit.
fn fitting(capacity: &DeviceCapacity) -> u64 {
    let number = |quantity: &Quantity| parse_bytes(&quantity.0).unwrap().0;
    number(&capacity.value) / number(capacity.request_policy.as_ref().unwrap().default.as_ref().unwrap())
}

fn pool() -> Pool {
    Pool { driver: "gpu.nvidia.com".parse().unwrap(), node: "n".parse().unwrap(), node_uid: "u".to_owned() }
}

/// The value of a counter in thousandths.
fn milli(text: &str) -> u64 {
    match text.strip_suffix('m') {
        Some(digits) => digits.parse().unwrap(),
        None => parse_bytes(text).unwrap().0 * 1000,
    }
}

/// How much of the counter `memory` there is, or is consumed.
fn memory_of(counters: &BTreeMap<String, Counter>) -> Option<Bytes> {
    counters.get("memory").map(|counter| parse_bytes(&counter.value.0).unwrap())
}

/// What the API server does with a write.
fn apply(server: &mut BTreeMap<String, ResourceSlice>, write: Write) {
    match write {
        Write::Delete { name, .. } => assert!(server.remove(&name).is_some(), "{name} does not exist"),
        Write::Create(slice) => {
            let name = slice.metadata.name.clone().unwrap();
            assert!(server.insert(name.clone(), with_times(*slice)).is_none(), "{name} exists");
        }
        Write::Update(slice) => {
            let name = slice.metadata.name.clone().unwrap();
            assert!(server.insert(name.clone(), with_times(*slice)).is_some(), "{name} does not exist");
        }
    }
}

fn with_times(mut slice: ResourceSlice) -> ResourceSlice {
    for taint in slice.spec.devices.iter_mut().flatten().flat_map(|device| device.taints.iter_mut().flatten()) {
        taint.time_added.get_or_insert_with(|| Time("2026-11-22T03:00:00Z".parse().unwrap()));
    }
    slice
}

/// Makes the server hold what is desired, checks that this is final and coherent, and counts the writes it took.
fn publish(server: &mut BTreeMap<String, ResourceSlice>, desired: &[SliceContent]) -> usize {
    let observed: Vec<ResourceSlice> = server.values().cloned().collect();
    let writes = diff(&pool(), desired, &observed);
    let count = writes.len();
    for write in writes {
        apply(server, write);
    }
    let observed: Vec<ResourceSlice> = server.values().cloned().collect();
    assert_eq!(diff(&pool(), desired, &observed), [], "a second pass finds more to do");
    let generations: BTreeSet<i64> = observed.iter().map(|slice| slice.spec.pool.generation).collect();
    assert!(generations.len() <= 1, "{generations:?}");
    assert!(
        observed.iter().all(|slice| slice.spec.pool.resource_slice_count == i64::try_from(observed.len()).unwrap())
    );
    count
}

fn tainted(mut desired: Vec<SliceContent>) -> Vec<SliceContent> {
    for slice in &mut desired {
        if let SliceContent::Devices(devices) = slice {
            for device in devices.iter_mut().step_by(2) {
                let taint =
                    DeviceTaint { key: "k".to_owned(), effect: "NoExecute".to_owned(), ..DeviceTaint::default() };
                device.taints = Some(vec![taint]);
            }
        }
    }
    desired
}

#[derive(Debug, Clone)]
enum Meddling {
    Delete(usize),
    Edit(usize),
    OldGeneration(usize),
    OtherPool(usize),
    LosesOwner(usize),
    Extra,
}

fn meddling() -> impl Strategy<Value = Meddling> {
    prop_oneof![
        any::<usize>().prop_map(Meddling::Delete),
        any::<usize>().prop_map(Meddling::Edit),
        any::<usize>().prop_map(Meddling::OldGeneration),
        any::<usize>().prop_map(Meddling::OtherPool),
        any::<usize>().prop_map(Meddling::LosesOwner),
        Just(Meddling::Extra),
    ]
}

fn meddle(server: &mut BTreeMap<String, ResourceSlice>, what: &Meddling) {
    let names: Vec<String> = server.keys().cloned().collect();
    let pick = |index: &usize| names[index % names.len()].clone();
    match what {
        _ if names.is_empty() => {}
        Meddling::Delete(index) => drop(server.remove(&pick(index)).unwrap()),
        Meddling::Edit(index) => server.get_mut(&pick(index)).unwrap().spec.all_nodes = Some(true),
        Meddling::OldGeneration(index) => server.get_mut(&pick(index)).unwrap().spec.pool.generation -= 1,
        Meddling::OtherPool(index) => "old".clone_into(&mut server.get_mut(&pick(index)).unwrap().spec.pool.name),
        Meddling::LosesOwner(index) => server.get_mut(&pick(index)).unwrap().metadata.owner_references = None,
        Meddling::Extra => {
            let mut extra = server[&names[0]].clone();
            extra.metadata.name = Some("00000-gpu.nvidia.com-n-abcde".to_owned());
            server.insert("00000-gpu.nvidia.com-n-abcde".to_owned(), extra);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn packing_stays_within_the_limits_of_the_api(inventory in inventory(), offer in offer()) {
        let slices = pack(&pool().driver, &inventory, &offer);
        let features = offer.features;
        prop_assert!(!slices.is_empty());
        let mut names = BTreeSet::new();
        for slice in &slices {
            match slice {
                SliceContent::Counters(sets) => {
                    prop_assert!(features.partitionable);
                    prop_assert!(!sets.is_empty() && sets.len() <= 8);
                    for set in sets {
                        prop_assert!(!set.counters.is_empty() && set.counters.len() <= 32 && set.name.len() <= 63);
                    }
                }
                SliceContent::Devices(devices) => {
                    let limit = if features.partitionable { 64 } else { 128 };
                    prop_assert!(devices.len() <= limit);
                    for device in devices {
                        prop_assert!(names.insert(device.name.clone()), "{} twice", device.name);
                        prop_assert!(device.name.parse::<dra_model::DeviceName>().is_ok());
                        let attributes = device.attributes.as_ref().unwrap();
                        prop_assert!(attributes.len() + device.capacity.iter().flatten().count() <= 32);
                        prop_assert!(attributes.values().all(|value| value.string.iter().all(|text| text.len() <= 64)));
                        prop_assert_eq!(device.consumes_counters.is_some(), features.partitionable);
                    }
                }
            }
        }
    }

    /// A device that leaves its slice cannot evict pods, and one without a taint gets new claims.
    #[test]
    fn a_gpu_that_cannot_be_read_keeps_its_devices_under_a_taint(inventory in inventory(), offer in offer()) {
        let healthy = Inventory { gpus: inventory.known_gpus().map(|(gpu, _)| GpuEntry::usable(gpu.clone())).collect(), ..inventory.clone() };
        let of = |inventory: &Inventory| -> BTreeMap<String, Device> {
            let slices = pack(&pool().driver, inventory, &offer);
            slices.iter().flat_map(SliceContent::devices).map(|device| (device.name.clone(), device.clone())).collect()
        };
        let (now, before) = (of(&inventory), of(&healthy));
        // Of two entries with one UUID the first is published.
        let mut is_usable = BTreeMap::new();
        for (gpu, health) in inventory.known_gpus() {
            is_usable.entry(gpu.uuid.as_str()).or_insert(*health == Health::Usable);
        }
        for (name, before) in &before {
            let is_unusable = !is_usable[before.attributes.as_ref().unwrap()["gpuUUID"].string.as_deref().unwrap()];
            let taints = |device: &Device| -> Vec<(String, String)> {
                device.taints.iter().flatten().map(|taint| (taint.key.clone(), taint.effect.clone())).collect()
            };
            match now.get(name) {
                None => prop_assert!(is_unusable && !offer.features.taints),
                Some(now) if is_unusable => {
                    prop_assert_eq!(taints(now), [("gpu.nvidia.com/unusable".to_owned(), "NoSchedule".to_owned())]);
                    prop_assert_eq!(&Device { taints: None, ..now.clone() }, before);
                }
                Some(now) => prop_assert_eq!(now, before),
            }
        }
        prop_assert!(now.keys().all(|name| before.contains_key(name)));
    }

    /// One selector finds, or leaves out, everything that would hand out a GPU.
    #[test]
    fn all_forms_of_a_gpu_have_its_uuid_under_one_name(inventory in inventory(), offer in offer()) {
        let names = inventory.devices_by_name();
        for device in pack(&pool().driver, &inventory, &offer).iter().flat_map(SliceContent::devices) {
            let gpu = names[&device.name.parse().unwrap()].gpu();
            prop_assert_eq!(device.attributes.as_ref().unwrap()["gpuUUID"].string.as_deref(), Some(gpu.uuid.as_str()));
        }
    }

    #[test]
    fn shares_have_valid_policies_and_the_configured_number_fits(inventory in inventory(), offer in offer()) {
        let slices = pack(&pool().driver, &inventory, &offer);
        for device in slices.iter().flat_map(SliceContent::devices) {
            let attributes = device.attributes.as_ref().unwrap();
            let strategy = attributes.get("sharingStrategy").map(|strategy| strategy.string.clone().unwrap());
            let capacity = device.capacity.clone().unwrap_or_default();
            let Some(strategy) = strategy else {
                prop_assert!(device.allow_multiple_allocations.is_none());
                prop_assert!(capacity.values().all(|one| one.request_policy.is_none()));
                continue;
            };
            prop_assert!(offer.features.partitionable && offer.features.consumable);
            prop_assert_eq!(device.allow_multiple_allocations, Some(true));
            prop_assert_eq!(attributes["type"].string.as_deref(), Some("shared-gpu"));
            capacity.values().for_each(check_policy);
            let fit = capacity.values().map(fitting).min().unwrap();
            let configured = match (offer.shares.without_amount, strategy.as_str()) {
                (WithoutAmount::NoShare, _) => {
                    prop_assert_eq!(fit, 0);
                    continue;
                }
                (WithoutAmount::DefaultShare, "MPS") => u64::from(offer.shares.default_shares.get()).min(100),
                (WithoutAmount::DefaultShare, _) => offer.shares.max_time_slices.get().into(),
            };
            // A GPU without published memory is shared by threads or time slices only.
            let mib = capacity.get("memory").map_or(u64::MAX, |memory| parse_bytes(&memory.value.0).unwrap().mib());
            prop_assert!(fit >= configured.min(mib), "{fit} of {configured} fit: {capacity:?}");
        }
    }

    #[test]
    fn a_device_consumes_only_counters_that_exist_and_the_whole_gpu_all_of_them(inventory in inventory()) {
        let slices = pack(&pool().driver, &inventory, &everything());
        let sets: BTreeMap<String, BTreeMap<String, u64>> = slices.iter().flat_map(|slice| match slice {
            SliceContent::Counters(sets) => sets.clone(),
            SliceContent::Devices(_) => Vec::new(),
        }).map(|set| (set.name, set.counters.into_iter().map(|(name, c)| (name, milli(&c.value.0))).collect())).collect();
        for device in slices.iter().flat_map(SliceContent::devices) {
            let [consumed] = device.consumes_counters.as_deref().unwrap() else { panic!("not one set") };
            let counters = &sets[&consumed.counter_set];
            prop_assert!(consumed.counters.keys().any(|name| name.starts_with("memory-slice-")));
            for (name, counter) in &consumed.counters {
                prop_assert!(milli(&counter.value.0) <= counters[name], "{name}");
            }
            let is_mig = device.attributes.as_ref().unwrap()["type"].string.as_deref() == Some("mig");
            if !is_mig {
                let all: BTreeMap<_, _> = consumed.counters.iter().map(|(name, c)| (name.clone(), milli(&c.value.0))).collect();
                prop_assert_eq!(&all, counters);
            }
        }
    }

    /// A quota by memory charges this counter: all of it for a whole GPU and for its shared forms, its own for a MIG device.
    #[test]
    fn memory_is_counted_under_one_name_on_every_gpu(gpu in gpu()) {
        let driver = DriverState::Missing { reason: String::new() };
        let slices = pack(&pool().driver, &Inventory { driver, gpus: vec![GpuEntry::usable(gpu.clone())], findings: BTreeMap::new() }, &everything());
        let SliceContent::Counters(sets) = &slices[0] else { panic!("no counters") };
        let total = memory_of(&sets[0].counters);
        let known = gpu.memory.filter(|memory| memory.0 > 0);
        let of_instances = gpu.foreign_mig_devices().map(|mig| mig.memory.0).sum::<u64>();
        let of_profile = gpu.mig_layout().into_iter().flat_map(|layout| &layout.profiles).map(|profile| profile.memory.0).max();
        let bound = of_instances.max(known.map_or(0, |known| known.0)).max(of_profile.unwrap_or(0));
        prop_assert!(total >= known && total.map_or(0, |total| total.0) <= bound);
        let mut in_use = 0;
        for device in slices.iter().flat_map(SliceContent::devices) {
            let own = memory_of(&device.consumes_counters.as_ref().unwrap()[0].counters);
            let attributes = device.attributes.as_ref().unwrap();
            // Partitions overlap each other.
            if attributes["uuid"].string.as_deref() == Some("Unknown") {
                continue;
            }
            if attributes["type"].string.as_deref() == Some("mig") {
                in_use += own.map_or(0, |own| own.0);
            } else {
                prop_assert_eq!(own, total);
            }
        }
        prop_assert!(in_use <= total.map_or(0, |total| total.0));
    }

    #[test]
    fn mig_devices_that_exist_fit_side_by_side(
        layout in engines(), engines in engines(), cuts in prop::collection::vec((1_u32..4, 1_u32..4), 1..5),
        total in prop::option::of(0_u64..1 << 38), each in 1_u64..1 << 36,
    ) {
        let parent: dra_model::GpuUuid = hex_uuid("GPU", 7).parse().unwrap();
        let mut devices = Vec::new();
        let mut start = 0;
        for (size, parts) in cuts {
            for part in 0..parts {
                devices.push(MigDevice {
                    identity: MigIdentity {
                        parent: parent.clone(), profile_id: 1, placement: Placement { start, size },
                        share: ComputeShare { start: part, slices: 1, of: parts },
                    },
                    uuid: hex_uuid("MIG", u128::from(start * 10 + part)).parse().unwrap(),
                    gpu_instance: start, compute_instance: part, profile: "p".to_owned(), memory: Bytes(each), engines,
                    origin: MigOrigin::default(),
                });
            }
            start += size;
        }
        let layout = MigLayout { memory_slices: 8, engines: layout, ..MigLayout::default() };
        let gpu = Gpu {
            uuid: parent, minor: 0, pci: "0000:01:00.0".parse().unwrap(), pcie_root: None, numa_node: None,
            product_name: None, brand: String::new(), architecture: String::new(),
            compute_capability: None, memory: total.map(Bytes), reserved: None, addressing_mode: None,
            mig: MigMode::On { layout: Some(layout), devices, gpu_instances: Vec::new(), origin: MigOrigin::default() },
        };
        let driver = DriverState::Missing { reason: String::new() };
        let slices = pack(&pool().driver, &Inventory { driver, gpus: vec![GpuEntry::usable(gpu)], findings: BTreeMap::new() }, &everything());
        let SliceContent::Counters(sets) = &slices[0] else { panic!("no counters") };
        let mut used: BTreeMap<&str, u64> = BTreeMap::new();
        for device in slices[1].devices() {
            for (name, counter) in &device.consumes_counters.as_ref().unwrap()[0].counters {
                *used.entry(name).or_default() += milli(&counter.value.0);
            }
        }
        for (name, used) in used {
            prop_assert!(used <= milli(&sets[0].counters[name].value.0), "{name}");
        }
    }

    #[test]
    fn diff_converges_in_one_pass_from_any_state(
        before in inventory(), after in inventory(), offers in (offer(), offer()), mess in prop::collection::vec(meddling(), 0..4)
    ) {
        let mut server = BTreeMap::new();
        publish(&mut server, &tainted(pack(&pool().driver, &before, &offers.0)));
        for what in &mess {
            meddle(&mut server, what);
        }
        publish(&mut server, &tainted(pack(&pool().driver, &after, &offers.1)));
        publish(&mut server, &pack(&pool().driver, &after, &Offer::of_hardware(Features { partitionable: false, consumable: false, ..Features::ALL })));
    }

    #[test]
    fn packing_is_deterministic_and_survives_the_wire(inventory in inventory(), offer in offer()) {
        let again: Inventory = serde_json::from_str(&serde_json::to_string(&inventory).unwrap()).unwrap();
        prop_assert_eq!(&pack(&pool().driver, &inventory, &offer), &pack(&pool().driver, &again, &offer));
        let mut server = BTreeMap::new();
        publish(&mut server, &pack(&pool().driver, &inventory, &offer));
        for slice in server.values_mut() {
            *slice = serde_json::from_str(&serde_json::to_string(slice).unwrap()).unwrap();
        }
        prop_assert_eq!(publish(&mut server, &pack(&pool().driver, &again, &offer)), 0);
    }

    /// What this driver makes and unmakes, and a mode that it turns on, changes no slice.
    #[test]
    fn creations_of_this_driver_are_not_published(inventory in inventory(), offer in offer()) {
        let mut without = inventory.clone();
        for entry in &mut without.gpus {
            let GpuEntry::Known { gpu, .. } = entry else { continue };
            if let MigMode::On { layout, devices, gpu_instances, origin } = &mut gpu.mig {
                devices.retain(|device| device.origin == MigOrigin::Administrator);
                gpu_instances.retain(|instance| instance.origin == MigOrigin::Administrator);
                if let Some(layout) = layout
                    && layout.resetless && *origin == MigOrigin::ThisDriver && devices.is_empty() && gpu_instances.is_empty()
                {
                    gpu.mig = MigMode::Off(layout.clone());
                }
            }
        }
        prop_assert_eq!(pack(&pool().driver, &inventory, &offer), pack(&pool().driver, &without, &offer));
    }
}
