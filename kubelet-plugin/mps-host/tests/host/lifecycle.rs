// SPDX-License-Identifier: Apache-2.0
//! A daemon of NVIDIA's own program from its start to its removal.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dra_hardware::{DaemonError, DaemonState, Daemons as _, Deadline, MultiUser};
use dra_model::Bytes;

use crate::host::{Host, percent, spec, terminate, until};

const ID: &str = "gpu-00112233445566778899aabbccddeeff";

#[test]
fn a_daemon_starts_with_its_limits_and_leaves_nothing() {
    let host = Host::real();
    let mut wanted = spec(ID);
    wanted.devices.push("GPU-00000000-0000-4000-8000-000000000001".to_owned());
    wanted.threads = percent(30);
    wanted.memory = [(0, Bytes(1536 << 20)), (1, Bytes(512 << 20))].into();
    let begun = Instant::now();
    let daemon = host.start(&wanted).unwrap();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(daemon.state, DaemonState::Ready);
    assert_eq!((daemon.run_dir, daemon.shm_dir), (host.daemon_dir(ID).join("run"), host.daemon_dir(ID).join("shm")));
    assert!(!daemon.multi_user);
    let answers = [
        "get_default_active_thread_percentage",
        "get_default_device_pinned_mem_limit 0",
        "get_default_device_pinned_mem_limit 1",
    ];
    assert_eq!(answers.map(|question| host.query(ID, question)), ["30.0", "1G", "512M"]);
    let listed = host.client().list(&Deadline::none()).unwrap();
    assert_eq!(listed.iter().map(|daemon| daemon.id.as_str()).collect::<Vec<_>>(), [ID]);
    assert_eq!(host.mounts(), 1);
    host.stop(ID).unwrap();
    assert_eq!((host.processes(ID).len(), host.mounts(), host.daemon_dir(ID).exists()), (0, 0, false));
    assert_eq!(host.client().list(&Deadline::none()).unwrap(), []);
    host.stop(ID).unwrap();
    eprintln!("ready after {took:?}");
}

#[test]
fn a_daemon_has_the_shared_memory_of_its_clients() {
    let host = Host::real();
    let daemon = host.start(&spec(ID)).unwrap();
    let pid = host.daemon(ID);
    fs::write(daemon.shm_dir.join("client"), "by a client").unwrap();
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/root/dev/shm/client")).unwrap(), "by a client");
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let names: Vec<&str> = environment.split('\0').filter_map(|variable| Some(variable.split_once('=')?.0)).collect();
    let expect =
        ["CUDA_MPS_LOG_DIRECTORY", "CUDA_MPS_PIPE_DIRECTORY", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "PATH"];
    assert_eq!(names, expect);
    host.stop(ID).unwrap();
}

#[test]
fn the_same_daemon_is_started_once_and_another_one_is_refused() {
    let host = Host::real();
    host.start(&spec(ID)).unwrap();
    let pid = host.daemon(ID);
    host.start(&spec(ID)).unwrap();
    assert_eq!(host.daemon(ID), pid);
    let mut other = spec(ID);
    other.threads = percent(10);
    assert_eq!(host.start(&other), Err(DaemonError::Different { id: other.id.clone() }));
    host.stop(ID).unwrap();
    host.start(&other).unwrap();
    assert_eq!(host.query(ID, "get_default_active_thread_percentage"), "10.0");
}

#[test]
fn a_program_without_multi_user_differs_from_one_that_fails() {
    let host = Host::real();
    let mut wanted = spec(ID);
    wanted.multi_user = MultiUser::On;
    assert_eq!(host.start(&wanted), Err(DaemonError::NoMultiUser { id: wanted.id.clone() }));
    assert_eq!((host.processes(ID).len(), host.mounts(), host.daemon_dir(ID).exists()), (0, 0, false));
    wanted.multi_user = MultiUser::IfKnown;
    assert!(!host.start(&wanted).unwrap().multi_user);
}

#[test]
fn a_host_that_stops_terminates_its_daemons_and_the_next_one_restarts_them_in_place() {
    let mut host = Host::real();
    let ids = [ID, "claim-3f1b2c4d-0000-4000-8000-123456789abc-0"];
    for id in ids {
        host.start(&spec(id)).unwrap();
        fs::write(host.daemon_dir(id).join("shm/saved"), "").unwrap();
    }
    let run_dir = host.daemon_dir(ID).join("run");
    let inode = || fs::metadata(&run_dir).unwrap().ino();
    let before = inode();
    assert!(host.terminate());
    assert_eq!(ids.map(|id| host.processes(id).len()), [0, 0]);
    assert!(!host.root().join("host.sock").exists());
    host.start_again();
    for id in ids {
        let seen = until("the daemon restarts", || host.observed(id).filter(|seen| seen.restarts == 1));
        assert_eq!(seen.daemon.state, DaemonState::Ready);
        assert!(host.daemon_dir(id).join("shm/saved").exists());
    }
    assert_eq!((inode(), host.mounts(), host.metric("gpu_dra_mps_daemons_lost_total")), (before, 2, "2".to_owned()));
}

