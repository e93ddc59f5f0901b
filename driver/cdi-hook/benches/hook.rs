// SPDX-License-Identifier: Apache-2.0
//! How long the hook delays a container of an image with a cache of 100 KiB: from the start of the program to its end.
//!
//! `cargo bench -p dra-cdi-hook -- PROGRAM` measures another build of the program, such as the one of the image.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    reason = "a measurement stops at the first surprise and prints"
)]

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dra_cdi_hook::ld_cache::{Cache, Library, merge};

const RUNS: usize = 200;

const CACHE_BYTES: usize = 100 * 1024;

/// As many as a driver of the 580 branch has.
const LIBRARIES: usize = 40;

fn main() {
    let program = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_gpu-cdi-hook").to_owned());
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("rootfs");
    for below in ["etc", "usr/lib64"] {
        fs::create_dir_all(root.join(below)).unwrap();
    }
    fs::write(dir.path().join("config.json"), r#"{"root":{"path":"rootfs"}}"#).unwrap();
    let sonames: Vec<String> = (0..LIBRARIES).map(|number| format!("libnvidia-part{number}.so.1")).collect();
    for soname in &sonames {
        fs::write(root.join("usr/lib64").join(soname), "a library").unwrap();
    }
    let libraries = sonames.iter().map(|soname| format!("--library={soname}"));
    let mut arguments: Vec<String> = libraries.collect();
    arguments.push("--library-dir=/usr/lib64".to_owned());
    arguments.push("--symlink=libnvidia-part1.so.1::/usr/lib64/libnvidia-part1.so".to_owned());
    arguments.push("--mask-params=/proc/driver/nvidia/params".to_owned());
    let state = format!(r#"{{"bundle":"{}"}}"#, dir.path().display());
    let cache = cache();
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            fs::write(root.join("etc/ld.so.cache"), &cache).unwrap();
            let elapsed = run(&program, &arguments, &state);
            assert!(fs::metadata(root.join("etc/ld.so.cache")).unwrap().len() > cache.len() as u64);
            elapsed
        })
        .collect();
    times.sort();
    let (least, median) = (times[0], times[RUNS / 2]);
    let (almost_all, most) = (times[RUNS * 99 / 100], times[RUNS - 1]);
    println!(
        "{RUNS} runs, cache of {} bytes: least {least:?}, median {median:?}, 99 % {almost_all:?}, most {most:?}",
        cache.len()
    );
}

fn run(program: &str, arguments: &[String], state: &str) -> Duration {
    let started = Instant::now();
    let mut child =
        Command::new(program).args(arguments).env_clear().stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(state.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let elapsed = started.elapsed();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !stderr.contains("cache"), "{stderr}");
    elapsed
}

/// A cache of the size, of libraries with names as Debian has them.
fn cache() -> Vec<u8> {
    let mut libraries = Vec::new();
    let empty = Cache { flags: 2, entries: Vec::new(), strings: b"", generator: None, hwcaps: None };
    let mut bytes = Vec::new();
    while bytes.len() < CACHE_BYTES {
        let soname = format!("libpart{}.so.{}", libraries.len(), libraries.len() % 7);
        let path = format!("/usr/lib/x86_64-linux-gnu/{soname}");
        libraries.push(Library { soname: soname.into_bytes(), path: path.into_bytes() });
        bytes = merge(&empty, &libraries).unwrap();
    }
    bytes
}
