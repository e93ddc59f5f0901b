// SPDX-License-Identifier: Apache-2.0
//! The spec directory: repaired when it is not what it should be, and left alone where it is not ours.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use dra_cdi::{Ensured, Kind, Naming, RenderedSpec, SpecStore, SpecStoreError};
use dra_files::faults::{Fault, FaultyFiles};
use dra_files::{Files as _, HostFiles};
use rustix::io::Errno;

use crate::render::uid;

struct Setup {
    dir: tempfile::TempDir,
    files: Arc<FaultyFiles>,
    store: SpecStore,
}

fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let files = Arc::new(FaultyFiles::default());
    let naming = Naming::new("gpu.nvidia.com");
    let store = SpecStore::new(Arc::<FaultyFiles>::clone(&files), dir.path().join("cdi"), naming);
    Setup { dir, files, store }
}

fn spec(text: &str) -> RenderedSpec {
    let bytes = format!("{{\"kind\":\"k8s.gpu.nvidia.com/claim\",\"x\":\"{text}\"}}").into_bytes();
    RenderedSpec { kind: Kind::Claim(uid()), bytes }
}

fn names(setup: &Setup) -> Vec<String> {
    let entries = std::fs::read_dir(setup.dir.path().join("cdi")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_devices_of_a_spec_are_found_even_in_a_damaged_one() {
    let setup = setup();
    assert!(setup.store.devices_of(&uid()).unwrap().is_empty());
    let text = format!(
        "{{\"devices\": [{{\"name\": \"{0}-gpu-1\"}}, {{\"name\":\"{0}-gpu-3-mps-s1\"}}, {{\"name\":\"{0}-gpu-2-mig-9-4\"",
        uid()
    );
    setup.store.make_dir().unwrap();
    std::fs::write(setup.store.path(&Kind::Claim(uid())), text).unwrap();
    let names = setup.store.devices_of(&uid()).unwrap();
    assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), ["gpu-1", "gpu-3-mps", "gpu-2-mig-9-4"]);
}

#[test]
fn a_base_spec_is_read_once_and_repaired_after_a_change_of_the_same_length() {
    let setup = setup();
    let base = |text: &str| RenderedSpec {
        kind: Kind::Base("580.95.05".to_owned()),
        bytes: format!("{{\"kind\":\"k8s.gpu.nvidia.com/base\",\"x\":\"{text}\"}}").into_bytes(),
    };
    let path = setup.store.path(&base("a").kind);
    let until_old = || {
        while HostFiles.version(&path).unwrap().is_none() {
            std::thread::yield_now();
        }
    };
    let ensure = |text: &str| setup.store.ensure(&base(text), &uid()).unwrap();
    assert_eq!(ensure("a"), Ensured::Created);
    until_old();
    assert_eq!(ensure("a"), Ensured::Unchanged);
    let reads = setup.files.reads();
    assert_eq!((ensure("a"), setup.files.reads()), (Ensured::Unchanged, reads));
    std::fs::write(&path, base("b").bytes).unwrap();
    assert_eq!(ensure("a"), Ensured::Replaced, "at once");
    std::fs::write(&path, base("b").bytes).unwrap();
    until_old();
    assert_eq!(ensure("b"), Ensured::Unchanged);
    assert_eq!(ensure("a"), Ensured::Replaced, "another spec in the same version of the file");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(ensure("a"), Ensured::Created);
}

