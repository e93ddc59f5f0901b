// SPDX-License-Identifier: Apache-2.0
//! Installs the hook program, and removes copies that no base spec names any more.

use std::collections::BTreeSet;
use std::path::PathBuf;

use dra_cdi::{HookProgram, HookProgramError, Kind, SpecStoreError};

use crate::flows::report::{Problem, Reconciliation};
use crate::state::node::Node;

pub(super) fn reconcile(node: &Node, report: &mut Reconciliation) {
    let Some(hook) = &node.hook else { return };
    report.problems.extend(hook.ensure().err().map(|source| Problem::Hook { source }));
    match named_programs(node) {
        Ok(named) => match keep(hook, &named) {
            Ok(removed) => report.removed.extend(removed),
            Err(source) => report.problems.push(Problem::Hooks { source }),
        },
        Err(source) => report.problems.push(Problem::Specs { source }),
    }
}

/// Brings the copies into line with the specs, and returns those that were removed.
fn keep(hook: &HookProgram, named: &BTreeSet<PathBuf>) -> Result<Vec<PathBuf>, HookProgramError> {
    hook.restore(named)?;
    hook.remove_unused(named)
}

fn named_programs(node: &Node) -> Result<BTreeSet<PathBuf>, SpecStoreError> {
    let specs = node.specs.list()?.specs;
    let bases = specs.iter().filter(|kind| matches!(kind, Kind::Base(_)));
    bases.map(|kind| node.specs.hook_programs(kind)).try_fold(BTreeSet::new(), |mut named, programs| {
        named.extend(programs?);
        Ok(named)
    })
}
