// SPDX-License-Identifier: Apache-2.0
//! Rendered specs: golden text, loader rules, and what is refused.

use std::path::{Path, PathBuf};

use dra_cdi::{Architecture, ClaimDevice, MpsClient, Naming, RenderError, RenderedSpec, render};
use dra_model::Capability::{Compute, Display, Graphics, Ipc, Utility, Video};
use dra_model::{
    Bytes, Capabilities, Capability, ClaimUid, ControlNode, DeviceNode, DriverFile, DriverFiles, Place, PlacedFile,
    ShareLimits,
};
use proptest::prelude::*;

use crate::rules;

pub(crate) fn naming() -> Naming {
    Naming::new("gpu.nvidia.com")
}

pub(crate) fn uid() -> ClaimUid {
    "9f7c3f9e-3c7c-4b0e-8a53-0d6a1f4e2b11".parse().unwrap()
}

fn node(path: &str, root: &str, major: u32, minor: u32) -> DeviceNode {
    DeviceNode { path: path.to_owned(), host_path: PathBuf::from(format!("{root}{path}")), major, minor }
}

pub(crate) fn control_nodes(root: &str) -> Vec<ControlNode> {
    let control = |node, capabilities| ControlNode { node, capabilities };
    vec![
        control(node("/dev/nvidiactl", root, 195, 255), &Capability::ALL),
        control(node("/dev/nvidia-uvm", root, 510, 0), &Capability::ALL),
        control(node("/dev/nvidia-uvm-tools", root, 510, 1), &[Compute]),
        control(node("/dev/nvidia-modeset", root, 195, 254), &[Display]),
    ]
}

fn file(name: &str, host_path: &str, capabilities: &'static [Capability]) -> DriverFile {
    DriverFile { name: name.to_owned(), host_path: PathBuf::from(host_path), capabilities }
}

fn placed(place: Place, host_path: &str, capabilities: &'static [Capability]) -> PlacedFile {
    PlacedFile { place, host_path: PathBuf::from(host_path), capabilities }
}

/// One file of each kind and for each capability.
pub(crate) fn driver_files() -> DriverFiles {
    let library = |soname: &str, file_name: &str, capabilities| {
        file(soname, &format!("/run/nvidia/driver/usr/lib/x86_64-linux-gnu/{file_name}"), capabilities)
    };
    let below = |root: &str, path: &str| format!("/run/nvidia/driver{root}/{path}");
    DriverFiles {
        version: "550.54.15".to_owned(),
        libraries: vec![
            library("libcuda.so.1", "libcuda.so.550.54.15", &[Compute]),
            library("libnvidia-allocator.so.1", "libnvidia-allocator.so.550.54.15", &[Compute, Graphics]),
            library("libnvidia-encode.so.1", "libnvidia-encode.so.550.54.15", &[Video]),
            library("libnvidia-glcore.so.550.54.15", "libnvidia-glcore.so.550.54.15", &[Graphics]),
            library("libnvidia-ml.so.1", "libnvidia-ml.so.550.54.15", &[Utility]),
        ],
        programs: vec![file("nvidia-smi", "/run/nvidia/driver/usr/bin/nvidia-smi", &[Utility])],
        others: vec![
            placed(
                Place::Libraries("vdpau/libvdpau_nvidia.so.1".to_owned()),
                &below("/usr/lib/x86_64-linux-gnu/vdpau", "libvdpau_nvidia.so.550.54.15"),
                &[Video],
            ),
            placed(
                Place::Path("/lib/firmware/nvidia/550.54.15/gsp_tu10x.bin".to_owned()),
                &below("/lib/firmware/nvidia/550.54.15", "gsp_tu10x.bin"),
                &Capability::ALL,
            ),
            placed(
                Place::Socket("/run/nvidia-persistenced/socket".to_owned()),
                &below("/run/nvidia-persistenced", "socket"),
                &[Ipc],
            ),
        ],
    }
}

pub(crate) fn gpu(minor: u32, root: &str) -> ClaimDevice {
    ClaimDevice {
        device: format!("gpu-0000000{minor}").parse().unwrap(),
        share: None,
        nodes: vec![node(&format!("/dev/nvidia{minor}"), root, 195, minor)],
        mps: None,
    }
}

