// SPDX-License-Identifier: Apache-2.0
//! Other users of the machine have no access to a daemon, while servers that run as one of them find what they need, and no
//! more.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::host::{Host, spec, until};
use crate::scripts::driver;

const ID: &str = "gpu-00112233445566778899aabbccddeeff";

const OTHER_ID: &str = "gpu-ffffffffffffffffffffffffffffffff";

/// The UID of an unprivileged user.
const USER: &str = "65534";

/// Runs a command as a local user of the machine.
fn as_user(script: &str) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--", "sh", "-c", script]);
    command.output().unwrap()
}

/// As the directories above those of this driver are on a node.
fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn no_other_user_of_the_machine_reaches_a_daemon() {
    let host = Host::real();
    open_to_all(host.dir.path());
    host.start(&spec(ID)).unwrap();
    let (root, daemon_dir) = (host.root().display().to_string(), host.daemon_dir(ID).display().to_string());
    for attempt in [
        format!("ls {root}"),
        format!("flock --shared --nonblock {root} true"),
        format!("flock --shared --nonblock {root}/host.lock true"),
        format!("ls {daemon_dir}"),
        format!("ls {daemon_dir}/run/pipe"),
        format!("cat {daemon_dir}/log/control.out"),
        format!("echo x > {daemon_dir}/shm/file"),
    ] {
        let output = as_user(&attempt);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains("ermission denied"), "{attempt}: {output:?}");
    }
    assert!(as_user("ls /").status.success());
    let mode = |name: &str| fs::metadata(host.daemon_dir(ID).join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("run"), mode("shm")), (0o755, 0o1777), "containers of any user use these");
}

/// Writes its user and what it can see into its shared memory, and stays.
const SERVER: &str = r#"#!/bin/sh
{
    /usr/bin/id -u
    /bin/ls "${CUDA_MPS_PIPE_DIRECTORY%/*/run/pipe}"
    /bin/ls "$CUDA_MPS_PIPE_DIRECTORY"
    /bin/grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
} >/dev/shm/report.new 2>&1
/bin/mv /dev/shm/report.new /dev/shm/report
exec /bin/sleep 1000
"#;

/// A driver with NVIDIA's control program and the server above.
fn reporting_driver() -> TempDir {
    let driver = driver("exec $real \"$@\"");
    fs::write(driver.path().join("server"), SERVER).unwrap();
    let server = driver.path().join("usr/bin/nvidia-cuda-mps-server");
    let mut install = Command::new("install");
    assert!(install.arg("--mode=755").arg(driver.path().join("server")).arg(server).status().unwrap().success());
    open_to_all(driver.path());
    driver
}

/// The report of a server of a user.
fn server_report(host: &Host, user: &str) -> Vec<String> {
    host.query(ID, &format!("start_server -uid {user}"));
    let report =
        until("the server writes its report", || fs::read_to_string(host.daemon_dir(ID).join("shm/report")).ok());
    report.lines().map(str::to_owned).collect()
}

#[test]
fn a_server_of_another_user_finds_its_daemon_and_no_other() {
    let driver = reporting_driver();
    let host = Host::new(driver.path());
    open_to_all(host.dir.path());
    host.start(&spec(ID)).unwrap();
    host.start(&spec(OTHER_ID)).unwrap();
    let expect = [USER, ID, "control", "control_lock", "control_privileged", "log"];
    assert_eq!(server_report(&host, USER)[..6], expect);
}

/// Those of `capabilities(7)` that MPS needs: CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, KILL 5, SETGID 6, SETUID 7, IPC_LOCK 14 and
/// SYS_PTRACE 19.
const NEEDED: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 14 | 1 << 19;

#[test]
fn a_daemon_and_its_servers_have_only_the_privileges_that_mps_needs() {
    let driver = reporting_driver();
    for (user, has) in [("0", NEEDED), (USER, 0)] {
        let host = Host::new(driver.path());
        open_to_all(host.dir.path());
        host.start(&spec(ID)).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", host.daemon(ID))).unwrap();
        let server = server_report(&host, user);
        for (who, lines, has) in [("daemon", status.lines().collect(), NEEDED), ("server", text(&server), has)] {
            let line = |name: &str| lines.iter().find_map(|line: &&str| line.strip_prefix(name)).unwrap().trim();
            let set = |name: &str| u64::from_str_radix(line(name), 16).unwrap();
            assert_eq!([set("CapPrm:"), set("CapEff:"), set("CapBnd:")], [has, has, NEEDED], "{who} of {user}");
            assert_eq!([line("NoNewPrivs:"), line("Seccomp:")], ["1", "2"], "{who} of {user}");
        }
    }
}

fn text(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).collect()
}
