// SPDX-License-Identifier: Apache-2.0
//! The client of the daemon: commands on standard input, one per line, answers on standard output.
//!
//! A command is sent as a line. The reply is an exit code as a digit, the answer, and a zero byte.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Sends the commands to the daemon. Returns the exit code of the last answer.
pub(crate) fn run(pipe_dir: &Path) -> Result<u8, String> {
    let privileged = UnixStream::connect(pipe_dir.join("control_privileged"));
    let stream = privileged.or_else(|_other_user| UnixStream::connect(pipe_dir.join("control")));
    let mut daemon = BufReader::new(stream.map_err(|_gone| "Cannot find MPS control daemon process".to_owned())?);
    let mut code = 0;
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let answered = daemon.get_mut().write_all(format!("{line}\n").as_bytes()).and_then(|()| answer(&mut daemon));
        // Commands after `quit` have no answer.
        let Ok((end, text)) = answered else { break };
        code = end;
        std::io::stdout().write_all(&text).map_err(|error| error.to_string())?;
    }
    Ok(code)
}

fn answer(daemon: &mut BufReader<UnixStream>) -> std::io::Result<(u8, Vec<u8>)> {
    let mut code = [0];
    daemon.read_exact(&mut code)?;
    let mut text = Vec::new();
    daemon.read_until(0, &mut text)?;
    text.pop();
    Ok((u8::from(code != *b"0"), text))
}
