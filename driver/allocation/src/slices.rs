// SPDX-License-Identifier: Apache-2.0
//! Reads ResourceSlices from the JSON of the API server, page by page, into pools.
//!
//! A page is decoded without a copy of its texts. Attributes, capacities and counters whose JSON is equal are decoded once.

mod wire;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::device::{Attributes, Capacity, Consumption, Counters, Device, Taint};
use crate::node::Scope;
use crate::pool::{CounterSet, Pools, Slice};

use wire::Page;

/// A page that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to parse a list of ResourceSlices")]
pub struct SlicesError(#[source] serde_json::Error);

/// The slices that were read until now.
#[derive(Debug, Default)]
pub struct SliceReader {
    slices: Vec<Slice>,
    texts: Texts,
}

impl SliceReader {
    /// Adds the slices of a list and returns the token of the next page, if there is one.
    pub fn add_page(&mut self, json: &[u8]) -> Result<Option<String>, SlicesError> {
        let page: Page<'_> = serde_json::from_slice(json).map_err(SlicesError)?;
        for slice in &page.items {
            let read = self.slice(slice).map_err(SlicesError)?;
            self.slices.push(read);
        }
        // The attributes of a node are those of no other node.
        self.texts.of_drivers.values_mut().for_each(|values| values.attributes.clear());
        Ok(page.metadata.next.map(Cow::into_owned).filter(|next| !next.is_empty()))
    }

    /// The pools of the newest generation.
    pub fn pools(self) -> Pools {
        Pools::of(self.slices)
    }

    fn slice(&mut self, slice: &wire::Slice<'_>) -> Result<Slice, serde_json::Error> {
        let spec = &slice.spec;
        let driver = self.texts.text(&spec.driver);
        let devices = spec.devices.iter().flatten().map(|device| self.texts.device(device, &driver));
        let devices = devices.collect::<Result<Vec<Device>, _>>()?;
        let sets = spec.shared_counters.iter().flatten().map(|set| self.texts.counter_set(set));
        let counters = sets.collect::<Result<Vec<CounterSet>, _>>()?;
        Ok(Slice {
            name: slice.metadata.name.as_ref().into(),
            pool: self.texts.text(&spec.pool.name),
            generation: spec.pool.generation,
            count: spec.pool.resource_slice_count,
            scope: spec.scope(&mut |text| self.texts.text(text)),
            counters,
            driver,
            devices,
        })
    }
}

/// Values that were decoded before, by their JSON.
#[derive(Debug, Default)]
struct Texts {
    known: BTreeMap<Arc<str>, Arc<str>>,
    counters: BTreeMap<Box<str>, Arc<Counters>>,
    /// Names without a domain have that of the driver.
    of_drivers: BTreeMap<Arc<str>, Values>,
}

#[derive(Debug, Default)]
struct Values {
    attributes: BTreeMap<Box<str>, Arc<Attributes>>,
    capacity: BTreeMap<Box<str>, Arc<Vec<Capacity>>>,
}

impl Texts {
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        self.known.insert(Arc::clone(&new), Arc::clone(&new));
        new
    }

    fn device(&mut self, device: &wire::Device<'_>, driver: &Arc<str>) -> Result<Device, serde_json::Error> {
        let consumes = device.consumes_counters.iter().flatten().map(|consumption| {
            let counters = self.counters(consumption.counters.get())?;
            Ok(Consumption { set: self.text(&consumption.counter_set), counters })
        });
        let consumes = consumes.collect::<Result<Vec<Consumption>, serde_json::Error>>()?;
        let taints = device.taints.iter().flatten().map(|taint| self.taint(taint)).collect();
        Ok(Device {
            name: device.name.as_ref().into(),
            attributes: device
                .attributes
                .map_or_else(|| Ok(Arc::default()), |raw| self.attributes(raw.get(), driver))?,
            capacity: device.capacity.map_or_else(|| Ok(Arc::default()), |raw| self.capacity(raw.get(), driver))?,
            consumes,
            taints,
            is_shareable: device.allow_multiple_allocations.unwrap_or_default(),
            scope: device.scope(&mut |text| self.text(text)),
        })
    }

    fn attributes(&mut self, json: &str, driver: &Arc<str>) -> Result<Arc<Attributes>, serde_json::Error> {
        if let Some(known) = self.of_drivers.get(driver).and_then(|values| values.attributes.get(json)) {
            return Ok(Arc::clone(known));
        }
        let read = Arc::new(wire::attributes(json, driver, &mut |text| self.text(text))?);
        let values = self.of_drivers.entry(Arc::clone(driver)).or_default();
        values.attributes.insert(json.into(), Arc::clone(&read));
        Ok(read)
    }

    fn capacity(&mut self, json: &str, driver: &Arc<str>) -> Result<Arc<Vec<Capacity>>, serde_json::Error> {
        if let Some(known) = self.of_drivers.get(driver).and_then(|values| values.capacity.get(json)) {
            return Ok(Arc::clone(known));
        }
        let read = Arc::new(wire::capacity(json, driver, &mut |text| self.text(text))?);
        let values = self.of_drivers.entry(Arc::clone(driver)).or_default();
        values.capacity.insert(json.into(), Arc::clone(&read));
        Ok(read)
    }

    fn counters(&mut self, json: &str) -> Result<Arc<Counters>, serde_json::Error> {
        if let Some(known) = self.counters.get(json) {
            return Ok(Arc::clone(known));
        }
        let read = Arc::new(wire::counters(json, &mut |text| self.text(text))?);
        self.counters.insert(json.into(), Arc::clone(&read));
        Ok(read)
    }

    fn counter_set(&mut self, set: &wire::CounterSet<'_>) -> Result<CounterSet, serde_json::Error> {
        Ok(CounterSet { name: self.text(&set.name), counters: self.counters(set.counters.get())? })
    }

    fn taint(&mut self, taint: &wire::Taint<'_>) -> Taint {
        Taint {
            key: self.text(&taint.key),
            value: self.text(&taint.value),
            effect: taint.effect(),
            since: self.text(&taint.time_added),
        }
    }
}

