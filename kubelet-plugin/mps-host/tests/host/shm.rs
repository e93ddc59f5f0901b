// SPDX-License-Identifier: Apache-2.0
//! The shared memory of a daemon and its clients: its size, and the removal of files of ended claims.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use dra_hardware::{Daemons as _, Deadline};
use dra_model::{Bytes, ClaimUid};
use dra_mps_host::daemon_dir::DaemonDir;
use rustix::fs::statvfs;

use crate::clients::end;
use crate::host::{Host, id_of, spec, until};

const ID: &str = "gpu-00112233445566778899aabbccddeeff";

/// Bytes and files that fit into a directory.
fn size(dir: &Path) -> (u64, u64) {
    let found = statvfs(dir).unwrap();
    (found.f_blocks * found.f_frsize, found.f_files)
}

#[test]
fn shared_memory_has_the_configured_size_and_follows_it() {
    let host = Host::real();
    let shm_dir = host.start(&spec(ID)).unwrap().shm_dir;
    assert_eq!(size(&shm_dir), (1 << 20, 256));
    let daemon_dir = DaemonDir::new(&host.root(), &id_of(ID));
    daemon_dir.create(Bytes::from_mib(2)).unwrap();
    assert_eq!(size(&shm_dir), (2 << 20, 512));
    fs::write(shm_dir.join("held"), vec![0; 3 << 19]).unwrap();
    daemon_dir.create(Bytes::from_mib(1)).unwrap();
    assert_eq!((size(&shm_dir), host.mounts()), ((2 << 20, 512), 1), "what clients have there fits no more");
}

#[test]
fn files_of_an_ended_claim_are_removed_and_files_in_use_stay() {
    let mut host = Host::real();
    let shm_dir = host.start(&spec(ID)).unwrap().shm_dir;
    let [elder, younger]: [ClaimUid; 2] = ["elder", "younger"].map(|uid| uid.parse().unwrap());
    let leave = |host: &Host, claim: &ClaimUid| {
        host.client().leave(&id_of(ID), claim, &Deadline::none()).unwrap();
    };
    let write = |name: &str| fs::write(shm_dir.join(name), "x").unwrap();
    let names = || {
        let names = fs::read_dir(&shm_dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    host.start_shared(&spec(ID), &elder).unwrap();
    write("elder");
    host.start_shared(&spec(ID), &younger).unwrap();
    for name in ["left", "held"] {
        write(name);
    }
    fs::create_dir(shm_dir.join("dir")).unwrap();
    write("dir/left");
    let holder = holding(&shm_dir.join("held"));
    leave(&host, &younger);
    assert_eq!(names(), ["elder", "held"], "unused files are removed with the claim");
    end(holder);
    until("files that are closed are removed", || (names() == ["elder"]).then_some(()));
    // The next host knows no claims, but what it found.
    host.kill();
    host.start_again();
    write("later");
    leave(&host, &elder);
    until("later files are removed", || (names() == ["elder"]).then_some(()));
    host.stop(ID).unwrap();
    leave(&host, &elder);
    assert_eq!(host.observed(ID), None);
}

/// A process that has a file open.
fn holding(path: &Path) -> Child {
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(fs::File::options().append(true).open(path).unwrap()).spawn().unwrap()
}
