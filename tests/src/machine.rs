// SPDX-License-Identifier: Apache-2.0
//! The simulated GPUs of one node: the tree that `gpu-sim init` makes, and what can happen to it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dra_sim::state::{Delay, Fault};
use dra_sim::store::Store;
use dra_sim::tree::{self, driver_files};
use dra_sim::{Code, Setup, State, catalog};

use crate::programs::built;

/// Of every machine here.
const DRIVER_VERSION: &str = "580.95.05";

/// A machine in a directory, which is its driver root.
#[derive(Debug)]
pub struct Gpus {
    dir: PathBuf,
    store: Store,
}

impl Gpus {
    /// A machine with boards such as `h100:8,t4:2`, all identities derived from the seed.
    pub fn create(dir: &Path, boards: &str, seed: &str) -> Self {
        let model_gpus = |part: &str| {
            let (name, count) = part.split_once(':').unwrap_or((part, "1"));
            let model = catalog::model(name).expect("a model of the catalog");
            std::iter::repeat_n(model, count.parse().expect("a number of boards"))
        };
        let gpus = boards.split(',').flat_map(model_gpus).collect();
        driver_files::install(dir, &built("libnvidia_ml.so"), DRIVER_VERSION, None).expect("a fresh directory");
        install_program(&dir.join("usr/bin/nvidia-smi"));
        let setup = Setup { seed: seed.to_owned(), gpus, driver_version: DRIVER_VERSION.to_owned() };
        let mut state = State::new(&setup);
        state.tree_dir = Some(dir.to_owned());
        let store = Store::new(dir);
        store.create(&state).expect("a fresh directory");
        tree::draw(dir, &state).expect("a fresh directory");
        Self { dir: dir.to_owned(), store }
    }

    /// Installs NVIDIA's own programs, as a Debian package has them, and returns their names.
    pub fn install_programs(&self, package_dir: &Path) -> Vec<&'static str> {
        let library_path = built("libnvidia_ml.so");
        driver_files::install(&self.dir, &library_path, DRIVER_VERSION, Some(package_dir)).expect("a tree of our own")
    }

    /// The driver root.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How the machine is now.
    pub fn state(&self) -> Arc<State> {
        self.store.read().expect("the machine is there")
    }

    /// Lets something happen to the machine.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T, Code>) -> T {
        self.store.update(change).expect("the machine is there").expect("the machine can do that")
    }

    /// The name under which a GPU is published.
    pub fn name(&self, gpu: usize) -> String {
        format!("gpu-{}", &self.state().gpus[gpu].uuid["GPU-".len()..][..8])
    }

    /// The node of a GPU in a container.
    pub fn node(&self, gpu: usize) -> String {
        format!("/dev/nvidia{}", self.state().gpus[gpu].minor)
    }

    /// Makes a MIG device as an administrator does, switching MIG on, and returns the name it is published under.
    pub fn cut(&self, gpu: usize, profile: &str) -> String {
        let (id, start) = self.change(|state| {
            if !state.mig_mode(gpu)?.current {
                state.set_mig_mode(gpu, true)?;
                state.reset_gpu(gpu)?;
            }
            let profiles = (0..32).filter_map(|kind| state.gpu_profile(gpu, kind).ok());
            let profile = profiles.into_iter().find(|found| found.name == profile).ok_or(Code::NOT_FOUND)?;
            let instance = state.create_gpu_instance(gpu, profile.id, None)?;
            let whole =
                profile.compute.iter().find(|compute| compute.slices == profile.slices).ok_or(Code::NOT_FOUND)?;
            state.create_compute_instance(instance, whole.id, None)?;
            Ok((profile.id, state.gpu_instance(instance)?.placement.start))
        });
        format!("{}-mig-{id}-{start}", self.name(gpu))
    }

    /// Turns MIG mode on without any instance.
    pub fn turn_mig_on(&self, gpu: usize) {
        self.change(|state| {
            state.set_mig_mode(gpu, true)?;
            state.reset_gpu(gpu)
        });
    }

    /// Lets calls of a name, or `prefix*`, fail with an NVML code, for one GPU.
    pub fn fail(&self, call: &str, code: u32, gpu: usize) {
        let fault = Fault { call: call.to_owned(), gpu: Some(gpu), skip: 0, times: None, code: Code(code) };
        self.change(|state| {
            state.faults.push(fault);
            Ok(())
        });
    }

    /// Makes calls of a name, or `prefix*`, take that long, for one GPU.
    pub fn delay(&self, call: &str, millis: u64, gpu: usize) {
        let delay = Delay { call: call.to_owned(), gpu: Some(gpu), millis };
        self.change(|state| {
            state.delays.push(delay);
            Ok(())
        });
    }

    /// Ends all faults and delays.
    pub fn heal(&self) {
        self.change(|state| {
            state.faults.clear();
            state.delays.clear();
            Ok(())
        });
    }

    /// Unloads the kernel's driver.
    pub fn unload_driver(&self) {
        self.change(|state| {
            state.unload_driver();
            Ok(())
        });
        self.redraw();
    }

    /// Loads the kernel's driver again.
    pub fn load_driver(&self) {
        self.change(|state| {
            state.load_driver(None);
            Ok(())
        });
        self.redraw();
    }

    /// Starts the machine anew; what its processes did is the caller's to end.
    pub fn reboot(&self) {
        self.change(|state| {
            state.reboot();
            Ok(())
        });
        self.redraw();
    }

    /// Takes the user-space driver away, as on a node before its installation.
    pub fn uninstall(&self) {
        fs::rename(self.dir.join("usr"), self.dir.join("usr.away")).expect("an installed driver");
    }

    /// Puts it back.
    pub fn install(&self) {
        fs::rename(self.dir.join("usr.away"), self.dir.join("usr")).expect("an uninstalled driver");
    }

    fn redraw(&self) {
        tree::redraw_driver(&self.dir, &self.state()).expect("the tree is writable");
    }
}

/// In place of the program of NVIDIA, which containers get and no test runs.
fn install_program(path: &Path) {
    fs::create_dir_all(path.parent().expect("a file below the driver root")).expect("a fresh directory");
    fs::write(path, "#!/bin/sh\nexit 9\n").expect("a fresh directory");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("an own file");
}
