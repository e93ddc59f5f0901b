// SPDX-License-Identifier: Apache-2.0
//! A claim when nothing fails, and the repairs that a repeat makes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;

use dra_model::{Claim, ClaimConfig, ConfigSource, LiveIdentity, config};
use serde_json::json;

use crate::machine::gpu_uuid;
use crate::node::{Node, VERSION, allocate, hardware_uuid, install_driver, share};

#[test]
fn a_whole_gpu_is_prepared_with_one_fetch_and_a_repeated_prepare_with_none() {
    let node = Node::new(2);
    let claim = allocate("a", &[("gpu", "gpu-00000001")]);
    let answer = node.prepare(&claim).unwrap();
    assert_eq!(answer.len(), 1);
    assert_eq!((answer[0].request.as_str(), hardware_uuid(&answer[0])), ("gpu", gpu_uuid(1)));
    assert_eq!(
        answer[0].cdi_ids,
        ["k8s.gpu.nvidia.com/claim=uid-a-gpu-00000001".to_owned(), format!("k8s.gpu.nvidia.com/base={VERSION}")]
    );
    assert_eq!(node.spec_nodes(&claim), [["/dev/nvidia1"]]);
    let effects = node.files.effects();
    assert_eq!(node.prepare(&claim).unwrap(), answer);
    assert_eq!(node.files.effects(), effects, "a repeat finds everything in place");
    assert_eq!(node.fetches.load(Ordering::SeqCst), 1);
    assert!(node.claim_locks().is_empty());
}

/// The capabilities are in the names of the record, so a repair needs no configuration.
#[test]
fn a_claim_gets_the_parts_of_the_driver_that_it_names() {
    let node = Node::new(2);
    draw_drm(node.dir.path(), &["0000:01:00.0", "0000:02:00.0"]);
    let (base, dri) = (format!("k8s.gpu.nvidia.com/base={VERSION}"), ["/dev/dri/card1", "/dev/dri/renderD129"]);
    for (name, capabilities, expect_base, expect_nodes) in [
        ("a", &["compute", "utility"][..], vec![base.clone()], [vec!["/dev/nvidia1"]]),
        ("b", &["utility"], vec![format!("{base}-utility")], [vec!["/dev/nvidia1"]]),
        (
            "c",
            &["display", "compute", "utility"],
            vec![format!("{base}-display"), format!("{base}-graphics"), base.clone()],
            [[&["/dev/nvidia1"][..], &dri].concat()],
        ),
    ] {
        let claim = request_capabilities(allocate(name, &[("gpu", "gpu-00000001")]), capabilities);
        let answer = node.prepare(&claim).unwrap();
        assert_eq!(answer[0].cdi_ids[1..], expect_base, "{capabilities:?}");
        assert_eq!(node.spec_nodes(&claim), expect_nodes, "{capabilities:?}");
        std::fs::remove_dir_all(node.cdi_dir()).unwrap();
        assert_eq!(node.prepare(&Claim { configs: Vec::new(), ..claim.clone() }).unwrap(), answer, "{capabilities:?}");
        assert_eq!(node.spec_nodes(&claim), expect_nodes, "{capabilities:?}");
        node.engine.unprepare(&claim.reference).unwrap();
    }
}

#[test]
fn a_driver_of_another_version_has_the_same_parts() {
    let node = Node::new(1);
    let claim = request_capabilities(allocate("a", &[("gpu", "gpu-00000000")]), &["video"]);
    node.prepare(&claim).unwrap();
    install_driver(node.dir.path(), "560.35.3");
    let bases = ["k8s.gpu.nvidia.com/base=560.35.3-video", "k8s.gpu.nvidia.com/base=560.35.3-compute"];
    assert_eq!(node.prepare(&claim).unwrap()[0].cdi_ids[1..], bases);
}