impl wire::Spec<'_> {
    fn scope(&self, text: &mut dyn FnMut(&str) -> Arc<str>) -> Option<Scope> {
        wire::scope(self.node_name.as_deref(), self.all_nodes, self.node_selector.as_ref(), text)
    }
}

impl wire::Device<'_> {
    fn scope(&self, text: &mut dyn FnMut(&str) -> Arc<str>) -> Option<Scope> {
        wire::scope(self.node_name.as_deref(), self.all_nodes, self.node_selector.as_ref(), text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::device::Value;
    use crate::node::NodeFacts;
    use crate::pool::PoolFault;

    fn slice(driver: &str, pool: &str, generation: i64, count: i64, more: &Json) -> Json {
        let pool = json!({"name": pool, "generation": generation, "resourceSliceCount": count});
        let mut spec = json!({"driver": driver, "pool": pool});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"metadata": {"name": format!("{driver}-{generation}-{more}")}, "spec": spec})
    }

    fn read(slices: &[Json]) -> Pools {
        let mut reader = SliceReader::default();
        for slice in slices {
            let page = json!({"metadata": {"continue": "more"}, "items": [slice]}).to_string();
            assert_eq!(reader.add_page(page.as_bytes()).unwrap().as_deref(), Some("more"));
        }
        reader.pools()
    }

    #[test]
    fn a_pool_has_all_slices_of_its_newest_generation() {
        let on = |node: &str, devices: &[&str]| json!({"nodeName": node, "devices": devices.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()});
        let pools = read(&[
            slice("a", "n1", 1, 1, &on("n1", &["old"])),
            slice("a", "n1", 2, 2, &on("n1", &["d1"])),
            slice("a", "n1", 2, 2, &on("n1", &["d2"])),
            slice("a", "n2", 1, 3, &on("n2", &["d1"])),
            slice("a", "n3", 1, 1, &on("n3", &["d1", "d1"])),
        ]);
        let found: Vec<_> = pools.iter().map(|pool| (pool.devices().count(), pool.fault.clone())).collect();
        let incomplete = PoolFault::Incomplete { found: 1, expected: 3 };
        assert_eq!(found, [(2, None), (1, Some(incomplete)), (2, Some(PoolFault::Duplicate("d1".into())))]);
        let n1 = NodeFacts::unread("n1".into());
        let on_n1 = pools.on(&n1);
        assert_eq!(on_n1.iter().map(|pool| pool.name.as_ref()).collect::<Vec<_>>(), ["n1"]);
    }

    #[test]
    fn devices_of_the_network_are_on_every_node_that_is_selected() {
        let by_label = json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]});
        let own = json!([{"name": "d1", "nodeName": "n1"}, {"name": "d2", "allNodes": true}]);
        let pools = read(&[
            slice("a", "everywhere", 1, 1, &json!({"allNodes": true, "devices": [{"name": "d"}]})),
            slice("b", "some", 1, 1, &json!({"nodeSelector": by_label, "devices": [{"name": "d"}]})),
            slice("c", "each", 1, 1, &json!({"perDeviceNodeSelection": true, "devices": own})),
        ]);
        let devices = |node: &str| {
            let node = NodeFacts::unread(node.into());
            let found: Vec<String> = pools
                .on(&node)
                .iter()
                .flat_map(|pool| pool.devices_on(&node).map(|device| format!("{}/{}", pool.name, device.name)))
                .collect();
            found
        };
        assert_eq!(devices("n1"), ["everywhere/d", "some/d", "each/d1", "each/d2"]);
        assert_eq!(devices("n2"), ["everywhere/d", "each/d2"]);
    }

    #[test]
    fn equal_values_of_other_drivers_have_other_domains() {
        let device = json!([{"name": "d", "attributes": {"kind": {"string": "x"}, "o.example.com/n": {"int": 1}}, "capacity": {"memory": {"value": "1Gi"}}}]);
        let pools = read(&[
            slice("a.example.com", "n1", 1, 1, &json!({"nodeName": "n1", "devices": device})),
            slice("b.example.com", "n1", 1, 1, &json!({"nodeName": "n1", "devices": device})),
        ]);
        for pool in pools.iter() {
            let device = pool.devices().next().unwrap();
            assert_eq!(
                device.attributes.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>(),
                [format!("{}/kind", pool.driver), "o.example.com/n".to_owned()]
            );
            assert_eq!(device.attribute("o.example.com/n", &pool.driver), Some(&Value::Int(1)));
            assert_eq!(device.capacity("memory", &pool.driver).unwrap().value.to_string(), "1Gi");
        }
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for text in ["", "[]", r#"{"items": [{}]}"#, r#"{"items": [{"metadata": {}, "spec": {"driver": "a"}}]}"#] {
            assert!(SliceReader::default().add_page(text.as_bytes()).is_err(), "{text}");
        }
    }
}
