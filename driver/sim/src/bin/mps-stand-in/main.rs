// SPDX-License-Identifier: Apache-2.0
//! Replaces `nvidia-cuda-mps-control` in tests of clients, which NVIDIA's own has only on a GPU, and of faults.
//!
//! With `-f` the program is a daemon, with `-M` for all users at once, without arguments the client that reads commands. Files,
//! answers, log lines and exit codes are those of NVIDIA's program of R535; a test compares both. The protocol between daemon
//! and client is another one, so that no CUDA program can connect. See `behaviour` for faults and clients.
//!
//! ```text
//! control_client --(control, control_privileged)--> daemon -> limits
//!                                                  \---> servers (processes of this program) <- behaviour (clients)
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

mod behaviour;
mod control_client;
mod daemon;
mod limits;
mod servers;

use behaviour::{Behaviour, Fault};

fn main() -> ExitCode {
    let pipe_dir = std::env::var_os("CUDA_MPS_PIPE_DIRECTORY").map_or_else(|| "/tmp/nvidia-mps".into(), PathBuf::from);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let behaviour = match Behaviour::of(&pipe_dir) {
        Ok(behaviour) => behaviour,
        Err(error) => return exit_with(&format!("mps-stand-in: {error}"), 2),
    };
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let multi_user = words.iter().any(|word| ["-M", "-multiuser-server", "--multiuser-server"].contains(word));
    let ended = match *words.as_slice() {
        [servers::ROLE] => {
            servers::serve(&pipe_dir);
            Ok(0)
        }
        ["-f"] => daemon::run(&pipe_dir, false, &behaviour),
        ["-f", _] | [_, "-f"] if multi_user && !behaviour.has(Fault::Old) => daemon::run(&pipe_dir, true, &behaviour),
        // NVIDIA's program runs as client for an unknown option.
        _ => control_client::run(&pipe_dir),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(text) => exit_with(&text, 1),
    }
}

fn exit_with(text: &str, code: u8) -> ExitCode {
    if !text.is_empty() {
        eprintln!("{text}");
    }
    ExitCode::from(code)
}
