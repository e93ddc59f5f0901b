// SPDX-License-Identifier: Apache-2.0
//! The driver on a real cluster, installed as users install it.
//!
//! Two clusters run side by side, since a case mostly waits. The cases of a cluster
//! run in order, one at a time; the uninstall is last. A case leaves its cluster as
//! it found it. `cargo test -p dra-tests --test e2e -- WORD` runs the cases whose
//! names contain the word.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test stops at the first surprise, and its runner prints"
)]

mod admission;
mod agreement;
mod arena;
mod case;
mod case_studies;
mod cdi;
mod claims;
mod classes;
mod device_plugin;
mod faults;
mod health;
mod hook;
mod import;
mod kubectl_gpu;
mod kueue;
mod mig;
mod migrate;
mod monitoring;
mod mps;
mod node_verbs;
mod paper;
mod pods;
mod publishing;
mod restarts;
mod runner;
mod scenes;
mod service;
mod sharing;
mod tenants;
mod uninstall;

use case::Case;
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == device_plugin::PLAY) {
        return device_plugin::play();
    }
    runner::run(&[what_gpus_do(), what_users_do()])
}

fn what_gpus_do() -> Vec<Case> {
    [
        scenes::cases(),
        publishing::cases(),
        admission::cases(),
        mps::cases(),
        sharing::cases(),
        classes::cases(),
        mig::cases(),
        health::cases(),
        faults::cases(),
        uninstall::cases(),
    ]
    .concat()
}

fn what_users_do() -> Vec<Case> {
    [
        restarts::cases(),
        claims::cases(),
        hook::cases(),
        cdi::cases(),
        import::cases(),
        kubectl_gpu::cases(),
        service::cases(),
        agreement::cases(),
        tenants::cases(),
        case_studies::cases(),
        kueue::cases(),
        node_verbs::cases(),
        migrate::cases(),
        monitoring::cases(),
    ]
    .concat()
}
