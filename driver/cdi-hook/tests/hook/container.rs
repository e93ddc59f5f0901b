// SPDX-License-Identifier: Apache-2.0
//! Where the hook looks for the root directory, by runtime; and states that none writes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use dra_cdi_hook::container::MAX_STATE_BYTES;

use crate::completes::ldconfig;
use crate::image::{ARGUMENTS, Ended, Image, TIME_LIMIT, run};
use crate::listing;

fn run_with(state: &str) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-cdi-hook"));
    let ended = run(command.args(ARGUMENTS).current_dir("/"), state.as_bytes());
    assert!(ended.elapsed < TIME_LIMIT, "{ended:?}");
    ended
}

#[test]
fn the_root_is_that_of_the_state_or_of_the_configuration() {
    let image = Image::new();
    let root = image.root().display().to_string();
    // As crun: the bundle is elsewhere.
    assert_eq!(run_with(&format!(r#"{{"bundle":"/nowhere","root":"{root}"}}"#)).stderr, "");
    assert!(ldconfig(&image).contains("libcuda.so.1"));

    let image = Image::new();
    let bundle = image.bundle().display().to_string();
    fs::remove_file(image.bundle().join("config.json")).unwrap();
    assert_eq!(run_with(&format!(r#"{{"bundle":"{bundle}","root":"rootfs"}}"#)).stderr, "");
    assert!(ldconfig(&image).contains("libcuda.so.1"));

    let image = Image::new();
    assert_eq!(run_with(&image.state()).stderr, "");
    assert!(ldconfig(&image).contains("libcuda.so.1"));

    let image = Image::new();
    let absolute = format!(r#"{{"root":{{"path":"{}","readonly":true}},"mounts":[]}}"#, image.root().display());
    fs::write(image.bundle().join("config.json"), absolute).unwrap();
    assert_eq!(run_with(&image.state()).stderr, "");
    assert!(ldconfig(&image).contains("libcuda.so.1"));
    let annotated =
        image.state().replacen('{', &format!(r#"{{"annotations":{{"a":"{}"}},"#, "a".repeat(256 * 1024)), 1);
    let ended = run_with(&annotated);
    assert!(ended.code == Some(0) && ended.stderr.is_empty(), "a large state is one of a runtime: {}", ended.stderr);
}

#[test]
fn a_state_that_no_runtime_writes_changes_nothing() {
    let image = Image::new();
    let before = listing::of(&image.root());
    let bundle = image.bundle().display().to_string();
    let long = format!(r#"{{"bundle":"{bundle}","annotations":{{"a":"{}"}}}}"#, "a".repeat(MAX_STATE_BYTES));
    for (state, expected) in [
        ("", "is no JSON of an OCI runtime"),
        ("[1]", "is no JSON of an OCI runtime"),
        (&"[".repeat(60_000), "is no JSON of an OCI runtime"),
        ("{}", "is not an absolute path"),
        (r#"{"bundle":"relative"}"#, "`relative` is not an absolute path"),
        (r#"{"bundle":"/nowhere"}"#, "failed to read /nowhere/config.json: No such file"),
        (r#"{"root":"rootfs"}"#, "`rootfs` is not an absolute path"),
        (r#"{"root":"/"}"#, "/ is the root directory of the host"),
        (r#"{"root":"/proc/self/root"}"#, "failed to open the root directory /proc/self/root of the container"),
        (r#"{"root":"/etc/.."}"#, "/etc/.. is the root directory of the host"),
        (r#"{"root":"/etc/passwd"}"#, "Not a directory"),
        (&long, "failed to read the state of the container from standard input"),
    ] {
        let ended = run_with(state);
        assert_eq!(ended.code, Some(0), "{expected}");
        assert!(ended.stderr.contains(expected) && ended.stderr.lines().count() == 1, "{expected}: {ended:?}");
    }
    for config in ["", "{}", r#"{"root":{}}"#, r#"{"root":{"path":"/"}}"#] {
        fs::write(image.bundle().join("config.json"), config).unwrap();
        let ended = run_with(&image.state());
        assert!(ended.code == Some(0) && ended.stderr.lines().count() == 1, "{config}: {ended:?}");
    }
    assert_eq!(listing::of(&image.root()), before);
}

#[test]
fn a_state_that_never_ends_is_not_waited_for() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-cdi-hook"));
    let started = Instant::now();
    let mut child = command.args(ARGUMENTS).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // `wait` closes what is not taken.
    let open = child.stdin.take();
    assert!(child.wait().unwrap().success() && started.elapsed() < TIME_LIMIT);
    drop(open);
}

#[test]
fn the_working_directory_is_used_only_if_it_is_the_root_of_a_container() {
    let image = Image::new();
    // Root reads every file, so the hook runs as another user, as in a user namespace.
    let config = image.bundle().join("config.json");
    fs::set_permissions(image.dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_gpu-cdi-hook"), image.dir.path().join("hook")).unwrap();
    fs::set_permissions(image.dir.path().join("hook"), fs::Permissions::from_mode(0o755)).unwrap();
    let script = |mounts: &str, dir: &str| {
        format!(
            "{mounts}; cd \"{dir}\"; exec setpriv --reuid 100000 --regid 100000 --clear-groups \"$HOST/../hook\" \"$@\""
        )
    };
    let mounted = "mount --bind \"$ROOT\" \"$ROOT\"";
    let with_procfs = format!("{mounted}; mount -t proc proc \"$ROOT/proc\"");
    let refused = "config.json cannot be read, and the working directory is not the root directory of a container";
    // Nothing may be written by that user, which is not what is tested.
    let found = "failed to open or create the directory /usr/lib64/deep";
    for (mounts, dir, expected) in [
        (with_procfs.as_str(), "$ROOT", found),
        (mounted, "$ROOT", refused),
        ("true", "$ROOT", refused),
        (&with_procfs, "$ROOT/..", refused),
        (&with_procfs, "/", refused),
        (&with_procfs, "$ROOT/etc", refused),
        (
            "mount --bind \"$ROOT/..\" \"$ROOT/..\"; mkdir -p \"$ROOT/../proc\"; mount -t proc proc \"$ROOT/../proc\"",
            "$ROOT/..",
            refused,
        ),
    ] {
        let ended = image.shell(&["--mount"], &script(mounts, dir), &ARGUMENTS);
        assert!(ended.code == Some(0) && ended.stderr.contains(expected), "{mounts} {dir}: {ended:?}");
    }
}
