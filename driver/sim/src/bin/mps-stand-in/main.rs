// SPDX-License-Identifier: Apache-2.0
//! Plays `nvidia-cuda-mps-control` where NVIDIA's own has no GPU to have clients on, or cannot be made to misbehave.
//!
//! With `-f` it is a daemon, with `-M` for all users at once, without arguments the front end that reads commands. Files,
//! answers, log lines and exit codes are those of NVIDIA's program of R535, next to which a test runs it. The two talk in
//! a way of their own, so that only its own front end reaches it, and no CUDA program does. See `behaviour` for what it
//! can be made to do, and for its clients.
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
        Err(error) => return told(&format!("mps-stand-in: {error}"), 2),
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
        // NVIDIA's program takes itself for a front end when it does not know an option.
        _ => control_client::run(&pipe_dir),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(text) => told(&text, 1),
    }
}

fn told(text: &str, code: u8) -> ExitCode {
    if !text.is_empty() {
        eprintln!("{text}");
    }
    ExitCode::from(code)
}