pub(crate) fn share(id: &str, memory: Option<u64>, threads: Option<u64>) -> ClaimDevice {
    let threads = threads.map(|threads| threads.try_into().unwrap());
    let limits = ShareLimits { memory: memory.map(Bytes::from_mib), threads };
    let dir = PathBuf::from("/run/gpu-dra/mps/gpu-00000000111122223333444444444444");
    ClaimDevice {
        device: "gpu-00000000-mps".parse().unwrap(),
        share: Some(id.parse().unwrap()),
        mps: Some(MpsClient { run_dir: dir.join("run"), shm_dir: dir.join("shm"), limits }),
        ..gpu(0, "")
    }
}

pub(crate) fn mig() -> ClaimDevice {
    ClaimDevice {
        device: "gpu-00000003-mig-19-2".parse().unwrap(),
        nodes: vec![
            node("/dev/nvidia3", "", 195, 3),
            node("/dev/nvidia-caps/nvidia-cap30", "", 234, 30),
            node("/dev/nvidia-caps/nvidia-cap31", "", 234, 31),
        ],
        ..gpu(3, "")
    }
}

/// With line breaks, which the specs lack. `UPDATE_GOLDEN=1` writes the files.
fn check_golden(name: &str, spec: &RenderedSpec) {
    let found = serde_json::to_string_pretty(&rules::check(&spec.bytes)).unwrap() + "\n";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cdi/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(found, golden, "{name}");
}

#[test]
fn specs_are_the_golden_ones() {
    let hook = Path::new("/opt/gpu-dra/gpu-cdi-hook-0.1.0-0123456789abcdef");
    for (name, root, architecture, hook) in [
        ("base-x86.json", "", Architecture::X86, Some(hook)),
        ("base-arm-driver-root.json", "/run/nvidia/driver", Architecture::Arm, None),
    ] {
        let spec = render::base(&naming(), &driver_files(), &control_nodes(root), architecture, hook).unwrap();
        assert_eq!(naming().file_name(&spec.kind), "k8s.gpu.nvidia.com-base_550.54.15.json");
        check_golden(name, &spec);
    }
    for (name, devices) in [
        ("claim-gpu.json", vec![gpu(0, "")]),
        ("claim-two-gpus-driver-root.json", vec![gpu(0, "/run/nvidia/driver"), gpu(1, "/run/nvidia/driver")]),
        ("claim-mig.json", vec![mig()]),
        ("claim-mps-shares.json", vec![share("a", Some(8156), Some(10)), share("b", None, None)]),
    ] {
        let spec = render::claim(&naming(), &uid(), &devices).unwrap();
        assert_eq!(
            naming().file_name(&spec.kind),
            "k8s.gpu.nvidia.com-claim_9f7c3f9e-3c7c-4b0e-8a53-0d6a1f4e2b11.json"
        );
        check_golden(name, &spec);
    }
}

#[test]
fn the_names_for_the_kubelet_are_those_in_the_specs() {
    let base = render::base(&naming(), &driver_files(), &control_nodes(""), Architecture::X86, None).unwrap();
    let claim = render::claim(&naming(), &uid(), &[mig()]).unwrap();
    let shares = render::claim(&naming(), &uid(), &[share("a", None, None), share("b", None, None)]).unwrap();
    for (spec, expect) in [
        (base, naming().base_devices("550.54.15", &Capabilities::default()).remove(0)),
        (claim, naming().claim_device(&uid(), &"gpu-00000003-mig-19-2".parse().unwrap(), None)),
        (shares, naming().claim_device(&uid(), &"gpu-00000000-mps".parse().unwrap(), Some(&"a".parse().unwrap()))),
    ] {
        let spec = rules::check(&spec.bytes);
        let found = format!("{}={}", spec["kind"].as_str().unwrap(), spec["devices"][0]["name"].as_str().unwrap());
        assert_eq!(found, expect);
    }
}

