// SPDX-License-Identifier: Apache-2.0
//! The search agrees with a model that tries every choice of devices and judges it as a whole, by the promises of KEP-4381, KEP-4815,
//! KEP-5055 and KEP-5075.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};

use dra_allocation::candidates::{Cluster, NodeView};
use dra_allocation::{Answer, ClaimSpec, Classes, NodeFacts, Selectors, SliceReader, Usage, explain};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A device with counters `a` and `b` of the set of its card, a color, and maybe memory that claims share.
#[derive(Debug, Clone)]
struct Device {
    card: usize,
    a: i64,
    b: i64,
    color: i64,
    shared_memory: Option<i64>,
    tainted: bool,
}

#[derive(Debug, Clone)]
struct Ask {
    color: Option<i64>,
    /// All that are selected if absent.
    count: Option<usize>,
    memory: Option<i64>,
    tolerates: bool,
}

/// What the devices of the first claim have in common.
#[derive(Debug, Clone, Copy)]
enum Colors {
    Any,
    Same,
    Different,
}

#[derive(Debug, Clone)]
struct World {
    /// What each card has of `a` and `b`.
    cards: Vec<(i64, i64)>,
    devices: Vec<Device>,
    /// Devices that are held, with the memory of a share.
    held: Vec<(usize, i64)>,
    /// Requests, each with its alternatives.
    requests: Vec<Vec<Ask>>,
    /// Requests of the first claim; the others are those of a second one.
    first: usize,
    colors: Colors,
}

fn device() -> impl Strategy<Value = Device> {
    (0..2_usize, 0..3_i64, 0..3_i64, 0..2_i64, prop::option::of(2..6_i64), prop::bool::weighted(0.2))
        .prop_map(|(card, a, b, color, shared_memory, tainted)| Device { card, a, b, color, shared_memory, tainted })
}

fn ask() -> impl Strategy<Value = Ask> {
    (
        prop::option::of(0..2_i64),
        prop::option::weighted(0.8, 1..3_usize),
        prop::option::weighted(0.3, 1..5_i64),
        any::<bool>(),
    )
        .prop_map(|(color, count, memory, tolerates)| Ask { color, count, memory, tolerates })
}

fn world() -> impl Strategy<Value = World> {
    (
        prop::collection::vec((1..5_i64, 1..5_i64), 2),
        prop::collection::vec(device(), 1..6),
        prop::collection::vec((0..6_usize, 1..3_i64), 0..3),
        prop::collection::vec(prop::collection::vec(ask(), 1..3), 1..3),
        1..3_usize,
        prop_oneof![Just(Colors::Any), Just(Colors::Same), Just(Colors::Different)],
    )
        .prop_map(|(cards, devices, held, requests, first, colors)| {
            let world = World { cards, devices, held: Vec::new(), requests, first, colors };
            held.into_iter().fold(world, World::holding)
        })
}

impl World {
    /// With a further claim, if its device can be allocated to it.
    fn holding(self, (device, memory): (usize, i64)) -> Self {
        let mut next = self.clone();
        next.held.push((device, memory));
        let is_valid = device < self.devices.len() && next.is_consistent(&[]);
        if is_valid { next } else { self }
    }

    /// Whether no counter and no capacity is used up beyond its end and no device is held twice alone. `chosen` has the memory that
    /// each further allocation takes of a shared device.
    fn is_consistent(&self, chosen: &[(usize, i64)]) -> bool {
        let all: Vec<(usize, i64)> = self.held.iter().chain(chosen).copied().collect();
        let distinct: BTreeSet<usize> = all.iter().map(|(device, _)| *device).collect();
        let used = |card: usize, counter: fn(&Device) -> i64| -> i64 {
            let devices = distinct.iter().map(|device| &self.devices[*device]);
            devices.filter(|device| device.card == card).map(counter).sum()
        };
        let counters = self
            .cards
            .iter()
            .enumerate()
            .all(|(card, (a, b))| used(card, |device| device.a) <= *a && used(card, |device| device.b) <= *b);
        counters
            && distinct.iter().all(|device| {
                let amounts = || all.iter().filter(|(held, _)| held == device).map(|(_, memory)| *memory);
                match self.devices[*device].shared_memory {
                    Some(total) => amounts().sum::<i64>() <= total,
                    None => amounts().count() == 1,
                }
            })
    }

