// SPDX-License-Identifier: Apache-2.0
//! What an allocation is tried with: the devices, what is in use, and the nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use dra_allocation::{Classes, Device, NodeFacts, Pool, Pools, Selectors, Usage};

use crate::access::Access;
use crate::reading;
use crate::request::{ReadError, Right};
use crate::subject::Subject;
use crate::why::{Seen, Why, why};

/// What is not seen without the DeviceTaintRules.
pub const NO_RULES: &str = "taints that administrators gave to devices are not considered";

/// The cluster, as far as its objects are readable.
#[derive(Debug, Default)]
pub struct Cluster {
    pub pools: Pools,
    pub usage: Usage,
    pub nodes: Vec<NodeFacts>,
    /// Rights that are missing, with what is not considered without them.
    pub notes: Vec<String>,
}

impl Cluster {
    pub async fn read(access: &Access) -> Result<Self, ReadError> {
        let (pools, usage, nodes) = futures::join!(
            reading::pools(&access.client, None),
            reading::usage(access),
            reading::nodes(&access.client),
        );
        let (pools, usage, mut nodes) = (pools?, usage?, nodes?);
        if !nodes.missing.is_empty() {
            nodes.found = pools.found.nodes().map(|name| NodeFacts::unread(Arc::clone(name))).collect();
        }
        let hidden = "devices that claims there hold are taken as free";
        let claims = usage.missing.iter().map(|right| unread(right, hidden));
        let labels = nodes.missing.iter().map(|right| unread(right, "labels and taints of nodes are not considered"));
        let taints = pools.missing.iter().map(|right| unread(right, NO_RULES));
        let missing = claims.chain(labels).chain(taints).collect();
        Ok(Self { pools: pools.found, usage: usage.found, nodes: nodes.found, notes: missing })
    }

    /// All of it, for a question.
    pub fn seen<'a>(&'a self, classes: &'a Classes) -> Seen<'a> {
        Seen { pools: &self.pools, usage: &self.usage, classes, nodes: &self.nodes }
    }

    /// Whether a claim of the subject asks for a class that a device of the driver belongs to.
    pub fn concerns(&self, driver: &str, classes: &Classes, subject: &Subject) -> bool {
        let selectors = Selectors::default();
        let is_of = |class: &str| {
            let Some(expressions) = classes.selectors(class) else { return false };
            let admits = |device: &Device| {
                let selects = |expression: &String| matches!(selectors.selects(expression, driver, device), Ok(true));
                expressions.iter().all(selects)
            };
            let pools = self.pools.iter().filter(|pool| *pool.driver == *driver);
            pools.flat_map(Pool::devices).any(admits)
        };
        let unallocated = subject.unallocated();
        let names = unallocated.iter().flat_map(|claim| &claim.requests).flat_map(|request| &request.asks);
        let names: BTreeSet<&str> = names.map(|ask| &*ask.class).collect();
        names.into_iter().any(is_of)
    }

    /// Answers for a subject.
    pub fn why(&self, classes: &Classes, subject: &Subject, mut incomplete: Vec<String>) -> Why {
        incomplete.extend(self.notes.iter().cloned());
        why(subject, self.seen(classes), incomplete)
    }
}

/// A right that is missing, and what is hidden without it.
pub fn unread(right: &Right, hidden: &str) -> String {
    format!("{right} is missing: {hidden}")
}
