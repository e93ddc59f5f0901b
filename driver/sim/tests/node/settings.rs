// SPDX-License-Identifier: Apache-2.0
//! Compute mode and time-slice interval as the driver sets them, by NVML and by NVIDIA's nvidia-smi.

use std::path::Path;
use std::time::Duration;

use dra_hardware::{GpuError, Machine, MachineError, NvmlCode, NvmlMachine, ProgramError, Setting};
use dra_model::{ComputeMode, GpuUuid, Interval};
use dra_sim::state::{Fault, Setup};
use dra_sim::store::Store;
use dra_sim::{Code, Simulator, State, catalog};

use crate::node::{Node, install};

/// A node, and the same machine in this process.
struct Both {
    node: Node,
    library: NvmlMachine,
    sim: Simulator,
}

/// Of the second of two GPUs.
type Settings = (Result<Option<ComputeMode>, GpuError>, Result<Option<Interval>, GpuError>);

impl Both {
    fn new() -> Self {
        let node = Node::new("h100:2");
        let gpus = vec![catalog::model("h100").unwrap(); 2];
        let setup = Setup { seed: "test".to_owned(), gpus, driver_version: node.state().driver_version };
        Self { library: NvmlMachine::new(node.dir(), &node.path("proc")), sim: Simulator::new(&setup), node }
    }

    fn gpu(&self, index: usize) -> GpuUuid {
        self.node.state().gpus[index].uuid.parse().unwrap()
    }

    fn change(&self, change: impl Fn(&mut State)) {
        Store::new(self.node.dir()).update(|state| change(state)).unwrap();
        self.sim.poke(|state| change(state));
    }

    /// Lets calls about the second GPU answer with a code and do nothing.
    fn strike(&self, call: &str, code: Code) {
        let fault = Fault { call: call.to_owned(), gpu: Some(1), skip: 0, times: None, code };
        self.change(|state| state.faults.push(fault.clone()));
    }

    /// What both machines answer, which is one thing.
    #[track_caller]
    fn ask<T: PartialEq + std::fmt::Debug>(&self, ask: impl Fn(&dyn Machine, &GpuUuid) -> T) -> T {
        let answer = ask(&self.library, &self.gpu(1));
        assert_eq!(answer, ask(&self.sim, &self.gpu(1)));
        answer
    }

    #[track_caller]
    fn settings(&self) -> Settings {
        self.ask(|machine, gpu| (machine.compute_mode(gpu), machine.interval(gpu)))
    }

    #[track_caller]
    fn set_mode(&self, mode: ComputeMode) -> Result<(), GpuError> {
        self.ask(|machine, gpu| machine.set_compute_mode(gpu, mode))
    }

    #[track_caller]
    fn set_interval(&self, interval: Interval) -> Result<(), GpuError> {
        self.ask(|machine, gpu| machine.set_interval(gpu, interval))
    }
}

#[test]
fn a_setting_is_read_back_and_printed_by_nvidia_smi() {
    let both = Both::new();
    assert_eq!(both.settings(), (Ok(Some(ComputeMode::Default)), Ok(Some(Interval::Default))));
    let modes = [ComputeMode::ExclusiveProcess, ComputeMode::Prohibited, ComputeMode::Default, ComputeMode::Default];
    for (mode, interval) in
        modes.into_iter().zip([Interval::Short, Interval::Long, Interval::Medium, Interval::Default])
    {
        assert_eq!((both.set_mode(mode), both.set_interval(interval)), (Ok(()), Ok(())));
        assert_eq!(both.settings(), (Ok(Some(mode)), Ok(Some(interval))));
        let printed = both.node.smi(&["--query-gpu=compute_mode", "--format=csv,noheader"]).ok();
        assert_eq!(printed, format!("Default\n{mode}\n"));
        let printed = both.node.smi(&["compute-policy", "-l"]).ok();
        let words: Vec<&str> = printed.split_whitespace().filter(|word| word.parse::<Interval>().is_ok()).collect();
        assert_eq!(words, ["Default", &interval.to_string()], "{printed}");
    }
}

/// nvidia-smi looks at every GPU when it is given a UUID, and ends at the first that is lost.
#[test]
fn a_gpu_is_set_while_another_one_is_lost() {
    let both = Both::new();
    both.change(|state| state.lose_gpu(0).unwrap());
    assert_eq!(both.set_interval(Interval::Medium), Ok(()));
    assert_eq!(both.settings(), (Ok(Some(ComputeMode::Default)), Ok(Some(Interval::Medium))));
}

/// An exit code or `NVML_SUCCESS` does not prove that a setting was applied.
#[test]
fn a_setting_that_was_not_applied_is_noticed() {
    let both = Both::new();
    both.node.gpu_sim("fail", &["nvmlDeviceSetComputeMode", "--forgets", "--gpu", "1"]).ok();
    both.sim.poke(|state| state.faults = both.node.state().faults);
    both.strike("computePolicySet", Code::SUCCESS);
    let refused = [
        both.set_mode(ComputeMode::ExclusiveProcess).unwrap_err().to_string(),
        both.set_interval(Interval::Long).unwrap_err().to_string(),
    ];
    let gpu = both.gpu(1);
    assert_eq!(
        refused,
        [
            format!("compute mode of {gpu} was set to Exclusive_Process but reads back as Default"),
            format!("time-slice interval of {gpu} was set to Long but reads back as Default"),
        ]
    );
    assert_eq!(both.set_interval(Interval::Default), Ok(()));
}

