// SPDX-License-Identifier: Apache-2.0
//! The budget of evictions of a node: a fault of the whole node, or of its driver, must not end all of its pods at once.

use std::collections::{BTreeMap, BTreeSet};

use dra_model::{Effect, Finding, GpuUuid};

/// Weakens `NoExecute` to `NoSchedule` on GPUs beyond the budget of a node, and returns those GPUs. The GPUs that failed first keep
/// their place, so that a later fault changes no earlier eviction. At least one GPU is within the budget.
pub fn within_budget(findings: &mut BTreeMap<GpuUuid, Vec<Finding>>, gpus: usize, percent: usize) -> BTreeSet<GpuUuid> {
    let allowed = (gpus.saturating_mul(percent) / 100).max(1);
    let mut evicting: Vec<(u64, GpuUuid)> = findings
        .iter()
        .filter_map(|(gpu, findings)| {
            let since = findings.iter().filter(|one| one.effect == Effect::NoExecute).map(|one| one.since).min()?;
            Some((since, gpu.clone()))
        })
        .collect();
    evicting.sort();
    let held_back: BTreeSet<GpuUuid> = evicting.into_iter().skip(allowed).map(|(_, gpu)| gpu).collect();
    hold_back(findings, &held_back);
    held_back
}

/// The GPUs whose pods are evicted.
pub fn evicting(findings: &BTreeMap<GpuUuid, Vec<Finding>>) -> BTreeSet<GpuUuid> {
    let evicts = |all: &[Finding]| all.iter().any(|finding| finding.effect == Effect::NoExecute);
    findings.iter().filter(|(_, all)| evicts(all)).map(|(gpu, _)| gpu.clone()).collect()
}

/// Weakens `NoExecute` to `NoSchedule` on some GPUs.
pub fn hold_back(findings: &mut BTreeMap<GpuUuid, Vec<Finding>>, gpus: &BTreeSet<GpuUuid>) {
    for finding in findings.iter_mut().filter(|(gpu, _)| gpus.contains(*gpu)).flat_map(|(_, all)| all) {
        finding.effect = finding.effect.min(Effect::NoSchedule);
    }
}

#[cfg(test)]
mod tests {
    use dra_model::{Cause, Verdict};
    use proptest::prelude::*;

    use super::*;

    fn gpu(number: usize) -> GpuUuid {
        format!("GPU-{number:08x}-0000-0000-0000-000000000000").parse().unwrap()
    }

    fn finding(effect: Effect, since: u64) -> Finding {
        let (cause, verdict) = (Cause::GpuLost, Verdict::Unhealthy);
        Finding { cause, value: String::new(), effect, verdict, scope: None, message: String::new(), since }
    }

    #[test]
    fn the_first_gpus_are_evicted_and_the_others_only_get_no_new_claims() {
        let lost = |since| vec![finding(Effect::None, 0), finding(Effect::NoExecute, since)];
        let mut findings = BTreeMap::from([(gpu(0), lost(30)), (gpu(1), lost(10)), (gpu(2), lost(20))]);
        let held_back = within_budget(&mut findings, 8, 20);
        assert_eq!((evicting(&findings), held_back), ([gpu(1)].into(), [gpu(0), gpu(2)].into()));
        let effects: Vec<Effect> = findings[&gpu(0)].iter().map(|one| one.effect).collect();
        assert_eq!(effects, [Effect::None, Effect::NoSchedule]);
    }

    proptest! {
        #[test]
        fn nothing_is_evicted_beyond_the_budget_and_a_later_fault_takes_no_place(
            faults in prop::collection::vec((0_usize..16, 0_u64..50), 0..16), percent in 0_usize..=100,
        ) {
            let mut findings: BTreeMap<GpuUuid, Vec<Finding>> = BTreeMap::new();
            for (number, since) in faults {
                findings.entry(gpu(number)).or_insert_with(|| vec![finding(Effect::NoExecute, since)]);
            }
            let before = findings.clone();
            let held_back = within_budget(&mut findings, 16, percent);
            let allowed = (16 * percent / 100).max(1);
            prop_assert_eq!(evicting(&findings).len(), before.len().min(allowed));
            prop_assert_eq!(held_back.len() + evicting(&findings).len(), before.len());
            let mut more = before;
            more.entry(gpu(99)).or_insert_with(|| vec![finding(Effect::NoExecute, 60)]);
            within_budget(&mut more, 16, percent);
            prop_assert!(evicting(&more).is_superset(&evicting(&findings)));
        }
    }
}
