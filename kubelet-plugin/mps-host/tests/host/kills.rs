// SPDX-License-Identifier: Apache-2.0
//! The host killed at every step: running daemons are adopted or killed and reported, and nothing is left.
//!
//! Steps that are programs are met exactly, by scripts before NVIDIA's own that kill the host. Those in between are counted
//! from outside, as changes of files, mounts and processes: a round for each number of them, until the host is faster.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use dra_hardware::{DaemonError, DaemonSpec, DaemonState, Daemons as _, Deadline};
use dra_model::Bytes;

use crate::clients::{client, end};
use crate::host::{Host, TIMEOUT, kill, percent, spec, until};
use crate::scripts::{driver, left_of};

const ID: &str = "gpu-00112233445566778899aabbccddeeff";

/// There is no work with fewer changes than these.
const FEWEST: usize = 5;

fn wanted() -> DaemonSpec {
    DaemonSpec { threads: percent(30), memory: [(0, Bytes(512 << 20))].into(), ..spec(ID) }
}

/// Files, what is mounted and what the host runs, at one moment.
fn snapshot(host: &Host) -> BTreeSet<(String, u64)> {
    let mut seen = host.children().into_iter().map(|pid| ("process".to_owned(), pid.into())).collect();
    scan_dir(&host.root(), &mut seen);
    seen
}

/// Every entry may be removed during the scan.
fn scan_dir(dir: &Path, seen: &mut BTreeSet<(String, u64)>) {
    for path in fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let Ok(found) = path.symlink_metadata() else { continue };
        seen.insert((path.display().to_string(), found.dev() << 32 | found.ino()));
        if found.is_dir() {
            scan_dir(&path, seen);
        }
    }
}

/// Kills the host at the first snapshot with this number of changes. Returns whether the operation was done before.
fn kill_after(changes: usize, host: &mut Host, mut is_done: impl FnMut(&mut Host) -> bool) -> bool {
    let (mut count, mut before) = (0, snapshot(host));
    let mut done = false;
    while count < changes && !done {
        done = is_done(host);
        let now = snapshot(host);
        count += now.symmetric_difference(&before).count();
        before = now;
    }
    host.kill();
    done
}

/// Rounds in which the host is killed later and later, until its work is done before. A round with fewer changes than possible
/// was too fast for the snapshots.
fn until_done(mut round: impl FnMut(usize) -> bool) {
    let rounds = (0..1000).find(|changes| round(*changes) && *changes > FEWEST);
    eprintln!("killed {} times", rounds.unwrap());
}

/// The next host adopts a complete daemon or none; either way the same daemon can be started, used and stopped.
fn assert_whole(host: &Host, killed: &str) {
    match host.observed(ID) {
        None => assert_eq!(left_of(host), (0, 0, false), "{killed}"),
        Some(seen) => assert_eq!((seen.spec, host.mounts()), (wanted(), 1), "{killed}"),
    }
    assert_eq!(host.start(&wanted()).unwrap().state, DaemonState::Ready, "{killed}");
    let questions = ["get_default_active_thread_percentage", "get_default_device_pinned_mem_limit 0"];
    assert_eq!(questions.map(|question| host.query(ID, question)), ["30.0", "512M"], "{killed}");
    host.daemon(ID);
    stop(host, killed);
}

fn stop(host: &Host, killed: &str) {
    host.stop(ID).unwrap();
    assert_eq!((left_of(host), host.observed(ID)), ((0, 0, false), None), "{killed}");
    assert_eq!(host.names(), ["host.lock", "host.sock"], "{killed}");
}

#[test]
fn a_host_killed_in_a_start() {
    let mut host = Host::real();
    until_done(|changes| {
        let client = host.client();
        let start = thread::spawn(move || client.start(&wanted(), None, TIMEOUT, &Deadline::none()));
        let done = kill_after(changes, &mut host, |_| start.is_finished());
        let is_returned = start.join().unwrap().is_ok();
        host.start_again();
        let killed = format!("killed after {changes} changes");
        assert!(is_returned || !done);
        // A daemon that was returned to a caller is adopted.
        assert!(
            !is_returned
                || (host.state(ID), host.metric("gpu_dra_mps_daemons_lost_total"))
                    == (DaemonState::Ready, "0".to_owned()),
            "{killed}"
        );
        assert_whole(&host, &killed);
        done
    });
}

#[test]
fn a_host_killed_in_a_stop() {
    let mut host = Host::real();
    until_done(|changes| {
        host.start(&wanted()).unwrap();
        let client = host.client();
        let stop = thread::spawn(move || client.stop(&wanted().id, Duration::from_secs(5), &Deadline::none()));
        let done = kill_after(changes, &mut host, |_| stop.is_finished());
        let is_returned = stop.join().unwrap().is_ok();
        host.start_again();
        let killed = format!("killed after {changes} changes");
        assert!(is_returned || !done);
        assert!(!is_returned || host.observed(ID).is_none(), "{killed}");
        assert_whole(&host, &killed);
        done
    });
}

