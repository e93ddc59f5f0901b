// SPDX-License-Identifier: Apache-2.0
//! Builds the simulator that gives nodes their GPUs.

use crate::{
    command,
    error::{ClusterError, Result},
};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Builds `gpu-sim` with the simulated library beside it, as cargo's dev profile
/// does, and returns the program.
pub fn build_simulator() -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    cargo.args(["build", "-q", "-p", "dra-sim", "-p", "dra-sim-library"]);
    let messages = command::output(cargo.arg("--message-format=json-render-diagnostics"))?;
    messages.lines().find_map(program_of).ok_or_else(|| ClusterError::NoSimulator { node: "any".to_owned() })
}

/// The path of `gpu-sim` in a message of cargo about a built program.
fn program_of(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = Path::new(message.get("executable")?.as_str()?);
    path.ends_with("gpu-sim").then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::program_of;
    use std::path::PathBuf;

    #[test]
    fn finds_the_program_among_other_messages() {
        let check = |message: &str, expected: Option<&str>| {
            assert_eq!(program_of(message), expected.map(PathBuf::from), "{message}");
        };
        check(r#"{"reason":"compiler-artifact","executable":"/t/debug/gpu-sim"}"#, Some("/t/debug/gpu-sim"));
        check(r#"{"reason":"compiler-artifact","executable":"/t/debug/not-gpu-sim"}"#, None);
        check(r#"{"reason":"compiler-artifact","executable":null}"#, None);
        check(r#"{"reason":"build-finished","success":true}"#, None);
        check("warning: words of a linker", None);
    }
}