    /// Whether a request selects a device: by its color, and by having as much memory left as is asked for.
    fn selects(&self, device: usize, ask: &Ask) -> bool {
        let found = &self.devices[device];
        let held: i64 = self.held.iter().filter(|(held, _)| *held == device).map(|(_, memory)| *memory).sum();
        ask.color.is_none_or(|color| color == found.color)
            && match found.shared_memory {
                Some(total) => held + ask.memory.unwrap_or(1) <= total,
                None => ask.memory.is_none(),
            }
    }

    /// The sets of devices that satisfy an ask, as far as each device alone is concerned.
    fn choices(&self, ask: &Ask) -> Vec<Vec<usize>> {
        let selected: Vec<usize> = (0..self.devices.len()).filter(|device| self.selects(*device, ask)).collect();
        let sets = match ask.count {
            Some(count) => subsets(&selected, count),
            None if selected.is_empty() => Vec::new(),
            None => vec![selected],
        };
        let is_tolerated = |device: &usize| ask.tolerates || !self.devices[*device].tainted;
        sets.into_iter().filter(|devices| devices.iter().all(is_tolerated)).collect()
    }

    /// What an ask takes of a device: the default is a memory of 1.
    fn taken(&self, device: usize, ask: &Ask) -> (usize, i64) {
        (device, ask.memory.filter(|_| self.devices[device].shared_memory.is_some()).unwrap_or(1))
    }

    /// Whether the devices of the first claim have the colors that it wants.
    fn is_colored(&self, first: &[(usize, i64)]) -> bool {
        let colors: BTreeSet<i64> = first.iter().map(|(device, _)| self.devices[*device].color).collect();
        match self.colors {
            Colors::Any => true,
            Colors::Same => colors.len() < 2,
            Colors::Different => colors.len() == first.len(),
        }
    }

    /// Every choice of devices for the requests from a position on; `first` are the devices of the first claim.
    fn fits(&self, request: usize, chosen: &mut Vec<(usize, i64)>, first: usize) -> bool {
        let Some(asks) = self.requests.get(request) else {
            return self.is_consistent(chosen) && self.is_colored(&chosen[..first]);
        };
        asks.iter().any(|ask| {
            self.choices(ask).into_iter().any(|devices| {
                let before = chosen.len();
                chosen.extend(devices.iter().map(|device| self.taken(*device, ask)));
                let first = if request < self.first { chosen.len() } else { first };
                let fits = self.fits(request + 1, chosen, first);
                chosen.truncate(before);
                fits
            })
        })
    }
}

fn subsets(of: &[usize], size: usize) -> Vec<Vec<usize>> {
    let all = 0..1_usize << of.len();
    let members =
        |bits: usize| (0..of.len()).filter(move |at| bits >> at & 1 == 1).map(|at| of[at]).collect::<Vec<_>>();
    all.map(members).filter(|subset| subset.len() == size).collect()
}

/// The same world as objects of the API.
fn slices(world: &World) -> String {
    let quantity = |amount: i64| json!({"value": amount.to_string()});
    let set = |card: usize, a: i64, b: i64, key: &str| json!({key: format!("card-{card}"), "counters": {"a": quantity(a), "b": quantity(b)}});
    let sets = world.cards.iter().enumerate().map(|(card, (a, b))| set(card, *a, *b, "name"));
    let devices = world.devices.iter().enumerate().map(|(at, device)| {
        let mut found = json!({
            "name": format!("d{at}"),
            "attributes": {"color": {"int": device.color}},
            "consumesCounters": [set(device.card, device.a, device.b, "counterSet")],
        });
        if let Some(memory) = device.shared_memory {
            found["allowMultipleAllocations"] = json!(true);
            let policy = json!({"default": "1", "validRange": {"min": "1", "step": "1"}});
            found["capacity"] = json!({"memory": {"value": memory.to_string(), "requestPolicy": policy}});
        }
        if device.tainted {
            found["taints"] = json!([{"key": "ill", "value": "yes", "effect": "NoSchedule"}]);
        }
        found
    });
    let slice = |name: &str, field: &str, content: Vec<Value>| {
        let pool = json!({"name": "n", "generation": 1, "resourceSliceCount": 2});
        json!({"metadata": {"name": name}, "spec": {"driver": "d.example.com", "nodeName": "n", "pool": pool, field: content}})
    };
    let items = [slice("0", "sharedCounters", sets.collect()), slice("1", "devices", devices.collect())];
    json!({"metadata": {}, "items": items}).to_string()
}

