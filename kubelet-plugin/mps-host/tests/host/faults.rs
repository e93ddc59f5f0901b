// SPDX-License-Identifier: Apache-2.0
//! Faults of a daemon of NVIDIA's own program.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use dra_hardware::{DaemonError, DaemonState, Deadline};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

use crate::host::{Host, kill, kill_and_wait, percent, spec, until};

const ID: &str = "gpu-00112233445566778899aabbccddeeff";

#[test]
fn a_daemon_that_exits_is_reported_and_restarts_with_its_limits() {
    let host = Host::real();
    let mut wanted = spec(ID);
    wanted.threads = percent(40);
    host.start(&wanted).unwrap();
    let before = host.daemon(ID);
    fs::write(host.daemon_dir(ID).join("shm/saved"), "").unwrap();
    let mode = || fs::metadata(host.daemon_dir(ID).join("shm")).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(), 0o1777);
    kill(before);
    let seen = until("the daemon restarts", || host.observed(ID).filter(|seen| seen.restarts == 1));
    assert_eq!((seen.daemon.state, seen.spec), (DaemonState::Ready, wanted));
    assert_ne!(host.daemon(ID), before);
    assert_eq!(host.query(ID, "get_default_active_thread_percentage"), "40.0");
    assert!(host.daemon_dir(ID).join("shm/saved").exists() && host.mounts() == 1, "shared memory of clients stays");
    assert_eq!(mode(), 0o1777);
    assert_eq!(host.metric("gpu_dra_mps_daemon_exits_total"), "1");
    assert!(host.log().contains("killed by signal 9"));
    assert_eq!(host.children().len(), 1, "the exited daemon was waited for");
}

#[test]
fn a_daemon_outlives_its_host_and_is_adopted() {
    let mut host = Host::real();
    host.start(&spec(ID)).unwrap();
    let daemon = host.daemon(ID);
    host.kill();
    assert_eq!(host.daemon(ID), daemon);
    host.start_again();
    assert_eq!(host.observed(ID).unwrap().daemon.state, DaemonState::Ready);
    host.start(&spec(ID)).unwrap();
    assert_eq!((host.daemon(ID), host.query(ID, "get_default_active_thread_percentage").as_str()), (daemon, "100.0"));
    assert_eq!(host.metric("gpu_dra_mps_daemons_lost_total"), "0");
    kill(daemon);
    until("the end of an adopted one is seen", || host.observed(ID).filter(|seen| seen.restarts == 1));
    host.stop(ID).unwrap();
    assert_eq!((host.processes(ID).len(), host.mounts(), host.daemon_dir(ID).exists()), (0, 0, false));
}

#[test]
fn a_daemon_that_did_not_outlive_its_host_is_lost_and_restarts() {
    let mut host = Host::real();
    host.start(&spec(ID)).unwrap();
    let daemon = host.daemon(ID);
    host.kill();
    kill_and_wait(daemon);
    host.start_again();
    let seen = until("the daemon restarts", || host.observed(ID).filter(|seen| seen.restarts == 1));
    assert_eq!(seen.daemon.state, DaemonState::Ready);
    assert_eq!((host.metric("gpu_dra_mps_daemons_lost_total").as_str(), host.mounts()), ("1", 1));
}

#[test]
fn leftovers_of_an_interrupted_start_or_stop_are_removed() {
    for phase in ["\"starting\"", "\"stopping\""] {
        let mut host = Host::real();
        host.start(&spec(ID)).unwrap();
        host.kill();
        let path = host.daemon_dir(ID).join("state.json");
        let saved = fs::read_to_string(&path).unwrap();
        assert!(saved.contains("\"running\""));
        fs::write(&path, saved.replace("\"running\"", phase)).unwrap();
        host.start_again();
        assert_eq!((host.processes(ID).len(), host.mounts(), host.daemon_dir(ID).exists()), (0, 0, false), "{phase}");
        assert_eq!(host.observed(ID), None);
        host.start(&spec(ID)).unwrap();
    }
}