#[test]
fn a_spec_is_written_once_and_repaired_after_a_foreign_change() {
    let setup = setup();
    let path = setup.store.path(&Kind::Claim(uid()));
    for (spoil, expect) in [
        (None, Ensured::Created),
        (None, Ensured::Unchanged),
        (Some("garbage"), Ensured::Replaced),
        (Some(""), Ensured::Replaced),
        (Some("{\"kind\":\"k8s.gpu.nvidia.com/claim\"}"), Ensured::Replaced),
    ] {
        if let Some(bytes) = spoil {
            std::fs::write(&path, bytes).unwrap();
        }
        assert_eq!(setup.store.ensure(&spec("a"), &uid()).unwrap(), expect);
        assert_eq!(std::fs::read(&path).unwrap(), spec("a").bytes);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
    }
    assert_eq!(names(&setup), ["k8s.gpu.nvidia.com-claim_9f7c3f9e-3c7c-4b0e-8a53-0d6a1f4e2b11.json"]);
    setup.store.remove(&Kind::Claim(uid())).unwrap();
    setup.store.remove(&Kind::Claim(uid())).unwrap();
    assert!(names(&setup).is_empty());
}

#[test]
fn a_link_with_the_name_of_a_spec_is_replaced_and_its_target_unchanged() {
    let setup = setup();
    let target = setup.dir.path().join("target");
    std::fs::write(&target, "untouched").unwrap();
    setup.store.make_dir().unwrap();
    std::os::unix::fs::symlink(&target, setup.store.path(&Kind::Claim(uid()))).unwrap();
    assert_eq!(setup.store.ensure(&spec("a"), &uid()).unwrap(), Ensured::Replaced);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "untouched");
}

#[test]
fn a_readable_spec_of_another_kind_is_never_changed() {
    let setup = setup();
    let path = setup.store.path(&Kind::Claim(uid()));
    setup.store.make_dir().unwrap();
    std::fs::write(&path, "{\"kind\":\"vendor.example/other\"}").unwrap();
    for outcome in [setup.store.ensure(&spec("a"), &uid()).map(drop), setup.store.remove(&Kind::Claim(uid()))] {
        assert!(matches!(outcome, Err(SpecStoreError::Foreign { .. })), "{outcome:?}");
    }
    assert_eq!(setup.store.list().unwrap().foreign, [path]);
}

#[test]
fn a_listing_distinguishes_specs_leftovers_and_foreign_files() {
    let setup = setup();
    setup.store.ensure(&spec("a"), &uid()).unwrap();
    let dir = setup.dir.path().join("cdi");
    let leftover = format!(".k8s.gpu.nvidia.com-base_1.json.{}.tmp", uid());
    for name in
        ["nvidia.com-gpu.yaml", "k8s.gpu.nvidia.com-claim_1.yaml", "k8s.gpu.nvidia.com-base_550.1.json", &leftover]
    {
        std::fs::write(dir.join(name), "").unwrap();
    }
    let listing = setup.store.list().unwrap();
    assert_eq!(listing.specs, [Kind::Base("550.1".to_owned()), Kind::Claim(uid())]);
    assert_eq!(listing.foreign, [dir.join("k8s.gpu.nvidia.com-claim_1.yaml")]);
    assert_eq!(listing.unfinished[0].writer, uid());
    setup.store.remove_unfinished(&listing.unfinished[0]).unwrap();
    assert!(setup.store.list().unwrap().unfinished.is_empty());
    assert!(PathBuf::from(&dir).join("nvidia.com-gpu.yaml").exists());
}

#[test]
fn every_effect_can_be_cut_or_fail_and_no_half_spec_is_ever_visible() {
    for fault in [Fault::Crash, Fault::Once(Errno::NOSPC), Fault::FromNowOn(Errno::ROFS)] {
        for at in 0..3 {
            let setup = setup();
            setup.store.ensure(&spec("old"), &uid()).unwrap();
            setup.files.fail_after(at, fault);
            let outcome = setup.store.ensure(&spec("new"), &uid());
            setup.files.heal();
            let bytes = std::fs::read(setup.store.path(&Kind::Claim(uid()))).unwrap();
            assert!(bytes == spec("old").bytes || bytes == spec("new").bytes, "{fault:?} at {at}");
            assert!(outcome.is_err() || bytes == spec("new").bytes, "{fault:?} at {at}");
            setup.store.ensure(&spec("newest"), &uid()).unwrap();
            assert_eq!(names(&setup).len(), 1, "no temporary file is left");
        }
    }
}