fn claims(world: &World) -> String {
    let items = world.held.iter().enumerate().map(|(at, (device, memory))| {
        let mut result = json!({"request": "r", "driver": "d.example.com", "pool": "n", "device": format!("d{device}")});
        if world.devices[*device].shared_memory.is_some() {
            result["shareID"] = json!(format!("share-{at}"));
            result["consumedCapacity"] = json!({"memory": memory.to_string()});
        }
        json!({"metadata": {"namespace": "x", "name": format!("c{at}")}, "status": {"allocation": {"devices": {"results": [result]}}}})
    });
    json!({"metadata": {}, "items": items.collect::<Vec<_>>()}).to_string()
}

fn specs(world: &World) -> Vec<ClaimSpec> {
    let ask = |name: String, ask: &Ask| {
        let mut found = json!({"name": name, "deviceClassName": "any", "count": ask.count});
        if ask.count.is_none() {
            found["allocationMode"] = json!("All");
        }
        if let Some(color) = ask.color {
            let expression = format!(r#"device.attributes["d.example.com"].color == {color}"#);
            found["selectors"] = json!([{"cel": {"expression": expression}}]);
        }
        if let Some(memory) = ask.memory {
            found["capacity"] = json!({"requests": {"memory": memory.to_string()}});
        }
        if ask.tolerates {
            found["tolerations"] = json!([{"key": "ill", "operator": "Exists"}]);
        }
        found
    };
    let requests = world.requests.iter().enumerate().map(|(at, asks)| match asks.as_slice() {
        [one] => json!({"name": format!("r{at}"), "exactly": ask(String::new(), one)}),
        asks => {
            let asks = asks.iter().enumerate().map(|(at, found)| ask(format!("s{at}"), found)).collect::<Vec<_>>();
            json!({"name": format!("r{at}"), "firstAvailable": asks})
        }
    });
    let requests: Vec<Value> = requests.collect();
    let (first, second) = requests.split_at(world.first.min(requests.len()));
    let constraints = match world.colors {
        Colors::Any => json!([]),
        Colors::Same => json!([{"matchAttribute": "d.example.com/color"}]),
        Colors::Different => json!([{"distinctAttribute": "d.example.com/color"}]),
    };
    let read = |label: &str, requests: &[Value], constraints: Value| {
        ClaimSpec::read(label, json!({"requests": requests, "constraints": constraints})).unwrap()
    };
    vec![read("x/first", first, constraints), read("x/second", second, json!([]))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_search_finds_a_solution_exactly_if_there_is_one(world in world()) {
        let mut reader = SliceReader::default();
        reader.add_page(slices(&world).as_bytes()).unwrap();
        let pools = reader.pools();
        let mut usage = Usage::default();
        usage.add_page(claims(&world).as_bytes()).unwrap();
        let mut classes = Classes::default();
        classes.add_page(br#"{"items": [{"metadata": {"name": "any"}, "spec": {}}]}"#).unwrap();
        let (selectors, node) = (Selectors::default(), NodeFacts::unread("n".into()));
        let cluster = Cluster { pools: &pools, classes: &classes, selectors: &selectors };
        let answer = explain(&cluster, &NodeView::new(&node, &pools, &usage), &specs(&world));
        let expect = world.fits(0, &mut Vec::new(), 0);
        match &answer {
            Answer::Fits(found) => {
                prop_assert!(expect, "{found:?}");
                let numbers = found.iter().map(|found| found.device.device.trim_start_matches('d').parse().unwrap());
                let chosen: Vec<(usize, i64)> = numbers.zip(found).map(|(device, found): (usize, _)| {
                    let memory = found.consumed.values().next().and_then(|amount| amount.as_integer()).unwrap_or(1);
                    (device, memory)
                }).collect();
                prop_assert!(world.is_consistent(&chosen), "{chosen:?}");
                let per_request: BTreeMap<&str, usize> = found.iter().fold(BTreeMap::new(), |mut counts, found| {
                    *counts.entry(found.request.as_str()).or_default() += 1;
                    counts
                });
                prop_assert_eq!(per_request.len(), world.requests.len());
            }
            Answer::Blocked(_) => prop_assert!(!expect, "{answer:?}"),
            Answer::Undecided | Answer::Aborted(_) => panic!("{answer:?}"),
        }
    }
}
