// SPDX-License-Identifier: Apache-2.0
//! The words of NVIDIA's MPS control program, `nvidia-cuda-mps-control`.
//!
//! ```text
//! launch  ->  nvidia-cuda-mps-control -f [-M]  ->  log
//!                  ^ command      answer |
//!                  +-- nvidia-cuda-mps-control (reads commands from its input)
//! ```
//!
//! Pure: text and values, no process and no file. Rules marked "seen" were read off the programs of R535 and R550; the others are in the
//! manual page `nvidia-cuda-mps-control(1)`.
//!
//! Reading order: [`launch`], [`command`], [`answer`], [`log`].

pub mod launch;

pub mod command;

pub mod answer;

pub mod log;

pub use answer::{Limit, memory_is, pids, threads_are};
pub use command::Command;
pub use launch::Launch;
pub use log::{Event, event, printable};
