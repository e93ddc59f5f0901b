// SPDX-License-Identifier: Apache-2.0
//! DeviceClasses: the CEL expressions of each, and the extended resource that it stands for (KEP-5004).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::node::Toleration;
use crate::request::{Ask, ClaimSpec, Count, RawSelector, Request};

/// The classes of a cluster by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Classes(BTreeMap<String, Class>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Class {
    selectors: Vec<String>,
    extended_resource: Option<String>,
}

/// A list of DeviceClasses that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to parse a list of DeviceClasses")]
pub struct ClassesError(#[source] serde_json::Error);

/// The name of an extended resource that every class has.
const IMPLICIT: &str = "deviceclass.resource.kubernetes.io/";

#[derive(Deserialize)]
struct ClassList {
    #[serde(default)]
    metadata: ListMeta,
    items: Vec<RawClass>,
}

#[derive(Default, Deserialize)]
struct ListMeta {
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct RawClass {
    metadata: Named,
    #[serde(default)]
    spec: ClassSpec,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClassSpec {
    selectors: Vec<RawSelector>,
    extended_resource_name: Option<String>,
}

impl Classes {
    /// Adds the classes of a list and returns the token of the next page, if there is one.
    pub fn add_page(&mut self, json: &[u8]) -> Result<Option<String>, ClassesError> {
        let list: ClassList = serde_json::from_slice(json).map_err(ClassesError)?;
        self.0.extend(list.items.into_iter().map(|class| {
            let selectors = class.spec.selectors.into_iter().filter_map(|selector| selector.cel);
            let selectors = selectors.map(|cel| cel.expression).collect();
            (class.metadata.name, Class { selectors, extended_resource: class.spec.extended_resource_name })
        }));
        Ok(list.metadata.next.filter(|next| !next.is_empty()))
    }

    /// The expressions of a class; absent if the class does not exist.
    pub fn selectors(&self, class: &str) -> Option<&[String]> {
        self.0.get(class).map(|class| class.selectors.as_slice())
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The claim that the scheduler makes for a pod with extended resources of classes; absent without them.
    pub fn claim_of_resources(&self, label: &str, resources: &[(String, usize)]) -> Option<ClaimSpec> {
        let requests = resources.iter().filter_map(|(resource, count)| {
            let class = self.class_of(resource)?;
            let ask = Ask {
                name: None,
                class: class.to_owned(),
                selectors: Vec::new(),
                count: Count::Exactly(*count),
                is_admin: false,
                tolerations: Vec::<Toleration>::new(),
                capacity: BTreeMap::new(),
            };
            Some(Request { name: resource.clone(), asks: vec![ask] })
        });
        let requests: Vec<Request> = requests.collect();
        (!requests.is_empty()).then(|| ClaimSpec { label: label.to_owned(), requests, constraints: Vec::new() })
    }

    fn class_of<'a>(&'a self, resource: &'a str) -> Option<&'a str> {
        let implicit = resource.strip_prefix(IMPLICIT).filter(|class| self.0.contains_key(*class));
        let named = || self.0.iter().find(|(_, class)| class.extended_resource.as_deref() == Some(resource));
        implicit.or_else(|| named().map(|(name, _)| name.as_str()))
    }
}
