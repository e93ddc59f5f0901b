// SPDX-License-Identifier: Apache-2.0
//! The program as it is shipped: linked statically, so that nothing of an image is loaded into it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, elf};
use rustix::thread::CapabilitySet;

use crate::completes::ldconfig;
use crate::image::{ARGUMENTS, Image, run};

/// Builds as the Makefile does, not optimized: on musl, or on the C library of a machine that has no standard library for musl.
fn build() -> PathBuf {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let musl = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let asked = Command::new("rustc").args(["--print", "target-libdir", "--target", &musl]).output().unwrap();
    let has_musl = Path::new(String::from_utf8(asked.stdout).unwrap().trim()).is_dir();
    let target = if has_musl { musl } else { host };
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("static");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--locked", "--package=dra-cdi-hook", "--target", &target])
        .arg("--target-dir")
        .arg(&dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .status()
        .unwrap();
    assert!(status.success());
    dir.join(target).join("debug/gpu-cdi-hook")
}

#[test]
fn the_program_has_no_interpreter_and_needs_no_library() {
    let program = build();
    let bytes = fs::read(&program).unwrap();
    let file = ElfFile64::<Endianness>::parse(bytes.as_slice()).unwrap();
    let endian = file.endian();
    let headers = file.elf_header().program_headers(endian, bytes.as_slice()).unwrap();
    assert!(headers.iter().all(|header| header.p_type(endian) != elf::PT_INTERP));
    let dynamic = headers.iter().filter_map(|header| header.dynamic(endian, bytes.as_slice()).unwrap()).flatten();
    assert!(dynamic.into_iter().all(|entry| entry.d_tag.get(endian) != elf::DT_NEEDED));

    let image = Image::new();
    let ended = run(Command::new(program).args(ARGUMENTS).current_dir(image.root()), image.state().as_bytes());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(ldconfig(&image).contains("libcuda.so.1"));
}

#[test]
fn the_program_keeps_two_capabilities_and_few_system_calls() {
    for program in [PathBuf::from(env!("CARGO_BIN_EXE_gpu-cdi-hook")), build()] {
        check_limits(&program);
    }
}

fn check_limits(program: &Path) {
    for (arguments, capabilities) in [
        (&["--library=libcuda.so.1"][..], CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE),
        (
            &["--mask-params=/proc/driver/nvidia/params"],
            CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::SYS_ADMIN,
        ),
    ] {
        // It waits for the state of the container.
        let mut command = Command::new(program);
        let mut child = command.args(arguments).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let status = until_limited(child.id());
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().to_owned()
        };
        for sets in ["CapEff:", "CapPrm:"] {
            assert_eq!(u64::from_str_radix(&field(sets), 16).unwrap(), capabilities.bits(), "{sets} {status}");
        }
        assert_eq!((field("CapInh:"), field("CapAmb:")), ("0".repeat(16), "0".repeat(16)));
        assert_eq!(
            (field("NoNewPrivs:"), field("Seccomp:"), field("Seccomp_filters:")),
            ("1".into(), "2".into(), "2".into())
        );
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
}

/// The status of a process once it has both filters. It waits 400 ms for its input.
fn until_limited(pid: u32) -> String {
    let started = Instant::now();
    loop {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        if status.contains("Seccomp_filters:\t2") {
            return status;
        }
        assert!(started.elapsed() < Duration::from_secs(1), "{status}");
        std::thread::yield_now();
    }
}
