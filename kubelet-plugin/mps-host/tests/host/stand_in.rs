// SPDX-License-Identifier: Apache-2.0
//! A daemon that has servers and clients, of several users, with `-M` or without, and with faults of its own: all that
//! NVIDIA's programs cannot show without a GPU, and those of R535 not at all. A stand-in of ours plays them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use dra_hardware::{DaemonError, DaemonSpec, DaemonState, Daemons as _, Deadline, MultiUser};
use dra_model::Bytes;
use tempfile::TempDir;

use crate::clients::{client, end};
use crate::host::{Host, TIMEOUT, kill, kill_and_wait, percent, spec, until};
use crate::scripts::left_of;

const ID: &str = "gpu-00112233445566778899aabbccddeeff";

/// Built once; a program of another package is nothing cargo would build for a test.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package=dra-sim", "--bin=mps-stand-in", "--target-dir"]);
        assert!(build.arg(target_dir).status().unwrap().success(), "the stand-in does not build");
        target_dir.join("debug/mps-stand-in")
    })
}

/// A host whose driver root has the stand-in.
struct StandIn {
    host: Host,
    driver: TempDir,
}

impl StandIn {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(arguments: &[&str]) -> Self {
        let driver = tempfile::tempdir().unwrap();
        for name in ["nvidia-cuda-mps-control", "nvidia-cuda-mps-server"] {
            // By another process: a program that another test starts at this moment would hold the file open for writing.
            let mut install = Command::new("install");
            install.args(["-D", "--mode=755"]).arg(program()).arg(driver.path().join("usr/bin").join(name));
            assert!(install.status().unwrap().success());
        }
        Self { host: Host::with(driver.path(), arguments), driver }
    }

    /// From now on.
    fn behave(&self, behaviour: &str) {
        let path = self.driver.path().join("usr/bin/nvidia-cuda-mps-control.behaviour");
        fs::write(path.with_extension("new"), behaviour).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    }

    fn start(&self, multi_user: MultiUser) -> Result<dra_hardware::Daemon, DaemonError> {
        self.host.start(&DaemonSpec { multi_user, ..spec(ID) })
    }

    /// The server that is there, with clients.
    fn server(&self, clients: usize) -> u32 {
        until("a server has clients", || {
            let server = self.host.query(ID, "get_server_list").parse().ok()?;
            let answer = self.host.query(ID, &format!("get_client_list {server}"));
            (answer.lines().filter(|pid| pid.parse::<u32>().is_ok()).count() == clients).then_some(server)
        })
    }
}