#[test]
fn limits_that_another_process_changes_are_set_again() {
    let host = Host::real();
    let mut wanted = spec(ID);
    wanted.threads = percent(40);
    wanted.memory = [(0, dra_model::Bytes(1536 << 20))].into();
    host.start(&wanted).unwrap();
    assert_eq!(host.query(ID, "set_default_active_thread_percentage 99"), "99.0");
    let metric = "gpu_dra_mps_limit_corrections_total";
    until("the limits are corrected", || (host.metric(metric) == "1").then_some(()));
    assert_eq!(host.query(ID, "get_default_active_thread_percentage"), "40.0");
    // Read back it looks the same.
    host.query(ID, "set_default_device_pinned_mem_limit 0 1400M");
    until("the limits are corrected", || (host.metric(metric) == "2").then_some(()));
    host.append_log(ID, "Server 1 exited with status 1");
    until("the log was read", || host.observed(ID).filter(|seen| seen.message.contains("status 1")));
    assert_eq!(host.metric(metric), "2", "the settings of this driver are not counted as foreign");
}

#[test]
fn a_limit_that_reads_back_as_another_value_is_an_error() {
    let host = Host::real();
    let mut wanted = spec(ID);
    // Less than the unit that the program counts in is no limit for it.
    wanted.memory = [(0, dra_model::Bytes(1 << 10))].into();
    let refused = host.start(&wanted).unwrap_err().to_string();
    assert_eq!(
        refused,
        format!("pinned memory limit of device 0 of MPS daemon {ID} was set to 0M but reads back as none")
    );
    assert_eq!((host.processes(ID).len(), host.mounts(), host.daemon_dir(ID).exists()), (0, 0, false));
}

#[test]
fn a_driver_root_without_the_programs_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::new(dir.path());
    let expect = DaemonError::NoProgram { program: "nvidia-cuda-mps-control".to_owned(), root: dir.path().to_owned() };
    assert_eq!(host.start(&spec(ID)), Err(expect));
    assert!(!host.daemon_dir(ID).exists());
    host.stop(ID).unwrap();
}

#[test]
fn a_full_file_system_is_named_and_left_as_it_was() {
    let mut host = Host::real();
    host.kill();
    mount("small", host.root(), "tmpfs", MountFlags::empty(), c"size=64k").unwrap();
    host.start_again();
    let filler = host.root().join("filler");
    fs::write(&filler, vec![0; 64 << 10]).unwrap();
    let refused = host.start(&spec(ID)).unwrap_err();
    assert!(
        matches!(&refused, DaemonError::UnusableDir { path, .. } if path.starts_with(host.daemon_dir(ID))),
        "{refused}"
    );
    assert!(refused.to_string().contains("o space left"), "{refused}");
    assert!(!host.daemon_dir(ID).exists());
    fs::remove_file(filler).unwrap();
    host.start(&spec(ID)).unwrap();
    host.stop(ID).unwrap();
    unmount(host.root(), UnmountFlags::DETACH).unwrap();
}

#[test]
fn a_start_that_finds_the_disk_full_at_any_file_leaves_nothing() {
    let mut host = Host::real();
    host.kill();
    mount("small", host.root(), "tmpfs", MountFlags::empty(), c"nr_inodes=8").unwrap();
    host.start_again();
    let mut wanted = spec(ID);
    wanted.threads = percent(40);
    let needed = (9..64).find(|files| {
        let options = std::ffi::CString::new(format!("nr_inodes={files}")).unwrap();
        mount_remount(host.root(), MountFlags::empty(), &options).unwrap();
        let refused = host.start(&wanted).err();
        if let Some(refused) = &refused {
            let named =
                matches!(refused, DaemonError::UnusableDir { path, .. } if path.starts_with(host.daemon_dir(ID)));
            assert!(named && refused.to_string().contains("o space left"), "{files} files: {refused}");
            assert_eq!(
                (host.processes(ID).len(), host.mounts(), host.daemon_dir(ID).exists()),
                (0, 1, false),
                "{files} files"
            );
        }
        refused.is_none()
    });
    host.stop(ID).unwrap();
    unmount(host.root(), UnmountFlags::DETACH).unwrap();
    assert!(needed.unwrap() > 15, "{needed:?}");
}

