// SPDX-License-Identifier: Apache-2.0
//! The objects of the fake API server: plain values, one revision counter, and every change in order.
//!
//! In: requests that were already parsed. Out: the object as the server would answer it, or a [`Refusal`] with the code
//! and reason a real server has for it. No network, no clock beyond the creation time, no tasks.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::key::{Key, Resource};
use super::refusal::Refusal;
use super::validate;

#[derive(Debug, Clone)]
pub struct Change {
    pub revision: u64,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub kind: &'static str,
    pub key: Key,
    /// The object after the change, or as it was before it was deleted.
    pub object: Value,
}

/// What a delete insists on.
#[derive(Debug, Clone, Default)]
pub struct Preconditions {
    /// The UID the object must have.
    pub uid: Option<String>,
    /// The resource version the object must have.
    pub resource_version: Option<String>,
}

/// All objects.
#[derive(Debug, Default)]
pub struct Objects {
    revision: u64,
    present: BTreeMap<Key, Value>,
    changes: Vec<Change>,
    /// Fields of slices this server does not know, as an older one or one with gates off.
    pub dropped_fields: Vec<&'static str>,
}

impl Objects {
    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Result<Value, Refusal> {
        self.present.get(key).cloned().ok_or_else(|| Refusal::not_found(key))
    }

    /// All objects of a kind, by name.
    pub fn list(&self, resource: Resource) -> Vec<Value> {
        self.present.iter().filter(|(key, _)| key.resource == resource).map(|(_, object)| object.clone()).collect()
    }

    /// The changes after a revision.
    pub fn changes_after(&self, revision: u64) -> &[Change] {
        let known = self.changes.partition_point(|change| change.revision <= revision);
        &self.changes[known..]
    }

    /// Creates an object; `generateName` is completed.
    pub fn create(&mut self, resource: Resource, namespace: &str, object: Value) -> Result<Value, Refusal> {
        let (key, object) = self.new_object(resource, namespace, object)?;
        Ok(self.store("ADDED", key, object))
    }

    /// What creating an object would answer.
    pub fn tried(&self, resource: Resource, namespace: &str, object: Value) -> Result<Value, Refusal> {
        self.new_object(resource, namespace, object).map(|(_, object)| object)
    }

    fn new_object(&self, resource: Resource, namespace: &str, mut object: Value) -> Result<(Key, Value), Refusal> {
        if object["metadata"]["name"].is_null() {
            let base = text(&object["metadata"]["generateName"]);
            object["metadata"]["name"] = json!(format!("{base}{:05}", self.revision + 1));
        }
        let key = Key { resource, namespace: namespace.to_owned(), name: text(&object["metadata"]["name"]) };
        if self.present.contains_key(&key) {
            return Err(Refusal::new(409, "AlreadyExists", format!("\"{}\" already exists", key.name)));
        }
        let object = self.admit(&key, object, None)?;
        Ok((key, object))
    }

    /// Replaces an object. Without a change there is no new revision, as on a real server.
    pub fn update(&mut self, key: &Key, object: Value) -> Result<Value, Refusal> {
        let old = self.get(key)?;
        for (field, what) in [("resourceVersion", "resource version"), ("uid", "UID")] {
            let wanted = &object["metadata"][field];
            if !wanted.is_null() && *wanted != old["metadata"][field] {
                return Err(Refusal::conflict(key, what));
            }
        }
        let mut new = self.admit(key, object, Some(&old))?;
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if new == old {
            return Ok(old);
        }
        Ok(self.store("MODIFIED", key.clone(), new))
    }

    /// Deletes an object.
    pub fn delete(&mut self, key: &Key, wanted: &Preconditions) -> Result<Value, Refusal> {
        let old = self.get(key)?;
        for (field, wanted) in [("uid", &wanted.uid), ("resourceVersion", &wanted.resource_version)] {
            if wanted.as_ref().is_some_and(|wanted| old["metadata"][field] != **wanted) {
                return Err(Refusal::conflict(key, field));
            }
        }
        self.present.remove(key);
        self.revision += 1;
        let change = Change { revision: self.revision, kind: "DELETED", key: key.clone(), object: old.clone() };
        self.changes.push(change);
        Ok(old)
    }

    /// What the server does to every object before it keeps it.
    fn admit(&self, key: &Key, object: Value, old: Option<&Value>) -> Result<Value, Refusal> {
        let mut object = match key.resource {
            Resource::ResourceSlices => validate::slice(object, old, &self.dropped_fields)?,
            Resource::ResourceClaims => validate::claim(&object, old)?,
            Resource::Nodes | Resource::Events | Resource::Leases => object,
        };
        let metadata = &mut object["metadata"];
        match old {
            Some(old) => {
                metadata["uid"] = old["metadata"]["uid"].clone();
                metadata["creationTimestamp"] = old["metadata"]["creationTimestamp"].clone();
            }
            None if metadata["uid"].is_null() => metadata["uid"] = json!(uid(self.revision + 1)),
            None => {}
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        if !key.namespace.is_empty() {
            metadata["namespace"] = json!(key.namespace);
        }
        Ok(object)
    }

    fn store(&mut self, kind: &'static str, key: Key, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.present.insert(key.clone(), object.clone());
        self.changes.push(Change { revision: self.revision, kind, key, object: object.clone() });
        object
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn uid(revision: u64) -> String {
    format!("00000000-0000-4000-8000-{revision:012x}")
}