/// A MIG device draws nothing, whatever its claim names.
#[test]
fn a_mig_device_has_no_dri_nodes() {
    let node = Node::new(1);
    draw_drm(node.dir.path(), &["0000:01:00.0"]);
    node.machine.cut(0, &[0], 0);
    node.redraw();
    let claim = allocate("a", &[("mig", "gpu-00000000-mig-19-0")]);
    let parameters = json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "MigDeviceConfig", "driverCapabilities": ["graphics"]});
    let parameters = config::parse(&parameters);
    let configs = vec![ClaimConfig { source: ConfigSource::Class, index: 0, requests: Vec::new(), parameters }];
    let claim = Claim { configs, ..claim };
    let answer = node.prepare(&claim).unwrap();
    assert_eq!(answer[0].cdi_ids[1..], [format!("k8s.gpu.nvidia.com/base={VERSION}-graphics")]);
    let nodes = node.spec_nodes(&claim);
    assert!(nodes[0].len() == 3 && nodes[0].iter().all(|path| path.starts_with("/dev/nvidia")), "{nodes:?}");
}

#[test]
fn the_sockets_of_daemons_are_given_by_a_class_only() {
    let node = Node::new(1);
    let mut claim = request_capabilities(allocate("a", &[("gpu", "gpu-00000000")]), &["compute", "ipc"]);
    let refused = dra_model::explain(&node.prepare(&claim).unwrap_err());
    assert!(refused.contains("`ipc`, which only a DeviceClass gives; remove it, or use a class"), "{refused}");
    claim.configs[0].source = ConfigSource::Class;
    let ids = &node.prepare(&claim).unwrap()[0].cdi_ids;
    assert!(ids.contains(&format!("k8s.gpu.nvidia.com/base={VERSION}-ipc")), "{ids:?}");
}

fn request_capabilities(claim: Claim, capabilities: &[&str]) -> Claim {
    let parameters =
        json!({"apiVersion": "resource.nvidia.com/v1beta1", "kind": "GpuConfig", "driverCapabilities": capabilities});
    let parameters = config::parse(&parameters);
    let configs = vec![ClaimConfig { source: ConfigSource::Claim, index: 0, requests: Vec::new(), parameters }];
    Claim { configs, ..claim }
}

/// Each GPU with a card and a render node, as the module `nvidia-drm` makes them.
fn draw_drm(dir: &Path, gpus: &[&str]) {
    for (at, pci) in gpus.iter().enumerate() {
        for (name, minor) in [(format!("card{at}"), at), (format!("renderD{}", 128 + at), 128 + at)] {
            let dir = dir.join("sys/bus/pci/devices").join(pci).join("drm").join(name);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("dev"), format!("226:{minor}\n")).unwrap();
        }
    }
}

/// One durable record (write, rename, fsync of the directory), one spec (write, rename), one mark.
#[test]
fn a_plain_claim_has_six_effects_and_its_unprepare_has_three() {
    let node = Node::new(2);
    let first = allocate("first", &[("gpu", "gpu-00000000")]);
    node.prepare(&first).unwrap();
    let claim = allocate("a", &[("gpu", "gpu-00000001")]);
    let before = node.files.effects();
    node.prepare(&claim).unwrap();
    let prepared = node.files.effects();
    node.engine.unprepare(&claim.reference).unwrap();
    assert_eq!((prepared - before, node.files.effects() - prepared), (6, 3));
}

#[test]
fn unprepare_leaves_nothing_and_needs_neither_driver_nor_api_server() {
    let mut node = Node::new(1);
    let claim = allocate("a", &[("gpu", "gpu-00000000")]);
    node.prepare(&claim).unwrap();
    node.machine.set_driver_loaded(false);
    std::fs::remove_dir_all(node.dir.path().join("proc")).unwrap();
    std::fs::remove_dir_all(node.dir.path().join("usr")).unwrap();
    node.restart();
    for _ in 0..2 {
        node.engine.unprepare(&claim.reference).unwrap();
        assert_eq!(node.names("claims"), [""; 0]);
        assert_eq!(node.names("cdi"), ["k8s.gpu.nvidia.com-base_550.54.15.json"]);
    }
}

