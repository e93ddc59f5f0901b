// SPDX-License-Identifier: Apache-2.0
//! The hook program on the host: there and working whenever a spec names it, and gone when none does.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dra_cdi::{HookProgram, HookProgramError, HookSettings};
use dra_files::faults::{Fault, FaultyFiles};
use dra_model::explain;
use rustix::io::Errno;

struct Setup {
    dir: tempfile::TempDir,
    files: Arc<FaultyFiles>,
}

impl Setup {
    /// The image has a program that does nothing.
    fn new() -> Self {
        let setup = Self { dir: tempfile::tempdir().unwrap(), files: Arc::default() };
        setup.release("#!/bin/sh\nexit 0\n");
        setup
    }

    /// Replaces the program in the image.
    fn release(&self, program: &str) {
        fs::write(self.program_path(), program).unwrap();
    }

    fn program_path(&self) -> PathBuf {
        self.dir.path().join("program")
    }

    fn hooks_dir(&self) -> PathBuf {
        self.dir.path().join("host/hooks")
    }

    /// A new process.
    fn hook(&self) -> HookProgram {
        let settings =
            HookSettings { program: self.program_path(), dir: self.hooks_dir(), instance: "uid-1".to_owned() };
        HookProgram::new(Arc::<FaultyFiles>::clone(&self.files), settings)
    }

    fn names(&self) -> BTreeSet<PathBuf> {
        fs::read_dir(self.hooks_dir()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn refused(&self) -> String {
        let error = self.hook().ensure().unwrap_err();
        explain(&error).replace(&self.dir.path().display().to_string(), "")
    }
}

fn assert_works(path: &Path, program: &str) {
    assert_eq!(fs::read_to_string(path).unwrap(), program);
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn a_copy_that_was_removed_is_noticed_until_it_is_there_again() {
    let setup = Setup::new();
    let hook = setup.hook();
    assert!(!hook.is_gone(), "nothing was installed");
    let path = hook.ensure().unwrap();
    assert!(!hook.is_gone());
    fs::remove_file(&path).unwrap();
    assert!(hook.is_gone());
    assert_eq!(hook.ensure().unwrap(), path);
    assert!(!hook.is_gone());
}

#[test]
fn the_program_is_installed_and_repaired_whatever_was_done_to_it() {
    let setup = Setup::new();
    let program = fs::read_to_string(setup.program_path()).unwrap();
    let hook = setup.hook();
    let path = hook.ensure().unwrap();
    assert_works(&path, &program);
    let spoils: [&dyn Fn(); 4] = [
        &|| fs::remove_file(&path).unwrap(),
        &|| fs::write(&path, "#!/bin/sh\nexit 1\n").unwrap(),
        &|| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap(),
        &|| fs::remove_dir_all(setup.hooks_dir()).unwrap(),
    ];
    for spoil in spoils {
        for process in [&hook, &setup.hook()] {
            spoil();
            assert_eq!(process.ensure().unwrap(), path);
            assert_works(&path, &program);
        }
    }
    assert_eq!(setup.names().len(), 1);
}

#[test]
fn an_equal_program_is_not_written_again() {
    let setup = Setup::new();
    setup.hook().ensure().unwrap();
    let before = setup.files.effects();
    setup.hook().ensure().unwrap();
    assert_eq!(setup.files.effects(), before);
}

#[test]
fn another_program_has_another_name_and_the_old_one_stays_while_it_is_named() {
    let setup = Setup::new();
    let old = setup.hook().ensure().unwrap();
    setup.release("#!/bin/sh\n# The next version.\nexit 0\n");
    let hook = setup.hook();
    let new = hook.ensure().unwrap();
    fs::write(setup.hooks_dir().join("another-program"), "").unwrap();
    fs::write(setup.hooks_dir().join(".gpu-cdi-hook-0.1.0-1.uid-2.tmp"), "cut").unwrap();
    let named = BTreeSet::from([old.clone()]);
    assert!(hook.remove_unused(&named).unwrap().is_empty());
    assert_eq!(hook.remove_unused(&named).unwrap(), [setup.hooks_dir().join(".gpu-cdi-hook-0.1.0-1.uid-2.tmp")]);
    assert!(hook.remove_unused(&BTreeSet::new()).unwrap().is_empty(), "a runtime may have read the spec just now");
    assert_eq!(hook.remove_unused(&BTreeSet::new()).unwrap(), [old]);
    assert_eq!(setup.names(), BTreeSet::from([new, setup.hooks_dir().join("another-program")]));
    hook.remove_all().unwrap();
    assert_eq!(setup.names(), BTreeSet::from([setup.hooks_dir().join("another-program")]));
}

/// The base spec of a driver version that is not loaded is not rendered again.
#[test]
fn a_copy_of_an_earlier_version_that_a_spec_names_is_made_again() {
    let setup = Setup::new();
    let old = setup.hook().ensure().unwrap();
    let next = "#!/bin/sh\n# The next version.\nexit 0\n";
    setup.release(next);
    fs::remove_dir_all(setup.hooks_dir()).unwrap();
    let elsewhere = setup.dir.path().join("elsewhere");
    setup.hook().restore(&BTreeSet::from([old.clone(), elsewhere.clone()])).unwrap();
    assert_works(&old, next);
    assert!(!elsewhere.exists(), "a spec names it, and it is not in the directory of this driver");
}

#[test]
fn after_a_failure_a_caller_that_waits_is_not_delayed_again() {
    let setup = Setup::new();
    let hook = setup.hook();
    setup.files.fail_after(0, Fault::FromNowOn(Errno::NOSPC));
    assert_eq!(hook.usable(), None);
    setup.files.heal();
    assert_eq!(hook.usable(), None, "within a minute");
    let path = hook.ensure().unwrap();
    assert_eq!(hook.usable(), Some(path));
}

#[test]
fn a_program_that_cannot_work_is_refused_with_its_cause() {
    let setup = Setup::new();
    setup.release("#!/bin/sh\nexit 3\n");
    assert!(matches!(setup.hook().ensure(), Err(HookProgramError::Fails { .. })));
    setup.release("no program");
    assert!(setup.refused().contains("; check that the image is for the architecture of the node"));
    fs::remove_file(setup.program_path()).unwrap();
    assert_eq!(
        setup.refused(),
        "the image of this driver has no program /program; build the image with gpu-cdi-hook, or set cdiHook.enabled=false"
    );
}

#[test]
fn every_effect_can_be_cut_or_fail_and_no_half_program_has_its_name() {
    for fault in [Fault::Crash, Fault::Once(Errno::NOSPC), Fault::FromNowOn(Errno::ROFS)] {
        for at in 0..5 {
            let setup = Setup::new();
            let program = fs::read_to_string(setup.program_path()).unwrap();
            setup.files.fail_after(at, fault);
            let outcome = setup.hook().ensure();
            setup.files.heal();
            if let Ok(path) = &outcome {
                assert_works(path, &program);
            }
            let path = setup.hook().ensure().unwrap();
            assert_works(&path, &program);
            assert!(setup.names().len() <= 2, "{fault:?} at {at}");
        }
    }
}
