// SPDX-License-Identifier: Apache-2.0
//! Daemons of a GPU that failed end, say why, and start again once it is well.

use dra_hardware::{DaemonError, DaemonState};
use dra_mps_api::FailedDaemons;

use crate::clients::{client, end};
use crate::host::{Host, id_of, kill, kill_and_wait, spec, until};

const ID: &str = "gpu-00112233445566778899aabbccddeeff";
const OTHER: &str = "claim-3f1b2c4d-0000-4000-8000-123456789abc-0";
const LOST: &str = "GPU-1 fell off the bus (XID 79)";

fn set_failed(host: &Host, failed: &[(&str, &str)]) {
    let failed: FailedDaemons = failed.iter().map(|(id, why)| (id_of(id), (*why).to_owned())).collect();
    host.runtime().block_on(host.client().set_failed(&failed)).unwrap();
}

fn gpu_failed(why: &str) -> DaemonState {
    DaemonState::GpuFailed { why: why.to_owned() }
}

/// Waits until nothing of the daemon runs, and its state says why.
fn until_ended(host: &Host, why: &str) {
    until("the daemon has ended", || (host.state(ID) == gpu_failed(why)).then_some(()));
    assert!(host.processes(ID).is_empty(), "{:?}", host.processes(ID));
    assert_eq!(host.start(&spec(ID)), Err(DaemonError::GpuFailed { id: id_of(ID), why: why.to_owned() }));
}

#[test]
fn a_daemon_of_a_gpu_that_failed_ends_at_once_and_restarts_when_the_gpu_is_well() {
    let host = Host::real();
    set_failed(&host, &[]);
    host.start(&spec(ID)).unwrap();
    host.start(&spec(OTHER)).unwrap();
    let other = host.daemon(OTHER);
    let shared = host.daemon_dir(ID).join("shm/saved");
    std::fs::write(&shared, "").unwrap();
    set_failed(&host, &[(ID, LOST)]);
    until_ended(&host, LOST);
    set_failed(&host, &[(ID, "another reason")]);
    until_ended(&host, "another reason");
    set_failed(&host, &[]);
    let seen = until("the daemon restarts", || host.observed(ID).filter(|seen| seen.restarts == 1));
    assert_eq!(seen.daemon.state, DaemonState::Ready);
    host.start(&spec(ID)).unwrap();
    assert!(shared.exists(), "shared memory of clients stays");
    assert_eq!((host.state(OTHER), host.daemon(OTHER)), (DaemonState::Ready, other));
    let counted = ["gpu_dra_mps_daemons_ended_total", "gpu_dra_mps_daemon_exits_total"].map(|name| host.metric(name));
    assert_eq!(counted, ["1", "0"]);
    assert_eq!(host.children().len(), 2, "the ended daemon was waited for");
}

#[test]
fn a_daemon_that_is_requested_while_its_gpu_failed_does_not_start() {
    let host = Host::real();
    set_failed(&host, &[(ID, LOST)]);
    assert_eq!(host.start(&spec(ID)), Err(DaemonError::GpuFailed { id: id_of(ID), why: LOST.to_owned() }));
    assert_eq!((host.observed(ID), host.daemon_dir(ID).exists()), (None, false));
    set_failed(&host, &[]);
    host.start(&spec(ID)).unwrap();
    set_failed(&host, &[(ID, LOST)]);
    until_ended(&host, LOST);
    host.stop(ID).unwrap();
    assert_eq!((host.observed(ID), host.daemon_dir(ID).exists()), (None, false));
}

#[test]
fn a_daemon_restarts_after_its_clients_when_its_gpu_is_well_again() {
    let host = Host::real();
    host.start(&spec(ID)).unwrap();
    let client = client();
    host.append_log(ID, &format!("NEW CLIENT {} from user 0: Server already exists", client.id()));
    set_failed(&host, &[(ID, LOST)]);
    until_ended(&host, LOST);
    set_failed(&host, &[]);
    assert_eq!(host.start(&spec(ID)), Err(DaemonError::ClientsLeft { id: id_of(ID), clients: 1 }));
    assert_eq!(host.state(ID), gpu_failed(LOST));
    end(client);
    until("the daemon restarts", || (host.state(ID) == DaemonState::Ready).then_some(()));
}

#[test]
fn a_daemon_that_exited_or_was_lost_does_not_restart_while_its_gpu_failed() {
    for is_lost in [false, true] {
        let mut host = Host::real();
        host.start(&spec(ID)).unwrap();
        // Without the client the daemon would restart at once.
        let client = client();
        host.append_log(ID, &format!("NEW CLIENT {} from user 0: Server already exists", client.id()));
        if is_lost {
            host.kill();
            kill_and_wait(host.daemon(ID));
            host.start_again();
            assert_eq!(host.state(ID), DaemonState::Lost);
        } else {
            kill(host.daemon(ID));
            until("it is reported", || matches!(host.state(ID), DaemonState::Exited { .. }).then_some(()));
        }
        set_failed(&host, &[(ID, LOST)]);
        until_ended(&host, LOST);
        end(client);
        until_ended(&host, LOST);
        set_failed(&host, &[]);
        until("the daemon restarts", || (host.state(ID) == DaemonState::Ready).then_some(()));
        assert_eq!(host.observed(ID).unwrap().restarts, 1);
    }
}

#[test]
fn a_host_that_was_restarted_ends_the_daemons_that_it_adopted() {
    let mut host = Host::real();
    host.start(&spec(ID)).unwrap();
    let daemon = host.daemon(ID);
    host.kill();
    host.start_again();
    assert_eq!((host.state(ID), host.daemon(ID)), (DaemonState::Ready, daemon));
    set_failed(&host, &[(ID, LOST)]);
    until_ended(&host, LOST);
    assert_eq!(host.metric("gpu_dra_mps_daemons{state=\"gpu_failed\"}"), "1");
}