#[test]
fn a_mig_claim_gets_its_gpu_and_its_own_two_capabilities() {
    let node = Node::new(1);
    node.machine.cut(0, &[0, 4], 1);
    node.redraw();
    let claim = allocate("a", &[("mig", "gpu-00000000-mig-19-4")]);
    let answer = node.prepare(&claim).unwrap();
    let LiveIdentity::Mig { identity, ids, profile } = &answer[0].identity else { panic!() };
    assert_eq!((&identity.parent, ids.gpu_instance, profile.as_str()), (&gpu_uuid(0), 9, "1g.10gb"));
    let caps = ["/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap81", "/dev/nvidia-caps/nvidia-cap82"];
    assert_eq!(node.spec_nodes(&claim), [caps]);
}

#[test]
fn several_requests_counts_and_alternatives_are_answered_by_their_base_request() {
    let node = Node::new(4);
    node.machine.cut(3, &[2], 1);
    node.redraw();
    let devices = [
        ("pair", "gpu-00000002"),
        ("pair", "gpu-00000000"),
        ("either/big", "gpu-00000001"),
        ("small/mig", "gpu-00000003-mig-19-2"),
    ];
    let claim = allocate("a", &devices);
    let answer = node.prepare(&claim).unwrap();
    let reported: Vec<(&str, &str)> =
        answer.iter().map(|device| (device.request.as_str(), device.device.as_str())).collect();
    assert_eq!(
        reported,
        [
            ("pair", "gpu-00000002"),
            ("pair", "gpu-00000000"),
            ("either", "gpu-00000001"),
            ("small", "gpu-00000003-mig-19-2")
        ]
    );
}

#[test]
fn admin_access_takes_nothing_and_may_name_a_device_twice() {
    let node = Node::new(1);
    let user = allocate("user", &[("gpu", "gpu-00000000")]);
    let mut admin = allocate("admin", &[("one", "gpu-00000000"), ("two", "gpu-00000000")]);
    for device in &mut admin.devices {
        device.admin_access = true;
    }
    let answer = node.prepare(&admin).unwrap();
    assert!(answer.iter().all(|device| device.admin_access));
    assert_eq!(answer[0].cdi_ids, answer[1].cdi_ids);
    assert_eq!(node.spec_nodes(&admin).len(), 1);
    node.prepare(&user).unwrap();
    node.engine.unprepare(&admin.reference).unwrap();
    assert_eq!(node.spec_nodes(&user), [["/dev/nvidia0"]]);
}

/// The kubelet takes the first id for the identity of a device. A record has the base first, as versions of before wrote it
/// and the one beside this one during an upgrade does.
#[test]
fn each_device_of_a_claim_has_an_id_of_its_own_first() {
    let mut node = Node::new(3);
    node.machine.cut(1, &[0, 3], 0);
    node.redraw();
    let migs = [("mig", "gpu-00000001-mig-19-0"), ("mig", "gpu-00000001-mig-19-3")];
    let mut claim = allocate("a", &[&[("gpu", "gpu-00000000")], &migs[..]].concat());
    claim.devices.extend(["s1", "s2"].map(|id| share("shares", "gpu-00000002-ts", id, 1024, None)));
    let answer = node.prepare(&claim).unwrap();
    let first: BTreeSet<&str> = answer.iter().map(|device| device.cdi_ids[0].as_str()).collect();
    assert_eq!(first.len(), 5, "{first:?}");
    assert!(first.iter().all(|id| id.starts_with("k8s.gpu.nvidia.com/claim=uid-a-")), "{first:?}");
    let record = std::fs::read_to_string(node.state_dir().join("claims/uid-a.json")).unwrap();
    assert!(record.find("com/base=").unwrap() < record.find("com/claim=").unwrap(), "{record}");
    node.restart();
    assert_eq!(node.prepare(&claim).unwrap(), answer);
}