/// The container paths that a base device adds, those of the whole spec included.
#[allow(clippy::indexing_slicing, reason = "JSON of a spec that was checked")]
fn paths_of(capabilities: &[Capability]) -> Vec<String> {
    let base = render::base(&naming(), &driver_files(), &control_nodes(""), Architecture::X86, None).unwrap();
    let spec = rules::check(&base.bytes);
    let capabilities = Capabilities::of(capabilities.iter().copied()).unwrap();
    let names = naming().base_devices("550.54.15", &capabilities);
    let is_named = |device: &&serde_json::Value| {
        names.iter().any(|name| name.ends_with(&format!("={}", device["name"].as_str().unwrap())))
    };
    let devices: Vec<_> = spec["devices"].as_array().unwrap().iter().filter(is_named).collect();
    assert_eq!(devices.len(), names.len(), "{names:?}");
    let edits = devices.into_iter().chain([&spec]).map(|part| &part["containerEdits"]);
    let texts = edits.flat_map(|edits| {
        let paths = |list: &str, key: &str| -> Vec<String> {
            let list = edits[list].as_array().into_iter().flatten();
            list.map(|one| one[key].as_str().unwrap().to_owned()).collect()
        };
        [paths("mounts", "containerPath"), paths("deviceNodes", "path")].concat()
    });
    texts
        .filter(|path| !path.starts_with("/usr/lib64/"))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect()
}

const FOR_ALL: [&str; 3] = ["/dev/nvidia-uvm", "/dev/nvidiactl", "/lib/firmware/nvidia/550.54.15/gsp_tu10x.bin"];

#[test]
fn a_container_gets_what_its_capabilities_need() {
    let lib = |name: &str| format!("/usr/lib/x86_64-linux-gnu/{name}");
    let both = |soname: &str, real: &str| vec![lib(soname), lib(real)];
    let cuda =
        [both("libcuda.so.1", "libcuda.so.550.54.15"), vec![lib("libcuda.so"), "/dev/nvidia-uvm-tools".to_owned()]]
            .concat();
    let allocator = both("libnvidia-allocator.so.1", "libnvidia-allocator.so.550.54.15");
    let compute = [cuda, allocator.clone()].concat();
    let utility =
        [both("libnvidia-ml.so.1", "libnvidia-ml.so.550.54.15"), vec!["/usr/bin/nvidia-smi".to_owned()]].concat();
    let encode = both("libnvidia-encode.so.1", "libnvidia-encode.so.550.54.15");
    let video = [compute.clone(), encode, vec![lib("vdpau/libvdpau_nvidia.so.1")]].concat();
    let graphics = [allocator, vec![lib("gbm/nvidia-drm_gbm.so"), lib("libnvidia-glcore.so.550.54.15")]].concat();
    let display = [graphics.clone(), vec!["/dev/nvidia-modeset".to_owned()]].concat();
    for (capabilities, expect) in [
        (&[Compute, Utility][..], [compute, utility.clone()].concat()),
        (&[Utility], utility),
        (&[Video], video),
        (&[Graphics], graphics),
        (&[Display], display),
        (&[Ipc], vec!["/run/nvidia-persistenced/socket".to_owned()]),
        (&[Capability::Ngx], Vec::new()),
    ] {
        let mut expect: Vec<String> = expect.into_iter().chain(FOR_ALL.map(str::to_owned)).collect();
        expect.sort_unstable();
        assert_eq!(paths_of(capabilities), expect, "{capabilities:?}");
    }
}

/// Two KiB for a claim with a GPU of each kind.
#[test]
fn the_spec_of_a_claim_is_short() {
    let dri = |mut device: ClaimDevice| {
        device.nodes.extend([node("/dev/dri/card0", "", 226, 0), node("/dev/dri/renderD128", "", 226, 128)]);
        device
    };
    let devices = [dri(gpu(0, "/run/nvidia/driver")), mig(), share("a", Some(8156), Some(10))];
    let size = render::claim(&naming(), &uid(), &devices).unwrap().bytes.len();
    assert!(size <= 2048, "{size}");
}

#[test]
fn a_device_of_two_requests_is_rendered_once() {
    for device in [gpu(0, ""), share("a", Some(1), None)] {
        let once = render::claim(&naming(), &uid(), std::slice::from_ref(&device)).unwrap();
        assert_eq!(render::claim(&naming(), &uid(), &[device.clone(), device]).unwrap(), once);
    }
}

