// SPDX-License-Identifier: Apache-2.0
//! Input and output of NVIDIA's MPS control program, `nvidia-cuda-mps-control`.
//!
//! ```text
//! launch  ->  nvidia-cuda-mps-control -f [-M]  ->  log
//!                  ^ command      answer |
//!                  +-- nvidia-cuda-mps-control (reads commands from its input)
//! ```
//!
//! Pure: text and values, no process and no file. Rules marked "seen" were observed with the programs of R535 and R550; the
//! others are from the manual page `nvidia-cuda-mps-control(1)`.
//!
//! Reading order: [`launch`], [`command`], [`answer`], [`log`].

pub mod launch;

pub mod command;

pub mod answer;

pub mod log;

pub use answer::{Limit, is_memory_limit, is_percentage, pids};
pub use command::Command;
pub use launch::Launch;
pub use log::{Event, event, printable};
