// SPDX-License-Identifier: Apache-2.0
//! A daemon of NVIDIA's own program from its start to its end.

use std::fs;
use std::time::{Duration, Instant};

use dra_hardware::{DaemonError, DaemonState, Daemons as _, MultiUser};
use dra_model::Bytes;

use crate::host::{Host, percent, spec};

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
    assert_eq!((daemon.run_dir, daemon.shm_dir), (host.place(ID).join("run"), host.place(ID).join("shm")));
    assert!(!daemon.multi_user);
    let answers = [
        "get_default_active_thread_percentage",
        "get_default_device_pinned_mem_limit 0",
        "get_default_device_pinned_mem_limit 1",
    ];
    assert_eq!(answers.map(|question| host.ask(ID, question)), ["30.0", "1G", "512M"]);
    let listed = host.client().list().unwrap();
    assert_eq!(listed.iter().map(|daemon| daemon.id.as_str()).collect::<Vec<_>>(), [ID]);
    assert_eq!(host.mounts(), 1);
    host.stop(ID).unwrap();
    assert_eq!((host.processes(ID).len(), host.mounts(), host.place(ID).exists()), (0, 0, false));
    assert_eq!(host.client().list().unwrap(), []);
    host.stop(ID).unwrap();
    eprintln!("ready after {took:?}");
}

#[test]
fn a_daemon_has_the_shared_memory_of_its_clients() {
    let host = Host::real();
    let daemon = host.start(&spec(ID)).unwrap();
    let pid = host.daemon(ID);
    fs::write(daemon.shm_dir.join("told"), "by a client").unwrap();
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/root/dev/shm/told")).unwrap(), "by a client");
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
    assert_eq!(host.ask(ID, "get_default_active_thread_percentage"), "10.0");
}

#[test]
fn a_program_without_multi_user_is_told_from_one_that_fails() {
    let host = Host::real();
    let mut wanted = spec(ID);
    wanted.multi_user = MultiUser::On;
    assert_eq!(host.start(&wanted), Err(DaemonError::NoMultiUser { id: wanted.id.clone() }));
    assert_eq!((host.processes(ID).len(), host.mounts(), host.place(ID).exists()), (0, 0, false));
    wanted.multi_user = MultiUser::IfKnown;
    assert!(!host.start(&wanted).unwrap().multi_user);
}

#[test]
fn the_end_of_the_host_is_the_end_of_its_daemons() {
    let mut host = Host::real();
    let ids = [ID, "claim-3f1b2c4d-0000-4000-8000-123456789abc-0"];
    for id in ids {
        host.start(&spec(id)).unwrap();
    }
    assert!(host.terminate());
    for id in ids {
        assert_eq!((host.processes(id).len(), host.place(id).exists()), (0, false));
    }
    assert_eq!(host.mounts(), 0);
}
