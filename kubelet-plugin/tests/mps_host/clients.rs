// SPDX-License-Identifier: Apache-2.0
//! What is known of the clients of a daemon, which a machine without a GPU has none of: the log tells of them.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use dra_hardware::{DaemonError, DaemonState};
use dra_kubelet_plugin::mps_host::wire::Change;
use futures::StreamExt as _;

use crate::host::{Host, id_of, kill, spec, until};

const ID: &str = "gpu-00112233445566778899aabbccddeeff";

/// A process that lives until it is told to end.
fn client() -> Child {
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

fn end(mut client: Child) {
    drop(client.stdin.take());
    client.wait().unwrap();
}

fn say(host: &Host, line: &str) {
    let mut log = OpenOptions::new().append(true).open(host.place(ID).join("log/control.out")).unwrap();
    log.write_all(format!("[2026-11-22 09:52:46.873 Control 11130] {line}\n").as_bytes()).unwrap();
}

fn state(host: &Host) -> DaemonState {
    host.seen(ID).unwrap().daemon.state
}

#[test]
fn a_user_that_waits_for_another_one_is_told_of() {
    let host = Host::real();
    host.start(&spec(ID)).unwrap();
    let waiting = client();
    say(&host, "Starting new server 1 for user 0");
    say(
        &host,
        &format!("NEW CLIENT {} from user 1000: Server is not ready, push client to pending list", waiting.id()),
    );
    let expect = DaemonState::UserWaits { waiting: 1000, active: 0 };
    until("somebody waits", || (state(&host) == expect).then_some(()));
    end(waiting);
    until("nobody waits", || (state(&host) == DaemonState::Ready).then_some(()));
}

#[test]
fn a_dead_daemon_waits_for_the_end_of_its_clients() {
    let mut host = Host::real();
    host.start(&spec(ID)).unwrap();
    let client = client();
    say(&host, &format!("NEW CLIENT {} from user 0: Server already exists", client.id()));
    kill(host.daemon(ID));
    let why = until("the death is seen", || match state(&host) {
        DaemonState::Died { why } => Some(why),
        DaemonState::Changing | DaemonState::Ready | DaemonState::UserWaits { .. } | DaemonState::Lost => None,
    });
    assert!(why.starts_with("it ended by signal 9"), "{why}");
    let left = DaemonError::ClientsLeft { id: id_of(ID), clients: 1 };
    assert_eq!(host.start(&spec(ID)), Err(left.clone()));
    host.kill();
    host.start_again();
    assert_eq!((state(&host), host.start(&spec(ID))), (DaemonState::Lost, Err(left)));
    end(client);
    until("it is started again", || (state(&host) == DaemonState::Ready).then_some(()));
}

#[test]
fn a_watcher_hears_of_every_daemon_and_every_change() {
    let host = Host::real();
    host.start(&spec(ID)).unwrap();
    let client = host.client();
    let mut changes = Box::pin(host.runtime().block_on(client.watch()).unwrap());
    let mut next = || host.runtime().block_on(changes.next()).unwrap().unwrap();
    let first = next();
    assert!(
        matches!(&first, Change::Now(seen) if seen.daemon.state == DaemonState::Ready && seen.restarts == 0),
        "{first:?}"
    );
    kill(host.daemon(ID));
    let died = next();
    assert!(matches!(&died, Change::Now(seen) if matches!(seen.daemon.state, DaemonState::Died { .. })), "{died:?}");
    let back = next();
    assert!(matches!(&back, Change::Now(seen) if seen.restarts == 1), "{back:?}");
    host.stop(ID).unwrap();
    let gone = || id_of(ID);
    assert!((0..3).map(|_| next()).any(|change| change == Change::Removed(gone())));
}
