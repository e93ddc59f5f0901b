// SPDX-License-Identifier: Apache-2.0
//! `gpu-cdi-hook`, which container runtimes start at `createContainer` of a container with a GPU.

use std::process::ExitCode;

fn main() -> ExitCode {
    dra_cdi_hook::hook::run(std::env::args_os().skip(1))
}
