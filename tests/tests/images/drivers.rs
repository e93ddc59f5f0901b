// SPDX-License-Identifier: Apache-2.0
//! The libraries of NVIDIA's drivers, as Debian has them, in images of each layout.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use dra_cdi::{Architecture, Naming, render};
use dra_hardware::{Host, NvmlMachine, ProcessRoots, Roots};
use dra_model::{Capabilities, Capability, ControlNode, DeviceNode, DriverFiles};
use dra_tests::chart::cache_dir;
use dra_tests::programs::built;

use crate::image::{Image, Layout};
use crate::podman::Podman;

const DRIVERS: [&str; 3] = ["nvidia-driver-470", "nvidia-driver", "nvidia-driver-550"];

fn driver_files(name: &str) -> DriverFiles {
    let driver = cache_dir().join(name);
    assert!(driver.is_dir(), "no {}: run `make setup` first", driver.display());
    let nothing = driver.join("nothing");
    let processes = ProcessRoots { proc: nothing.clone(), pod_logs: nothing.clone() };
    let roots = Roots { driver_on_host: driver.clone(), driver, proc: nothing.clone(), sys: nothing, processes };
    let host = Host::new(Arc::new(NvmlMachine::new(&roots.driver, &roots.proc)), roots);
    host.driver_files().unwrap()
}

/// A spec with these files and a node of no GPU, and the names of its devices.
fn write_spec(cdi_dir: &Path, files: &DriverFiles) -> Vec<String> {
    let naming = Naming::new("gpu.nvidia.com");
    let node = DeviceNode { path: "/dev/no-gpu".to_owned(), host_path: "/dev/null".into(), major: 1, minor: 3 };
    let nodes = [ControlNode { node, capabilities: &Capability::ALL }];
    let spec = render::base(&naming, files, &nodes, Architecture::own(), Some(&built("gpu-cdi-hook"))).unwrap();
    fs::write(cdi_dir.join(naming.file_name(&spec.kind)), &spec.bytes).unwrap();
    naming.base_devices(&files.version, &Capabilities::default())
}

/// Without a GPU: 100 is `CUDA_ERROR_NO_DEVICE`, 9 is `NVML_ERROR_DRIVER_NOT_LOADED`.
#[test]
fn the_libraries_of_nvidia_load_in_every_image_and_report_no_device() {
    for name in DRIVERS {
        let cdi_dir = tempfile::tempdir().unwrap();
        let devices = write_spec(cdi_dir.path(), &driver_files(name));
        let podman = Podman { cdi_dir: cdi_dir.path(), device_dir: None, devices };
        for layout in Layout::all() {
            let answers = podman.answers(&Image::new(layout), &["--user=1000:1000"]);
            let ends = ["/libcuda.so.1 100", "/libnvidia-ml.so.1 9"];
            assert_eq!(answers.len(), ends.len(), "{name} in {layout:?}: {answers:?}");
            assert!(
                answers.iter().zip(ends).all(|(answer, end)| answer.ends_with(end)),
                "{name} in {layout:?}: {answers:?}"
            );
        }
    }
}