/// A daemon whose directory containers have mounted restarts in the same directory.
fn restarts_in_place(begin: impl Fn(&Host), mut is_done: impl FnMut(&mut Host) -> bool) {
    let mut host = Host::real();
    until_done(|changes| {
        host.start(&wanted()).unwrap();
        let inode = |host: &Host| fs::metadata(host.daemon_dir(ID).join("run")).unwrap().ino();
        let before = inode(&host);
        fs::write(host.daemon_dir(ID).join("shm/saved"), "").unwrap();
        begin(&host);
        let done = kill_after(changes, &mut host, &mut is_done);
        host.start_again();
        let killed = format!("killed after {changes} changes");
        until("the daemon is ready again", || (host.state(ID) == DaemonState::Ready).then_some(()));
        assert_eq!(
            (inode(&host), host.daemon_dir(ID).join("shm/saved").exists(), host.mounts()),
            (before, true, 1),
            "{killed}"
        );
        assert_whole(&host, &killed);
        done
    });
}

#[test]
fn a_host_killed_while_it_starts_a_daemon_again() {
    let saved = |host: &Host| fs::read_to_string(host.daemon_dir(ID).join("state.json")).unwrap_or_default();
    restarts_in_place(|host| kill(host.daemon(ID)), |host| saved(host).contains("\"restarts\":1"));
}

#[test]
fn a_host_killed_while_it_ends() {
    restarts_in_place(Host::ask_to_end, Host::has_ended);
}

#[test]
fn an_uninstall_killed_while_it_removes() {
    let mut host = Host::real();
    until_done(|changes| {
        host.start(&wanted()).unwrap();
        host.kill();
        host.begin_to_remove();
        let done = kill_after(changes, &mut host, Host::has_ended);
        assert!(host.remove());
        assert_eq!(left_of(&host), (0, 0, false), "killed after {changes} changes");
        assert_eq!(fs::read_dir(host.root()).unwrap().count(), 0);
        host.start_again();
        done
    });
}

/// Kills the parent process once, before or after a daemon, or a control client with this input, does its work.
const FATAL: &str = r#"
    fatal=${0%/*}/fatal; moment=; [ -s $fatal ] && read moment step <$fatal
    [ "$1" = -f ] && input=-f || input=$(/bin/cat)
    fatal() { [ "$moment" = $1 ] && case "$input" in "$step"*) : >$fatal; kill -9 $PPID;; esac; }
    fatal before
    [ "$1" = -f ] && exec $real -f
    echo "$input" | $real
    code=$?
    fatal after
    exit $code"#;

#[test]
fn a_host_killed_with_each_of_its_programs() {
    let driver = driver(FATAL);
    let mut host = Host::new(driver.path());
    let fatal = driver.path().join("usr/bin/fatal");
    let questions = ["get_default_active", "set_default_active", "get_default_device", "get_server_list"];
    for step in ["-f"].into_iter().chain(questions).chain(["quit"]) {
        for moment in ["before", "after"] {
            // The host goes on as soon as a daemon is there, and when it is gone.
            if moment == "after" && ["-f", "quit"].contains(&step) {
                continue;
            }
            let killed = format!("killed {moment} {step}");
            if step == "quit" {
                host.start(&wanted()).unwrap();
            }
            fs::write(&fatal, format!("{moment} {step}\n")).unwrap();
            let refused = if step == "quit" { host.stop(ID).err() } else { host.start(&wanted()).err() };
            assert!(refused.as_ref().is_some_and(DaemonError::is_no_answer), "{killed}: {refused:?}");
            assert_eq!(fs::read_to_string(&fatal).unwrap(), "", "{killed}");
            host.kill();
            host.start_again();
            assert_eq!(host.observed(ID), None, "{killed}");
            assert_whole(&host, &killed);
        }
    }
}

#[test]
fn a_daemon_without_limits_is_killed_and_its_clients_continue() {
    let driver = driver(FATAL);
    let mut host = Host::new(driver.path());
    host.start(&wanted()).unwrap();
    fs::write(driver.path().join("usr/bin/fatal"), "before -f\n").unwrap();
    kill(host.daemon(ID));
    until("the host is killed as it starts it again", || host.has_ended().then_some(()));
    until("the daemon runs without its limits", || {
        (host.query(ID, "get_default_active_thread_percentage") == "100.0").then_some(())
    });
    let client = client();
    host.append_log(ID, &format!("NEW CLIENT {} from user 0: Server already exists", client.id()));
    host.start_again();
    assert_eq!((host.state(ID), host.processes(ID).len()), (DaemonState::Lost, 0));
    assert_eq!(host.start(&wanted()), Err(DaemonError::ClientsLeft { id: wanted().id, clients: 1 }));
    end(client);
    until("the daemon is ready again", || (host.state(ID) == DaemonState::Ready).then_some(()));
    assert_whole(&host, "killed as it started a daemon again");
}