fn is_running(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn a_daemon_gets_m_where_its_program_has_it() {
    let stand_in = StandIn::new();
    for (behaviour, wanted, expect) in [
        ("", MultiUser::Off, Some(false)),
        ("", MultiUser::On, Some(true)),
        ("", MultiUser::IfKnown, Some(true)),
        ("old", MultiUser::Off, Some(false)),
        ("old", MultiUser::On, None),
        ("old", MultiUser::IfKnown, Some(false)),
    ] {
        stand_in.behave(behaviour);
        match (stand_in.start(wanted), expect) {
            (Ok(daemon), Some(multi_user)) => {
                let lines = stand_in.host.processes(ID);
                let has_m = lines[&stand_in.host.daemon(ID)].contains(" -f -M");
                assert_eq!((daemon.multi_user, has_m), (multi_user, multi_user), "{behaviour} {wanted:?}");
            }
            (Err(DaemonError::NoMultiUser { .. }), None) => assert_eq!(left_of(&stand_in.host), (0, 0, false)),
            (answer, _) => panic!("{behaviour} {wanted:?}: {answer:?}"),
        }
        stand_in.host.stop(ID).unwrap();
    }
}

#[test]
fn a_waiting_user_is_a_daemon_state() {
    let stand_in = StandIn::new();
    stand_in.start(MultiUser::Off).unwrap();
    let (root, other) = (client(), client());
    stand_in.behave(&format!("client {} 0\n", root.id()));
    let server = stand_in.server(1);
    stand_in.behave(&format!("client {} 0\nclient {} 1000\n", root.id(), other.id()));
    let expect = DaemonState::UserWaiting { waiting: 1000, active: 0 };
    until("it is reported", || (stand_in.host.state(ID) == expect).then_some(()));
    assert_eq!(stand_in.server(1), server);
    end(root);
    until("the other user is served", || (stand_in.host.state(ID) == DaemonState::Ready).then_some(()));
    assert_ne!(stand_in.server(1), server);
    end(other);
}

#[test]
fn users_share_a_server_with_m() {
    let stand_in = StandIn::new();
    stand_in.start(MultiUser::On).unwrap();
    let (root, other) = (client(), client());
    stand_in.behave(&format!("client {} 0\nclient {} 1000\n", root.id(), other.id()));
    stand_in.server(2);
    // The line that the log has while a server starts.
    let waits = format!("NEW CLIENT {} from user 1000: Server is not ready, push client to pending list", other.id());
    stand_in.host.append_log(ID, &waits);
    stand_in.host.append_log(ID, "Server 1 exited with status 1");
    until("that was read", || stand_in.host.observed(ID).filter(|seen| seen.message.contains("status 1")));
    assert_eq!(stand_in.host.state(ID), DaemonState::Ready);
    end(root);
    end(other);
}

#[test]
fn a_server_that_crashes_is_reported_and_the_next_one_serves() {
    let stand_in = StandIn::new();
    stand_in.start(MultiUser::Off).unwrap();
    let client = client();
    let line = format!("client {} 0\n", client.id());
    stand_in.behave(&line);
    let server = stand_in.server(1);
    kill(server);
    assert_ne!(stand_in.server(1), server);
    let failures = || stand_in.host.metric("gpu_dra_mps_server_failures_total");
    until("it is counted", || (failures() == "1").then_some(()));
    // Without clients there is no next one.
    end(client);
    let server = stand_in.server(0);
    kill(server);
    let message = until("it is reported", || {
        stand_in.host.observed(ID).map(|seen| seen.message).filter(|message| !message.is_empty())
    });
    assert_eq!(message, "an MPS server exited with status -9, which ended its clients");
    assert_eq!((stand_in.host.state(ID), failures()), (DaemonState::Ready, "2".to_owned()));
}

/// An exited daemon does not restart while a client runs, and until then its server continues.
fn assert_server_runs_until_client_exits(stand_in: &StandIn, server: u32, client: Child) {
    let refused = stand_in.start(MultiUser::Off).unwrap_err();
    assert_eq!(refused, DaemonError::ClientsLeft { id: spec(ID).id, clients: 1 });
    assert!(is_running(server));
    end(client);
    until("the daemon restarts", || stand_in.host.observed(ID).filter(|seen| seen.restarts == 1));
    assert!(!is_running(server));
}

#[test]
fn clients_of_an_exited_daemon_have_their_server_until_they_exit() {
    let stand_in = StandIn::new();
    stand_in.start(MultiUser::Off).unwrap();
    let client = client();
    let line = format!("client {} 0\n", client.id());
    stand_in.behave(&line);
    let server = stand_in.server(1);
    // Before the first check: the clients are known from the log only.
    kill(stand_in.host.daemon(ID));
    until("it is reported", || matches!(stand_in.host.state(ID), DaemonState::Exited { .. }).then_some(()));
    assert_server_runs_until_client_exits(&stand_in, server, client);
}

#[test]
fn clients_of_an_exited_daemon_delay_claims_for_a_bounded_time() {
    // Long enough that the first claim is refused, and short enough to see the end.
    let stand_in = StandIn::with(&["--clients-timeout=5"]);
    stand_in.start(MultiUser::Off).unwrap();
    let client = client();
    stand_in.behave(&format!("client {} 0\n", client.id()));
    let server = stand_in.server(1);
    kill(stand_in.host.daemon(ID));
    until("it is reported", || matches!(stand_in.host.state(ID), DaemonState::Exited { .. }).then_some(()));
    let refused = stand_in.start(MultiUser::Off).unwrap_err();
    assert_eq!(refused, DaemonError::ClientsLeft { id: spec(ID).id, clients: 1 });
    assert!(is_running(server), "no client is ended at once");
    until("the daemon restarts", || stand_in.host.observed(ID).filter(|seen| seen.restarts == 1));
    assert!(!is_running(server));
    stand_in.start(MultiUser::Off).unwrap();
    end(client);
}

#[test]
fn the_server_of_a_daemon_ends_with_the_gpu_while_its_client_runs() {
    let stand_in = StandIn::new();
    stand_in.start(MultiUser::Off).unwrap();
    let mut client = client();
    stand_in.behave(&format!("client {} 0\n", client.id()));
    let server = stand_in.server(1);
    let failed = [(spec(ID).id, "GPU-1 fell off the bus".to_owned())].into();
    stand_in.host.runtime().block_on(stand_in.host.client().set_failed(&failed)).unwrap();
    until("it is reported", || matches!(stand_in.host.state(ID), DaemonState::GpuFailed { .. }).then_some(()));
    assert!(!is_running(server) && stand_in.host.processes(ID).is_empty());
    assert!(client.try_wait().unwrap().is_none(), "only the daemon is ended");
    end(client);
}

#[test]
fn clients_of_a_daemon_that_exited_with_its_host_have_their_server_until_they_exit() {
    let mut stand_in = StandIn::new();
    stand_in.start(MultiUser::Off).unwrap();
    let client = client();
    stand_in.host.kill();
    // Without an MPS host.
    stand_in.behave(&format!("client {} 0\n", client.id()));
    let server = stand_in.server(1);
    kill_and_wait(stand_in.host.daemon(ID));
    stand_in.host.start_again();
    assert_eq!(stand_in.host.state(ID), DaemonState::Lost);
    assert_server_runs_until_client_exits(&stand_in, server, client);
}

#[test]
fn a_stop_waits_for_clients_until_its_timeout() {
    let stand_in = StandIn::new();
    for behaviour in ["", "hang-quit"] {
        stand_in.start(MultiUser::Off).unwrap();
        let client = client();
        stand_in.behave(&format!("client {} 0\n{behaviour}", client.id()));
        let server = stand_in.server(1);
        let begun = Instant::now();
        stand_in.host.client().stop(&spec(ID).id, Duration::from_secs(1), &Deadline::none()).unwrap();
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(6), "{behaviour}: {took:?}");
        assert_eq!((left_of(&stand_in.host), is_running(server)), ((0, 0, false), false), "{behaviour}");
        end(client);
        stand_in.behave("");
    }
}

