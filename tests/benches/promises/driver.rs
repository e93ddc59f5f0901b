// SPDX-License-Identifier: Apache-2.0
//! How long it takes to find the files of a whole driver: those of Debian's packages, by a new process and by one that knows them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use dra_hardware::{Host, NvmlMachine, ProcessRoots, Roots};
use dra_tests::chart::cache_dir;

use crate::figures::{Figure, Samples, Unit};

const ROUNDS: u32 = 50;

pub(crate) fn measure() -> Vec<Figure> {
    let (mut first, mut again) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        let host = host();
        first.push(time_to_find(&host));
        again.push(time_to_find(&host));
    }
    let ms = |samples: &Samples| samples.p50().as_secs_f64() * 1000.0;
    vec![
        Figure::promised("finding the files of a whole driver, at start, p50", ms(&first), Unit::Milliseconds, 50.0),
        Figure::measured("finding them again, p50", ms(&again), Unit::Milliseconds),
    ]
}

fn time_to_find(host: &Host) -> std::time::Duration {
    let began = Instant::now();
    let files = host.driver_files().expect("`make setup` unpacks a driver");
    let took = began.elapsed();
    assert!(files.libraries.len() > 20, "the driver is complete");
    took
}

fn host() -> Host {
    let driver = cache_dir().join("nvidia-driver");
    let nothing = PathBuf::from("/nonexistent");
    let processes = ProcessRoots { proc: nothing.clone(), pod_logs: nothing.clone() };
    let roots =
        Roots { driver: driver.clone(), driver_on_host: driver, proc: nothing.clone(), sys: nothing, processes };
    Host::new(Arc::new(NvmlMachine::new(&roots.driver, &roots.proc)), roots)
}
