// SPDX-License-Identifier: Apache-2.0
//! `gpu-sim status`: the machine as a table.

use std::fmt::Write as _;
use std::path::Path;

use dra_sim::State;
use dra_sim::state::{Driver, Gpu};
use dra_sim::store::Store;

use super::error::CliError;

pub(super) fn run(dir: &Path) -> Result<String, CliError> {
    let state = Store::new(dir).read().map_err(|source| CliError::Store { source })?;
    Ok(table(&state))
}

/// Writing to a String cannot fail, so results of `writeln!` are dropped.
fn table(state: &State) -> String {
    let driver = match state.driver {
        Driver::Loaded => "loaded",
        Driver::Unloaded => "unloaded",
    };
    let mut text = format!(
        "driver {} {driver}, boot {} ({}), generation {}, {} changes\n",
        state.driver_version, state.boots, state.boot_id, state.generation, state.effects
    );
    writeln!(
        text,
        "GPU  PCI           NUMA  MIG      COMPUTE            STATE  UUID                                      MODEL"
    )
    .ok();
    for (index, gpu) in state.gpus.iter().enumerate() {
        let name = gpu.model().map_or("?", |model| model.name.as_str());
        let condition = if gpu.lost { "lost" } else { "ok" };
        writeln!(
            text,
            "{index:<4} {:<13} {:<5} {:<8} {:<18} {condition:<6} {:<41} {name}",
            gpu.pci.address(),
            gpu.numa_node,
            mig_text(gpu),
            format!("{:?}", gpu.compute_mode),
            gpu.uuid
        )
        .ok();
        instances(&mut text, state, index, gpu);
    }
    rules(&mut text, state);
    text
}

fn mig_text(gpu: &Gpu) -> &'static str {
    match gpu.mig.map(|mig| (mig.current, mig.pending)) {
        None => "-",
        Some((false, false)) => "off",
        Some((true, true)) => "on",
        Some((false, true)) => "pending",
        Some((true, false)) => "leaving",
    }
}

fn instances(text: &mut String, state: &State, index: usize, gpu: &Gpu) {
    for (id, instance) in &gpu.instances {
        let profile = state.gpu_profile_by_id(index, instance.profile_id).ok();
        let name = profile.map_or("?", |profile| profile.name.as_str());
        let (start, size) = (instance.placement.start, instance.placement.size);
        writeln!(text, "     gi {id:<3} {name:<12} (id {}) at {start}:{size}", instance.profile_id).ok();
        for (compute_id, compute) in &instance.compute {
            let found = profile.and_then(|profile| {
                profile.compute_profile(compute.profile_id).map(|compute| profile.compute_name(compute))
            });
            writeln!(text, "       ci {compute_id} {:<12} {}", found.unwrap_or_default(), compute.uuid).ok();
        }
    }
}

fn rules(text: &mut String, state: &State) {
    let on = |gpu: Option<usize>| gpu.map_or_else(|| "any GPU".to_owned(), |gpu| format!("GPU {gpu}"));
    for delay in &state.delays {
        writeln!(text, "delay {} on {}: {} ms", delay.call, on(delay.gpu), delay.millis).ok();
    }
    for fault in &state.faults {
        let gpu = on(fault.gpu);
        let times = fault.times.map_or_else(|| "every call".to_owned(), |times| format!("{times} calls"));
        writeln!(text, "fault {} on {gpu}: {} after {} calls, {times}", fault.call, fault.code, fault.skip).ok();
    }
}