#[test]
fn a_claim_without_mps_sets_no_variable_that_another_claim_could_replace() {
    let spec = rules::check(&render::claim(&naming(), &uid(), &[gpu(0, ""), mig()]).unwrap().bytes);
    assert!(!spec.to_string().contains("\"env\""), "{spec}");
}

#[test]
fn a_spec_that_no_runtime_could_use_is_refused() {
    let base = |change: &dyn Fn(&mut DriverFiles)| {
        let mut files = driver_files();
        change(&mut files);
        render::base(&naming(), &files, &control_nodes(""), Architecture::X86, None).unwrap_err().to_string()
    };
    let claim = |devices: &[ClaimDevice]| render::claim(&naming(), &uid(), devices).unwrap_err().to_string();
    let nodeless = ClaimDevice { nodes: vec![], ..gpu(0, "") };
    let relative = ClaimDevice { nodes: vec![node("dev/nvidia0", "", 195, 0)], ..gpu(0, "") };
    let mps = MpsClient { run_dir: "run".into(), shm_dir: "/shm".into(), limits: ShareLimits::default() };
    let homeless = ClaimDevice { mps: Some(mps), ..gpu(0, "") };
    for (found, expect) in [
        (base(&|files| files.version = "550/54".to_owned()), "the driver version `550/54` has characters"),
        (base(&|files| files.libraries.clear()), "the base spec of driver 550.54.15 would be empty"),
        (base(&|files| files.programs[0].name = "../smi".to_owned()), "`../smi` is not a plain file name"),
        (
            base(&|files| files.others[1].place = Place::Path("/lib/../etc/passwd".to_owned())),
            "`..` is not a plain file name",
        ),
        (base(&|files| files.programs[0].host_path = PathBuf::from("smi")), "`smi` is not an absolute path"),
        (claim(&[]), "the spec of claim 9f7c3f9e-3c7c-4b0e-8a53-0d6a1f4e2b11 would be empty"),
        (claim(&[nodeless]), "9f7c3f9e-3c7c-4b0e-8a53-0d6a1f4e2b11-gpu-00000000 would be empty"),
        (claim(&[relative]), "`dev/nvidia0` is not an absolute path"),
        (claim(&[homeless]), "`run` is not an absolute path"),
    ] {
        assert!(found.starts_with(expect), "{found}");
    }
}

proptest! {
    #[test]
    fn every_rendered_spec_follows_the_rules_of_the_loaders(
        uid in "[0-9a-zA-Z]([0-9a-zA-Z-]{0,40}[0-9a-zA-Z])?", devices in prop::collection::vec("[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", 1..6),
        version in "[0-9]{1,3}(\\.[0-9]{1,3}){0,3}", libraries in prop::collection::btree_set("lib[a-z]{1,9}\\.so\\.[0-9]", 1..9),
        root in "(/[a-zA-Z0-9._-]{1,9}){0,3}", minor: u32, major in 1_u32..4096,
    ) {
        let nodes = || vec![node("/dev/nvidia9", &root, major, minor)];
        let devices: Vec<ClaimDevice> =
            devices.iter().map(|name| ClaimDevice { device: name.parse().unwrap(), nodes: nodes(), ..gpu(0, "") }).collect();
        rules::check(&render::claim(&naming(), &uid.parse().unwrap(), &devices).unwrap().bytes);
        let libraries = libraries.iter().map(|name| file(name, &format!("{root}/usr/lib/{name}"), &[Compute])).collect();
        let files = DriverFiles { version, libraries, ..driver_files() };
        let hook = Some(Path::new("/opt/gpu-dra/gpu-cdi-hook"));
        let spec = render::base(&naming(), &files, &control_nodes(&root), Architecture::X86, hook);
        rules::check(&spec.unwrap().bytes);
    }

    #[test]
    fn any_version_is_rendered_or_refused(version: String) {
        let files = DriverFiles { version: version.clone(), ..driver_files() };
        match render::base(&naming(), &files, &control_nodes(""), Architecture::X86, None) {
            Ok(spec) => { rules::check(&spec.bytes); }
            Err(error) => prop_assert!(matches!(error, RenderError::Version(refused) if refused == version)),
        }
    }
}
