// SPDX-License-Identifier: Apache-2.0
//! Faults that NVIDIA's own control program does not show: scripts run before it.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, Instant};

use dra_hardware::{DaemonError, DaemonState, Daemons as _, Deadline, MultiUser};
use tempfile::TempDir;

use crate::host::{Host, nvidia_root, percent, spec, until};

const ID: &str = "gpu-00112233445566778899aabbccddeeff";

/// A driver root whose control program is a script; `$real` is NVIDIA's.
pub(crate) fn driver(script: &str) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let bin_dir = root.path().join("usr/bin");
    fs::create_dir_all(&bin_dir).unwrap();
    let real = nvidia_root().join("usr/bin/nvidia-cuda-mps-control");
    let text_path = root.path().join("script");
    fs::write(&text_path, format!("#!/bin/sh\nreal={}\n{script}\n", real.display())).unwrap();
    // By another process: a program that another test starts at this moment would hold the file open for writing.
    let mut install = Command::new("install");
    install.arg("--mode=755").arg(text_path).arg(bin_dir.join("nvidia-cuda-mps-control"));
    assert!(install.status().unwrap().success());
    // Links out of a driver root lead nowhere.
    fs::copy(nvidia_root().join("usr/sbin/nvidia-cuda-mps-server"), bin_dir.join("nvidia-cuda-mps-server")).unwrap();
    symlink("nowhere", root.path().join("usr/lib64")).unwrap();
    root
}

/// Processes, mounts, and whether there is a daemon_dir.
pub(crate) fn left_of(host: &Host) -> (usize, usize, bool) {
    (host.processes(ID).len(), host.mounts(), host.daemon_dir(ID).exists())
}

#[test]
fn a_daemon_that_hangs_at_its_start_is_ended() {
    let driver = driver("[ \"$1\" = -f ] && echo waiting for nothing && exec /bin/sleep 1000; exec $real");
    let host = Host::new(driver.path());
    let begun = Instant::now();
    let refused = host.client().start(&spec(ID), None, Duration::from_millis(300), &Deadline::none()).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
    let DaemonError::NotReady { seen, .. } = &refused else { panic!("{refused}") };
    assert_eq!(seen, "waiting for nothing");
    assert_eq!(left_of(&host), (0, 0, false));
}

#[test]
fn a_daemon_that_does_not_answer_is_ended() {
    let driver = driver("[ \"$1\" = -f ] && exec $real -f; exec /bin/sleep 1000");
    let host = Host::new(driver.path());
    let refused =
        host.client().start(&spec(ID), None, Duration::from_millis(300), &Deadline::none()).unwrap_err().to_string();
    assert!(refused.contains("no answer of the daemon within"), "{refused}");
    assert_eq!(left_of(&host), (0, 0, false));
}

#[test]
fn a_daemon_that_hangs_at_its_end_is_killed() {
    let driver = driver(
        "[ \"$1\" = -f ] && exec $real -f; input=$(/bin/cat)
        case \"$input\" in quit*) exec /bin/sleep 1000;; esac; echo \"$input\" | $real",
    );
    let host = Host::new(driver.path());
    host.start(&spec(ID)).unwrap();
    let begun = Instant::now();
    host.client().stop(&spec(ID).id, Duration::from_secs(1), &Deadline::none()).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(left_of(&host), (0, 0, false));
}

#[test]
fn a_daemon_that_does_not_quit_gets_the_command_again_and_is_killed() {
    let driver = driver(
        "[ \"$1\" = -f ] && exec $real -f; input=$(/bin/cat)
        case \"$input\" in quit*) echo quit >>${0%/*}/asked; exit 1;; esac; echo \"$input\" | $real",
    );
    let host = Host::new(driver.path());
    host.start(&spec(ID)).unwrap();
    host.client().stop(&spec(ID).id, Duration::from_secs(1), &Deadline::none()).unwrap();
    assert_eq!(left_of(&host), (0, 0, false));
    let asked = fs::read_to_string(driver.path().join("usr/bin/asked")).unwrap().lines().count();
    assert!((2..=5).contains(&asked), "asked {asked} times in two seconds");
    assert_eq!(host.log().matches("failed to send quit to an MPS daemon").count(), 1);
}

#[test]
fn a_request_that_waits_for_another_one_is_answered_in_its_time() {
    let driver = driver(
        "[ \"$1\" = -f ] && exec $real -f; input=$(/bin/cat)
        case \"$input\" in quit*) : >${0%/*}/quits; exec /bin/sleep 1000;; esac; echo \"$input\" | $real",
    );
    let host = Host::new(driver.path());
    host.start(&spec(ID)).unwrap();
    let client = host.client();
    let stop = std::thread::spawn(move || client.stop(&spec(ID).id, Duration::from_secs(1), &Deadline::none()));
    until("the daemon gets quit", || driver.path().join("usr/bin/quits").exists().then_some(()));
    let refused = host.client().start(&spec(ID), None, Duration::from_millis(500), &Deadline::none()).unwrap_err();
    let DaemonError::NotReady { seen, .. } = &refused else { panic!("{refused}") };
    assert_eq!(seen, "the MPS host was busy with an earlier request");
    stop.join().unwrap().unwrap();
    assert_eq!(left_of(&host), (0, 0, false));
}

