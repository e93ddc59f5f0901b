// SPDX-License-Identifier: Apache-2.0
//! Installs the hook program, and removes copies that no base spec names any more.

use std::collections::BTreeSet;

use dra_cdi::{Kind, SpecStoreError};

use crate::flows::report::{Problem, Reconciliation};
use crate::state::node::Node;

pub(super) fn reconcile(node: &Node, report: &mut Reconciliation) {
    let Some(hook) = &node.hook else { return };
    let ensured = hook.ensure().map(drop);
    let named = match named_programs(node) {
        Ok(named) => named,
        Err(source) => return report.problems.push(Problem::Specs { source }),
    };
    match hook.remove_unused(&named) {
        Ok(removed) => report.removed.extend(removed),
        Err(source) => report.problems.push(Problem::UnusedHooks { source }),
    }
    report.problems.extend(ensured.err().map(|source| Problem::Hook { source }));
}

fn named_programs(node: &Node) -> Result<BTreeSet<std::path::PathBuf>, SpecStoreError> {
    let specs = node.specs.list()?.specs;
    let bases = specs.iter().filter(|kind| matches!(kind, Kind::Base(_)));
    bases.map(|kind| node.specs.hook_programs(kind)).try_fold(BTreeSet::new(), |mut named, programs| {
        named.extend(programs?);
        Ok(named)
    })
}