#[test]
fn a_daemon_that_hangs_is_ended_and_one_that_is_slow_is_waited_for() {
    let stand_in = StandIn::new();
    for (behaviour, expect) in [
        ("hang-start", "its log is empty"),
        ("no-answer", "no answer of the daemon within"),
        ("exit-at-once", "exited with code 1"),
    ] {
        stand_in.behave(behaviour);
        let refused =
            stand_in.host.client().start(&spec(ID), None, Duration::from_millis(300), &Deadline::none()).unwrap_err();
        assert!(
            matches!(&refused, DaemonError::NotReady { seen, .. } if seen.contains(expect)),
            "{behaviour}: {refused}"
        );
        assert_eq!(left_of(&stand_in.host), (0, 0, false), "{behaviour}");
    }
    stand_in.behave("slow-start 300");
    let begun = Instant::now();
    stand_in.start(MultiUser::Off).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[test]
fn limits_that_are_answered_and_not_applied_are_refused() {
    let stand_in = StandIn::new();
    stand_in.behave("ignore-set");
    let threads = DaemonSpec { threads: percent(20), ..spec(ID) };
    let memory = DaemonSpec { memory: [(0, Bytes(1 << 30))].into(), ..spec(ID) };
    for (wanted, expect) in [(threads, "active thread percentage"), (memory, "pinned memory limit of device 0")] {
        let refused = stand_in.host.start(&wanted).unwrap_err();
        assert!(matches!(&refused, DaemonError::LimitNotApplied { what, .. } if what == expect), "{refused}");
        assert_eq!(left_of(&stand_in.host), (0, 0, false));
    }
}

#[test]
fn a_host_that_stops_refuses_calls_on_connections_that_were_open_before() {
    const OTHER: &str = "claim-3f1b2c4d-0000-4000-8000-123456789abc-0";
    let mut stand_in = StandIn::new();
    stand_in.start(MultiUser::Off).unwrap();
    let client = client();
    stand_in.behave(&format!("client {} 0\n", client.id()));
    stand_in.server(1);
    let open_before = stand_in.host.client();
    assert_eq!(open_before.list(&Deadline::none()).unwrap().len(), 1);
    stand_in.host.ask_to_end();
    // The client keeps the host from ending.
    until("the host hands over", || (!stand_in.host.root().join("host.sock").exists()).then_some(()));
    let refused = open_before.start(&spec(OTHER), None, TIMEOUT, &Deadline::none()).unwrap_err();
    assert!(refused.is_no_answer(), "{refused}");
    assert!(!stand_in.host.daemon_dir(OTHER).exists());
    end(client);
    until("the host ends", || stand_in.host.has_ended().then_some(()));
}

#[test]
fn a_daemon_that_becomes_ready_while_its_host_stops_is_not_returned() {
    let mut stand_in = StandIn::new();
    stand_in.behave("slow-start 2000");
    let connection = stand_in.host.client();
    let start = thread::spawn(move || connection.start(&spec(ID), None, TIMEOUT, &Deadline::none()));
    until("the daemon starts", || (!stand_in.host.processes(ID).is_empty()).then_some(()));
    stand_in.host.ask_to_end();
    let refused = start.join().unwrap().unwrap_err();
    assert!(refused.is_no_answer(), "{refused}");
    until("the host ends", || stand_in.host.has_ended().then_some(()));
    stand_in.behave("");
    stand_in.host.start_again();
    stand_in.start(MultiUser::Off).unwrap();
}