#[test]
fn a_limit_that_is_echoed_and_not_applied_is_refused() {
    let driver = driver(
        "[ \"$1\" = -f ] && exec $real -f; input=$(/bin/cat)
        case \"$input\" in set_*) echo 30.0;; *) echo \"$input\" | $real;; esac",
    );
    let host = Host::new(driver.path());
    let mut wanted = spec(ID);
    wanted.threads = percent(30);
    let expect = DaemonError::LimitNotApplied {
        id: wanted.id.clone(),
        what: "active thread percentage".to_owned(),
        wanted: "30".to_owned(),
        found: "100.0".to_owned(),
    };
    assert_eq!(host.start(&wanted), Err(expect));
    assert_eq!(left_of(&host), (0, 0, false));
}

#[test]
fn a_program_that_has_multi_user_gets_it() {
    let driver = driver("[ \"$1 $2\" = '-f -M' ] && exec $real -f; exec $real \"$@\"");
    let host = Host::new(driver.path());
    for (wanted, expect) in [(MultiUser::Off, false), (MultiUser::On, true), (MultiUser::IfKnown, true)] {
        let spec = dra_hardware::DaemonSpec { multi_user: wanted, ..spec(ID) };
        assert_eq!(host.start(&spec).unwrap().multi_user, expect, "{wanted:?}");
        host.stop(ID).unwrap();
    }
}

#[test]
fn a_daemon_that_exits_again_and_again_is_started_with_growing_delays() {
    let driver = driver("[ \"$1\" = -f ] && { [ -e ${0%/*}/broken ] && exit 3; exec $real -f; }; exec $real");
    let host = Host::new(driver.path());
    host.start(&spec(ID)).unwrap();
    let broken = driver.path().join("usr/bin/broken");
    fs::write(&broken, "").unwrap();
    crate::host::kill(host.daemon(ID));
    let failures = || host.metric("gpu_dra_mps_daemon_starts_total{result=\"failure\"}");
    until("two starts fail", || (failures() == "2").then_some(()));
    assert_eq!((host.mounts(), host.observed(ID).unwrap().restarts), (1, 0));
    fs::remove_file(broken).unwrap();
    until("a later one does not", || host.observed(ID).filter(|seen| seen.restarts == 1));
}

#[test]
fn a_daemon_that_clients_found_before_it_had_its_limits_is_started_anew() {
    let driver = driver(
        "[ \"$1\" = -f ] && { echo start >>${0%/*}/starts; exec $real -f; }; input=$(/bin/cat)
        case \"$input\" in get_server_list*) [ -e ${0%/*}/asked ] || { : >${0%/*}/asked; echo 4711; exit 0; };; esac
        echo \"$input\" | $real",
    );
    let host = Host::new(driver.path());
    let mut wanted = spec(ID);
    wanted.threads = percent(30);
    host.start(&wanted).unwrap();
    assert_eq!(fs::read_to_string(driver.path().join("usr/bin/starts")).unwrap(), "start\nstart\n");
    assert_eq!(host.observed(ID).unwrap().restarts, 0);
    assert_eq!(host.query(ID, "get_default_active_thread_percentage"), "30.0");
}

#[test]
fn a_daemon_that_stops_answering_is_killed_and_restarts() {
    let driver = driver("[ \"$1\" = -f ] && exec $real -f; [ -e ${0%/*}/hangs ] && exec /bin/sleep 1000; exec $real");
    let host = Host::new(driver.path());
    host.start(&spec(ID)).unwrap();
    let hangs = driver.path().join("usr/bin/hangs");
    fs::write(&hangs, "").unwrap();
    host.append_log(ID, "Server 1 exited with status 0");
    let refused = host.start(&spec(ID)).unwrap_err();
    assert!(matches!(refused, DaemonError::NotReady { .. }), "{refused}");
    let why = until("the daemon is killed", || match host.state(ID) {
        DaemonState::Exited { why } => Some(why),
        DaemonState::Changing
        | DaemonState::Ready
        | DaemonState::UserWaiting { .. }
        | DaemonState::Lost
        | DaemonState::GpuFailed { .. } => None,
    });
    assert!(why.starts_with("killed because it stopped answering"), "{why}");
    fs::remove_file(hangs).unwrap();
    until("the daemon restarts", || host.observed(ID).filter(|seen| seen.restarts == 1));
}

#[test]
fn a_start_of_a_running_daemon_runs_the_control_program_only_after_a_change() {
    let driver = driver("[ \"$1\" = -f ] && exec $real -f; echo run >>${0%/*}/runs; exec $real");
    let mut host = Host::new(driver.path());
    let mut wanted = spec(ID);
    wanted.threads = percent(30);
    host.start(&wanted).unwrap();
    let runs = || fs::read_to_string(driver.path().join("usr/bin/runs")).unwrap().len() / "run\n".len();
    let starts_without_a_run = |host: &Host| {
        let before = runs();
        (0..3).for_each(|_| assert_eq!(host.start(&wanted).unwrap().state, DaemonState::Ready));
        (runs() == before).then_some(())
    };
    // A periodic check may run the program at the same moment.
    until("three starts run no program", || starts_without_a_run(&host));
    let before = runs();
    host.append_log(ID, "Server 1 exited with status 1");
    host.start(&wanted).unwrap();
    assert!(runs() > before, "a failed server may mean a daemon that hangs");
    until("three starts run no program again", || starts_without_a_run(&host));
    host.kill();
    host.start_again();
    let before = runs();
    host.start(&wanted).unwrap();
    assert!(runs() > before, "the limits of an adopted daemon are unknown");
}