#[test]
fn an_unreadable_state_file_is_no_reason_to_end_a_daemon() {
    let mut host = Host::real();
    host.start(&spec(ID)).unwrap();
    let daemon = host.daemon(ID);
    host.kill();
    // A file whose reading fails as on a broken disk.
    let state_path = host.daemon_dir(ID).join("state.json");
    mount_bind("/proc/self/mem", &state_path).unwrap();
    host.start_again();
    assert_eq!((host.observed(ID), host.daemon(ID)), (None, daemon));
    for refused in [host.start(&spec(ID)).map(|_daemon| ()), host.stop(ID)] {
        assert!(matches!(&refused, Err(DaemonError::UnusableDir { path, .. }) if *path == state_path), "{refused:?}");
    }
    assert_eq!(host.daemon(ID), daemon);
    unmount(&state_path, UnmountFlags::empty()).unwrap();
    host.start(&spec(ID)).unwrap();
    assert_eq!((host.daemon(ID), host.state(ID)), (daemon, DaemonState::Ready));
    host.stop(ID).unwrap();
    assert_eq!((host.processes(ID).len(), host.mounts(), host.daemon_dir(ID).exists()), (0, 0, false));
}

#[test]
fn a_failed_stop_is_reported_until_it_succeeds() {
    let mut host = Host::real();
    host.start(&spec(ID)).unwrap();
    host.kill();
    let path = host.daemon_dir(ID).join("state.json");
    let saved = fs::read_to_string(&path).unwrap();
    fs::write(&path, saved.replace("\"running\"", "\"stopping\"")).unwrap();
    let photos_dir = host.daemon_dir(ID).join("photos");
    fs::create_dir(&photos_dir).unwrap();
    host.start_again();
    let seen = host.observed(ID).unwrap();
    assert_eq!((seen.daemon.state, host.processes(ID).len()), (DaemonState::Changing, 0));
    assert!(seen.message.contains("photos does not belong to an MPS daemon"), "{}", seen.message);
    assert!(matches!(host.stop(ID), Err(DaemonError::NotStopped { .. })));
    fs::remove_dir(photos_dir).unwrap();
    host.stop(ID).unwrap();
    assert_eq!((host.observed(ID), host.mounts(), host.daemon_dir(ID).exists()), (None, 0, false));
}

#[test]
fn a_host_that_is_not_there_is_unreachable_until_it_is() {
    let mut host = Host::real();
    let client = host.client();
    host.start(&spec(ID)).unwrap();
    host.kill();
    let list = || dra_hardware::Daemons::list(&client, &Deadline::none());
    assert!(matches!(list(), Err(DaemonError::Unreachable { .. })), "{:?}", list());
    host.start_again();
    assert_eq!(list().unwrap().len(), 1);
}

#[test]
fn fifty_rounds_leave_nothing() {
    let host = Host::real();
    let round = || {
        host.start(&spec(ID)).unwrap();
        host.stop(ID).unwrap();
    };
    round();
    let before = (host.open_files(), host.children().len(), host.mounts());
    (0..50).for_each(|_| round());
    let now = || (host.open_files(), host.children().len(), host.mounts());
    // The connections of the last calls end in their own time.
    until("no more is open than before", || (now() <= before).then_some(()));
    assert_eq!((host.children().len(), host.mounts()), (before.1, before.2));
    assert_eq!(host.names(), ["host.lock", "host.sock"]);
}
