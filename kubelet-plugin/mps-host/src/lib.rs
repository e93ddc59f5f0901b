// SPDX-License-Identifier: Apache-2.0
//! Supervises the MPS daemons of a node: the process `gpu-mps-host`.
//!
//! ```text
//! kubelet plugin -- service -- roster --+-- supervisor (one task per daemon)
//!                                |      |      birth: place, spawn, ready, limits
//!                     adopt -----+      |      death: quit, kill, nothing left
//!                  (at its own start)   +-- board -- watch, metrics
//! ```
//!
//! A daemon can outlive this process: it has a process group, a log file and a pipe directory of its own, and what is
//! needed to find it again is written down before it is started. A container that ends takes its processes along, so this
//! one ends its daemons itself when it is told to stop, and the next one starts them again; only a daemon that is stopped, or
//! `--remove`, leaves nothing. It never touches a GPU's settings and never asks the
//! API server.
//!
//! Reading order: [`args`], [`root`], [`removal`], [`place`], [`kept`], [`processes`], [`process`], [`system_calls`], [`rights`], [`inside`], [`programs`],
//! [`front_end`], [`log_file`], [`birth`], [`death`], [`clients`], [`running`], [`sharers`], [`sweep`], [`board`], [`tools`], [`order`],
//! [`back_off`], [`supervisor`], [`roster`], [`adopt`], [`service`], [`metrics`], [`then`].

pub mod args;

pub mod root;

pub mod removal;

pub mod place;

pub mod kept;

pub mod processes;

pub mod process;

pub mod system_calls;

pub mod rights;

pub mod inside;

pub mod programs;

pub mod front_end;

pub mod log_file;

pub mod birth;

pub mod death;

pub mod clients;

pub mod running;

pub mod sharers;

pub mod sweep;

pub mod board;

pub mod tools;

pub mod order;

pub mod back_off;

pub mod supervisor;

pub mod roster;

pub mod adopt;

pub mod service;

pub mod metrics;

pub mod then;

pub mod app;

pub use app::{AppError, run};
pub use args::Args;
pub use inside::become_daemon;
pub use then::run_then;
