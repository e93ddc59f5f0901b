// SPDX-License-Identifier: Apache-2.0
//! Clients of a daemon. A machine without a GPU has none, so the tests write them into the log.

use std::process::{Child, Command, Stdio};

use dra_hardware::{DaemonError, DaemonState, Daemons as _, Deadline};
use dra_mps_api::DaemonChange;
use futures::StreamExt as _;

use crate::host::{Host, TIMEOUT, id_of, kill, kill_and_wait, spec, until};

const ID: &str = "gpu-00112233445566778899aabbccddeeff";

/// A process that lives until `end`.
pub(crate) fn client() -> Child {
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

pub(crate) fn end(mut client: Child) {
    drop(client.stdin.take());
    client.wait().unwrap();
}

#[test]
fn a_user_that_waits_for_another_user_is_a_state() {
    let host = Host::real();
    host.start(&spec(ID)).unwrap();
    let waiting = client();
    host.append_log(ID, "Starting new server 1 for user 0");
    host.append_log(
        ID,
        &format!("NEW CLIENT {} from user 1000: Server is not ready, push client to pending list", waiting.id()),
    );
    let expect = DaemonState::UserWaiting { waiting: 1000, active: 0 };
    until("a user waits", || (host.state(ID) == expect).then_some(()));
    end(waiting);
    until("no user waits", || (host.state(ID) == DaemonState::Ready).then_some(()));
}

#[test]
fn an_exited_daemon_restarts_after_its_clients() {
    let mut host = Host::real();
    host.start(&spec(ID)).unwrap();
    let client = client();
    host.append_log(ID, &format!("NEW CLIENT {} from user 0: Server already exists", client.id()));
    host.append_log(ID, "client \u{1b}[2Jname\u{202e}");
    kill(host.daemon(ID));
    let why = until("the exit is reported", || match host.state(ID) {
        DaemonState::Exited { why } => Some(why),
        DaemonState::Changing
        | DaemonState::Ready
        | DaemonState::UserWaiting { .. }
        | DaemonState::Lost
        | DaemonState::GpuFailed { .. } => None,
    });
    assert!(why.starts_with("killed by signal 9") && why.ends_with("client ?[2Jname?`"), "{why}");
    let left = DaemonError::ClientsLeft { id: id_of(ID), clients: 1 };
    assert_eq!(host.start(&spec(ID)), Err(left.clone()));
    host.kill();
    host.start_again();
    assert_eq!((host.state(ID), host.start(&spec(ID))), (DaemonState::Lost, Err(left)));
    end(client);
    until("the daemon restarts", || (host.state(ID) == DaemonState::Ready).then_some(()));
}

#[test]
fn a_daemon_with_clients_stays_where_only_unused_ones_are_to_end() {
    let host = Host::real();
    host.start(&spec(ID)).unwrap();
    let client = client();
    host.append_log(ID, &format!("NEW CLIENT {} from user 0: Server already exists", client.id()));
    host.append_log(ID, "Server 11175 exited with status 1");
    let stop = || host.client().stop_unused(&id_of(ID), TIMEOUT, &Deadline::none());
    assert_eq!(stop(), Err(DaemonError::InUse { id: id_of(ID), clients: 1 }));
    assert_eq!(host.state(ID), DaemonState::Ready);
    let failures = || host.metric("gpu_dra_mps_server_failures_total");
    until("the failure is counted", || (failures() == "1").then_some(()));
    end(client);
    stop().unwrap();
    assert!(host.processes(ID).is_empty() && !host.daemon_dir(ID).exists());
    stop().unwrap();
}

#[test]
fn a_daemon_that_exited_with_its_host_restarts_after_its_clients() {
    // In an upgrade, and when both are killed before the log was read.
    for end_both in [
        |host: &mut Host| assert!(host.terminate()),
        |host: &mut Host| {
            host.kill();
            kill_and_wait(host.daemon(ID));
        },
    ] {
        let mut host = Host::real();
        host.start(&spec(ID)).unwrap();
        let client = client();
        host.append_log(ID, &format!("NEW CLIENT {} from user 0: Server already exists", client.id()));
        end_both(&mut host);
        assert!(host.processes(ID).is_empty());
        host.start_again();
        let left = DaemonError::ClientsLeft { id: id_of(ID), clients: 1 };
        assert_eq!((host.state(ID), host.start(&spec(ID))), (DaemonState::Lost, Err(left)));
        end(client);
        until("the daemon restarts", || (host.state(ID) == DaemonState::Ready).then_some(()));
    }
}

#[test]
fn an_adopted_daemon_that_exits_before_its_first_check_restarts_after_its_clients() {
    let mut host = Host::real();
    host.start(&spec(ID)).unwrap();
    let client = client();
    host.append_log(ID, &format!("NEW CLIENT {} from user 0: Server already exists", client.id()));
    host.kill();
    host.start_again();
    kill(host.daemon(ID));
    until("the exit is reported", || matches!(host.state(ID), DaemonState::Exited { .. }).then_some(()));
    assert_eq!(host.start(&spec(ID)), Err(DaemonError::ClientsLeft { id: id_of(ID), clients: 1 }));
    end(client);
    until("the daemon restarts", || (host.state(ID) == DaemonState::Ready).then_some(()));
}

#[test]
fn a_failed_server_is_reported() {
    let host = Host::real();
    host.start(&spec(ID)).unwrap();
    host.append_log(ID, "Server 11175 exited with status 1");
    let message =
        until("it is reported", || host.observed(ID).map(|seen| seen.message).filter(|message| !message.is_empty()));
    assert_eq!(message, "an MPS server exited with status 1, which ended its clients");
    assert_eq!(
        (host.state(ID), host.metric("gpu_dra_mps_server_failures_total")),
        (DaemonState::Ready, "1".to_owned())
    );
    host.append_log(ID, "Starting new server 11176 for user 0");
    until("the message is cleared", || host.observed(ID).filter(|seen| seen.message.is_empty()));
}

#[test]
fn a_watch_stream_has_every_daemon_and_every_change() {
    let host = Host::real();
    host.start(&spec(ID)).unwrap();
    let client = host.client();
    let mut changes = Box::pin(host.runtime().block_on(client.watch()).unwrap());
    let mut next = || host.runtime().block_on(changes.next()).unwrap().unwrap();
    let first = next();
    assert!(
        matches!(&first, DaemonChange::Updated(seen) if seen.daemon.state == DaemonState::Ready && seen.restarts == 0),
        "{first:?}"
    );
    kill(host.daemon(ID));
    let exited = next();
    assert!(
        matches!(&exited, DaemonChange::Updated(seen) if matches!(seen.daemon.state, DaemonState::Exited { .. })),
        "{exited:?}"
    );
    let back = next();
    assert!(matches!(&back, DaemonChange::Updated(seen) if seen.restarts == 1), "{back:?}");
    host.stop(ID).unwrap();
    let gone = || id_of(ID);
    assert!((0..3).map(|_| next()).any(|change| change == DaemonChange::Removed(gone())));
}