#[test]
fn a_repeated_prepare_restores_removed_and_changed_specs() {
    let mut node = Node::new(1);
    let claim = allocate("a", &[("gpu", "gpu-00000000")]);
    let answer = node.prepare(&claim).unwrap();
    let good: Vec<(String, Vec<u8>)> = specs(&node);
    for spoil in [None, Some("{"), Some("")] {
        for (name, _) in &good {
            let path = node.cdi_dir().join(name);
            spoil.map_or_else(|| std::fs::remove_file(&path), |bytes| std::fs::write(&path, bytes)).unwrap();
        }
        node.restart();
        assert_eq!(node.prepare(&claim).unwrap(), answer);
        assert_eq!(specs(&node), good);
    }
    assert_eq!(node.fetches.load(Ordering::SeqCst), 1);
}

fn specs(node: &Node) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| (name.clone(), std::fs::read(node.cdi_dir().join(name)).unwrap());
    node.names("cdi").into_iter().map(read).collect()
}

#[test]
fn a_repeated_prepare_returns_the_new_identity_of_a_mig_device_that_was_created_again() {
    let mut node = Node::new(1);
    node.machine.cut(0, &[0], 1);
    node.redraw();
    let claim = allocate("a", &[("mig", "gpu-00000000-mig-19-0")]);
    let before = node.prepare(&claim).unwrap();
    node.machine.cut(0, &[0], 2);
    node.redraw();
    let after = node.prepare(&claim).unwrap();
    assert_ne!(before[0].identity, after[0].identity);
    assert_eq!(before[0].cdi_ids, after[0].cdi_ids);
    assert_eq!(node.spec_nodes(&claim)[0][1], "/dev/nvidia-caps/nvidia-cap81");
    node.restart();
    assert_eq!(node.prepare(&claim).unwrap(), after);
    assert_eq!(node.fetches.load(Ordering::SeqCst), 1);
}

#[test]
fn after_a_reboot_everything_is_built_anew() {
    let mut node = Node::new(2);
    node.machine.cut(1, &[0, 3], 0);
    node.redraw();
    let claim = allocate("a", &[("gpu", "gpu-00000000"), ("mig", "gpu-00000001-mig-19-3")]);
    let before = node.prepare(&claim).unwrap();
    node.reboot();
    assert!(node.names("cdi").is_empty());
    let after = node.prepare(&claim).unwrap();
    assert_eq!(after[0], before[0]);
    assert_ne!(after[1].identity, before[1].identity);
    assert_eq!(node.names("cdi").len(), 2);
    assert_eq!(node.fetches.load(Ordering::SeqCst), 2, "a claim of another boot is fetched again");
}

#[test]
fn after_a_driver_upgrade_a_repeated_prepare_returns_a_new_base_spec() {
    let node = Node::new(1);
    let claim = allocate("a", &[("gpu", "gpu-00000000")]);
    node.prepare(&claim).unwrap();
    install_driver(node.dir.path(), "560.35.3");
    assert_eq!(node.prepare(&claim).unwrap()[0].cdi_ids[1], "k8s.gpu.nvidia.com/base=560.35.3");
    let bases: Vec<String> = node.names("cdi").into_iter().filter(|name| name.contains("base")).collect();
    assert_eq!(bases.len(), 2, "containers of the claim may still be started with the old one");
}

#[test]
fn a_device_that_appeared_after_the_last_discovery_is_found() {
    let node = Node::new(1);
    let whole = allocate("whole", &[("gpu", "gpu-00000000")]);
    node.prepare(&whole).unwrap();
    node.engine.unprepare(&whole.reference).unwrap();
    node.machine.cut(0, &[5], 1);
    node.redraw();
    let claim = allocate("a", &[("mig", "gpu-00000000-mig-19-5")]);
    node.prepare(&claim).unwrap();
}
