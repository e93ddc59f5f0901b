// SPDX-License-Identifier: Apache-2.0
//! The shared memory of a daemon and its clients: how large it is.

use std::path::Path;

use dra_kubelet_plugin::mps_host::place::Place;
use dra_model::Bytes;
use rustix::fs::statvfs;

use crate::host::{Host, id_of, spec};

const ID: &str = "gpu-00112233445566778899aabbccddeeff";

/// Bytes and files that fit into a directory.
fn size(dir: &Path) -> (u64, u64) {
    let found = statvfs(dir).unwrap();
    (found.f_blocks * found.f_frsize, found.f_files)
}

#[test]
fn shared_memory_is_as_large_as_is_said_and_changes_with_what_is_said() {
    let host = Host::real();
    let shm_dir = host.start(&spec(ID)).unwrap().shm_dir;
    assert_eq!(size(&shm_dir), (1 << 20, 256));
    let place = Place::new(&host.root(), &id_of(ID));
    place.make(Bytes::from_mib(2)).unwrap();
    assert_eq!(size(&shm_dir), (2 << 20, 512));
    std::fs::write(shm_dir.join("held"), vec![0; 3 << 19]).unwrap();
    place.make(Bytes::from_mib(1)).unwrap();
    assert_eq!((size(&shm_dir), host.mounts()), ((2 << 20, 512), 1), "what clients have there fits no more");
}
