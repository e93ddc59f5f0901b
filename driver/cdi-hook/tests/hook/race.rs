// SPDX-License-Identifier: Apache-2.0
//! Another container changes the root filesystem while the hook works on it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use dra_cdi_hook::arguments::Symlink;
use dra_cdi_hook::resolve::{ContainerRoot, host_dir};
use dra_cdi_hook::{cache_file, symlinks};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

use crate::cache_rules::libraries;
use crate::image::{ARGUMENTS, Image, TIME_LIMIT, sparse};

/// Images of one race.
const ROUNDS: usize = 40;

/// Calls of the hook's work in each.
const CALLS: usize = 40;

/// What a path of the image becomes and ceases to be, again and again.
struct Race {
    path: &'static str,
    other: fn(&Image, &Path),
}

const RACES: [Race; 8] = [
    Race { path: "etc", other: |image, other| link(image.host().join("etc"), other) },
    Race { path: "etc", other: |_, other| link("../../host/etc", other) },
    Race { path: "etc", other: |_, other| fifo(other) },
    Race { path: "etc/ld.so.cache", other: |image, other| link(image.host().join("etc/ld.so.cache"), other) },
    Race { path: "etc/ld.so.cache", other: |_, other| fifo(other) },
    Race { path: "etc/ld.so.cache", other: |_, other| sparse(other, 1 << 40) },
    Race { path: "etc/ld.so.cache", other: |_, other| fs::create_dir(other).unwrap() },
    Race { path: "usr/lib64", other: |image, other| link(image.host().join("usr/lib64"), other) },
];

fn link(target: impl AsRef<Path>, path: &Path) {
    std::os::unix::fs::symlink(target, path).unwrap();
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
}

/// Exchanges two paths until it is stopped. One of them may vanish for a moment.
fn exchange(left: &Path, right: &Path, started: &Barrier, stop: &AtomicBool) {
    let mut rounds = 0;
    renameat_with(CWD, left, CWD, right, RenameFlags::EXCHANGE).unwrap();
    started.wait();
    while !stop.load(Ordering::Relaxed) && rounds < 1_000_000 {
        renameat_with(CWD, left, CWD, right, RenameFlags::EXCHANGE).ok();
        rounds += 1;
    }
}

/// Runs `work` while a path of a new image is exchanged.
fn race(race: &Race, work: impl FnOnce(&Image)) {
    let image = Image::new();
    let outside = image.outside();
    let paths: [PathBuf; 2] = [image.file(race.path), image.file("other")];
    (race.other)(&image, &paths[1]);
    let stop = AtomicBool::new(false);
    let started = Barrier::new(2);
    thread::scope(|scope| {
        let exchanging = scope.spawn(|| exchange(&paths[0], &paths[1], &started, &stop));
        started.wait();
        work(&image);
        stop.store(true, Ordering::Relaxed);
        exchanging.join().unwrap();
    });
    assert_eq!(image.outside(), outside, "{}", race.path);
}

#[test]
fn a_swap_during_the_work_leads_nowhere_else() {
    let symlink =
        Symlink { target: "libcuda.so.1".into(), dir: "/usr/lib64".into(), name: OsString::from("libcuda.so") };
    let mut done = 0;
    for each in &RACES {
        for _ in 0..ROUNDS {
            race(each, |image| {
                let root = ContainerRoot::new(host_dir(&image.root()).unwrap());
                for call in 0..CALLS {
                    let started = Instant::now();
                    done += usize::from(cache_file::update(&root, &libraries()[..=call % 5]).is_ok());
                    symlinks::ensure(&root, &symlink).ok();
                    assert!(started.elapsed() < TIME_LIMIT);
                }
            });
        }
    }
    assert!(done > 0, "the work never succeeded, so nothing was raced");
}

#[test]
fn the_program_ends_during_a_swap() {
    for each in &RACES {
        race(each, |image| {
            for _ in 0..3 {
                let ended = image.run(&ARGUMENTS);
                assert!(matches!(ended.code, Some(0 | 1)), "{}: {ended:?}", each.path);
            }
        });
    }
}