#[test]
fn an_uninstall_leaves_nothing_whether_daemons_run_or_not() {
    for end in [Host::kill, |host: &mut Host| assert!(host.terminate())] {
        let mut host = Host::real();
        host.start(&spec(ID)).unwrap();
        end(&mut host);
        assert!(host.remove());
        assert_eq!((host.processes(ID).len(), host.mounts()), (0, 0));
        assert_eq!(fs::read_dir(host.root()).unwrap().count(), 0);
    }
}

#[test]
fn the_program_after_a_removal_always_runs_and_the_failure_of_either_is_reported() {
    let mut host = Host::real();
    host.start(&spec(ID)).unwrap();
    assert!(host.terminate());
    let blocked_path = host.dir.path().join("blocked");
    fs::write(&blocked_path, "").unwrap();
    let log = |root: &Path| fs::read_to_string(root.with_extension("log")).unwrap();
    for (root, script, succeeds, logged) in [
        (&blocked_path, "exit 0", false, "failed to use"),
        (&host.root(), "exit 3", false, "sh failed: exit status: 3"),
        (&host.root(), "exit 0", true, "removed leftovers"),
    ] {
        let ran_path = host.dir.path().join("ran");
        let script = format!("ls {} > {}; {script}", host.root().display(), ran_path.display());
        assert_eq!(host.remove_from(root, &["sh", "-c", &script]), succeeds, "{}", log(root));
        assert!(log(root).contains(logged), "{logged}: {}", log(root));
        let left = fs::read_to_string(&ran_path).unwrap();
        assert_eq!(left.contains(ID), root == &blocked_path, "it runs after the removal: {left}");
        fs::remove_file(ran_path).unwrap();
    }
    assert!(!host.remove_from(&host.root(), &["/no/such/program"]));
    assert!(host.log().contains("failed to run /no/such/program"), "{}", host.log());
}

#[test]
fn a_host_waits_for_the_end_of_another_one() {
    let mut host = Host::real();
    host.start(&spec(ID)).unwrap();
    let next = host.start_beside();
    until("it waits", || host.log().contains("waiting for another MPS host to end").then_some(()));
    assert_eq!(host.state(ID), DaemonState::Ready);
    assert!(host.terminate());
    host.take(next);
    until("the daemon restarts", || host.observed(ID).filter(|seen| seen.restarts == 1));
}

#[test]
fn a_host_and_a_removal_that_wait_for_another_host_are_stopped_by_sigterm() {
    let host = Host::real();
    let start_beside: fn(&Host) -> Child = Host::start_beside;
    let remove: fn(&Host) -> Child = |host| host.remove_beside(&["true"]);
    for (start, expect) in [(start_beside, 0), (remove, 1)] {
        let waits = || host.log().matches("waiting for another MPS host to end").count();
        let before = waits();
        let waiting = start(&host);
        until("it waits", || (waits() > before).then_some(()));
        assert_eq!(terminate(waiting).code(), Some(expect), "it ends by itself: {}", host.log());
    }
    assert!(host.log().contains("stopped by a signal before true ran"), "{}", host.log());
}

#[test]
fn the_program_after_a_removal_is_terminated_with_it() {
    let mut host = Host::real();
    assert!(host.terminate());
    let [runs_path, terminated_path] = ["runs", "terminated"].map(|name| host.dir.path().join(name));
    let script = format!(
        "trap 'touch {}; exit 0' TERM; touch {}; while :; do sleep 0.01; done",
        terminated_path.display(),
        runs_path.display()
    );
    let removal = host.remove_beside(&["sh", "-c", &script]);
    until("the program runs", || runs_path.exists().then_some(()));
    assert_eq!(terminate(removal).code(), Some(0), "{}", host.log());
    assert!(terminated_path.exists());
}

#[test]
fn foreign_directories_and_processes_are_left_alone() {
    let mut host = Host::real();
    host.start(&spec(ID)).unwrap();
    host.kill();
    let photo_path = host.daemon_dir("gpu-ffffffffffffffffffffffffffffffff").join("photos/1");
    let backup_path = host.root().join("backups/1");
    for path in [&photo_path, &backup_path] {
        fs::create_dir_all(path).unwrap();
    }
    let mut foreign = Command::new("cat");
    foreign.env("CUDA_MPS_PIPE_DIRECTORY", host.daemon_dir(ID).join("run/pipe")).stdin(Stdio::piped());
    let mut foreign = foreign.spawn().unwrap();
    host.start_again();
    let refused = host.start(&spec("gpu-ffffffffffffffffffffffffffffffff")).unwrap_err().to_string();
    assert!(refused.contains("photos does not belong to an MPS daemon; remove it by hand"), "{refused}");
    host.stop(ID).unwrap();
    assert!(!host.daemon_dir(ID).exists() && photo_path.exists() && backup_path.exists());
    assert_eq!(foreign.try_wait().unwrap(), None, "it only has the pipe directory in its environment");
    drop(foreign.stdin.take());
    foreign.wait().unwrap();
    fs::remove_dir_all(photo_path.parent().unwrap()).unwrap();
}
