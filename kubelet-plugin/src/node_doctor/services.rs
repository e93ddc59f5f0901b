// SPDX-License-Identifier: Apache-2.0
//! The running plugin and the MPS host, as far as they answer.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use dra_hardware::Host;
use dra_model::node_check::{Check, Problem};

use super::problem::error;

const TIMEOUT: Duration = Duration::from_secs(5);
/// An answer of `/readyz` is shorter.
const MAX_BYTES: u64 = 64 * 1024;

/// What the running plugin answers to the kubelet's probe.
pub(super) fn readiness(address: SocketAddr) -> Check {
    let subject = "registration";
    match ask(address) {
        Ok(answer) => {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
            let first = body.lines().next().unwrap_or_default();
            if head.split(' ').nth(1) == Some("200") {
                return Check::good(subject, "the kubelet has registered the plugin");
            }
            let fix = if first.contains("registered") {
                "set kubeletRootDir of the chart to --root-dir of the kubelet; its log has why it does not register the driver"
            } else {
                "the log of the container `plugin` has the reason"
            };
            Check::bad(subject, Problem::error(format!("the plugin is not ready: {first}"), fix))
        }
        Err(failed) => {
            let cause = format!("the plugin does not answer on {address}: {failed}");
            Check::bad(subject, Problem::error(cause, "the log of the container `plugin` has the reason"))
        }
    }
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let address = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    };
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The programs of MPS and the MPS host; nothing where the chart installs none.
pub(super) fn mps(host: &Host, socket: &Path) -> Option<Check> {
    let subject = "MPS";
    match UnixStream::connect(socket) {
        Ok(_) => {}
        Err(failed) if failed.kind() == ErrorKind::NotFound => return None,
        Err(failed) => {
            let cause = format!("the MPS host does not answer on {}: {failed}", socket.display());
            let fix = "the log of the pod `mps-host` of the node has the reason; claims without MPS are not affected";
            return Some(Check::bad(subject, Problem::warning(cause, fix)));
        }
    }
    for program in ["nvidia-cuda-mps-control", "nvidia-cuda-mps-server"] {
        if let Err(failed) = host.driver_program(program, &[]) {
            let fix = "install it with the NVIDIA driver (Debian: nvidia-cuda-mps), or set mps.enabled=false";
            let mut problem = error(&failed, fix);
            problem.severity = dra_model::node_check::Severity::Warning;
            return Some(Check::bad(subject, problem));
        }
    }
    Some(Check::good(subject, "the MPS host answers, and the programs of MPS are there"))
}