#[test]
fn a_gpu_without_intervals_has_none_and_accepts_none() {
    let both = Both::new();
    both.strike("computePolicy*", Code::NOT_SUPPORTED);
    assert_eq!(both.settings(), (Ok(Some(ComputeMode::Default)), Ok(None)));
    let unsupported = GpuError::Unsupported { gpu: both.gpu(1), setting: Setting::Interval };
    assert_eq!(both.set_interval(Interval::Default), Err(unsupported));
}

/// The interval belongs to the driver and stays; the compute mode has no effect.
#[test]
fn a_gpu_in_mig_mode_has_no_compute_mode() {
    let both = Both::new();
    both.set_mode(ComputeMode::ExclusiveProcess).unwrap();
    both.set_interval(Interval::Short).unwrap();
    both.change(|state| assert_eq!(state.set_mig_mode(1, true), Ok(None)));
    assert_eq!(both.settings(), (Ok(None), Ok(Some(Interval::Short))));
    let unsupported = GpuError::Unsupported { gpu: both.gpu(1), setting: Setting::ComputeMode };
    assert_eq!(both.set_mode(ComputeMode::Default), Err(unsupported));
    assert_eq!(both.set_interval(Interval::Default), Ok(()));
}

#[test]
fn unknown_gpus_lost_gpus_and_unloaded_drivers_are_distinguished() {
    let both = Both::new();
    let unknown: GpuUuid = "GPU-00000000-0000-0000-0000-000000000000".parse().unwrap();
    let not_found = GpuError::NotFound { which: unknown.to_string() };
    assert_eq!(both.ask(|machine, _| machine.compute_mode(&unknown)), Err(not_found.clone()));
    assert_eq!(both.ask(|machine, _| machine.set_interval(&unknown, Interval::Long)), Err(not_found));
    both.change(|state| state.lose_gpu(1).unwrap());
    let is_lost = |error: GpuError| matches!(error, GpuError::Failed { code: NvmlCode(15), .. });
    assert!(both.set_mode(ComputeMode::Default).is_err_and(is_lost));
    assert!(both.set_interval(Interval::Default).is_err_and(is_lost));
    both.change(State::unload_driver);
    // The next call of a loaded library fails, and the library is then loaded again.
    both.library.driver().unwrap_err();
    let is_gone = |error: GpuError| {
        matches!(error, GpuError::Machine { source: MachineError::NotAnswering { code: NvmlCode(9), .. }, .. })
    };
    assert!(both.set_mode(ComputeMode::Default).is_err_and(is_gone));
    assert!(both.set_interval(Interval::Default).is_err_and(is_gone));
}

#[test]
fn the_output_of_a_failed_nvidia_smi_is_part_of_the_error() {
    let both = Both::new();
    both.strike("computePolicySet", Code::UNKNOWN);
    let error = both.library.set_interval(&both.gpu(1), Interval::Short).unwrap_err();
    let GpuError::Program { source, .. } = &error else { panic!("{error}") };
    assert_eq!(error.to_string(), format!("failed to read or set the time-slice interval of {}", both.gpu(1)));
    let output =
        "failed with exit status: 255 and printed `Failed to set timeslice policy with value Short for GPU 1 : Unknown";
    assert!(source.to_string().contains(output), "{source}");
    let smi_path = both.node.path("usr/bin/nvidia-smi");
    std::fs::remove_file(&smi_path).unwrap();
    let Err(GpuError::Program { source, .. }) = both.library.interval(&both.gpu(1)) else { panic!("it is gone") };
    let is_missing =
        matches!(&source, ProgramError::Missing { name, root, .. } if name == "nvidia-smi" && root == both.node.dir());
    assert!(is_missing, "{source}");
}

/// A container sees the driver of a host with another C library.
#[test]
fn the_c_library_of_the_driver_root_is_not_used() {
    let both = Both::new();
    std::fs::write(both.node.path("usr/lib/x86_64-linux-gnu/libc.so.6"), "of another system").unwrap();
    both.set_interval(Interval::Medium).unwrap();
    assert_eq!(both.settings().1, Ok(Some(Interval::Medium)));
}

#[test]
fn an_nvidia_smi_that_hangs_is_killed_and_leaves_nothing() {
    let both = Both::new();
    let (smi_path, pids_path) = (both.node.path("usr/bin/nvidia-smi"), both.node.path("pids"));
    let script = format!("#!/bin/sh\n/bin/sleep 3600 &\necho $$ $! >{}\nwait\n", pids_path.display());
    std::fs::write(both.node.path("script"), script).unwrap();
    install(&both.node.path("script"), &smi_path);
    let timeout = Duration::from_millis(500);
    let library = NvmlMachine::new(both.node.dir(), &both.node.path("proc")).with_program_timeout(timeout);
    let Err(GpuError::Program { source, .. }) = library.interval(&both.gpu(1)) else { panic!("it hangs") };
    assert_eq!(source, ProgramError::Hung { path: smi_path, timeout });
    for pid in std::fs::read_to_string(pids_path).unwrap().split_whitespace() {
        while is_running(pid) {
            std::thread::yield_now();
        }
    }
}

/// A zombie that is not reaped yet does not run.
fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}
