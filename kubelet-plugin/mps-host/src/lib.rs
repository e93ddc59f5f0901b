// SPDX-License-Identifier: Apache-2.0
//! Supervises the MPS daemons of a node: the process `gpu-mps-host`.
//!
//! ```text
//! kubelet plugin -- service -- daemons --+-- supervisor (one task per daemon)
//!                                |      |      birth: dir, spawn, ready, limits
//!                     adopt -----+      |      death: quit, kill, nothing left
//!                  (at its own start)   +-- states -- watch, metrics
//! ```
//!
//! A daemon can outlive this process: it has a process group, a log file and a pipe directory of its own, and what is
//! needed to find it again is written down before it is started. A container that ends takes its processes along, so this
//! one ends its daemons itself when it is told to stop, and the next one starts them again; only a daemon that is stopped, or
//! `--remove`, leaves nothing. It never touches a GPU's settings and never asks the
//! API server.
//!
//! Reading order: [`args`], [`root`], [`remove_tree`], [`daemon_dir`], [`state_file`], [`processes`], [`process`], [`system_calls`], [`privileges`], [`child`], [`programs`],
//! [`control_client`], [`log_file`], [`start`], [`termination`], [`clients`], [`running`], [`sharing_claims`], [`sweep`], [`daemon_states`], [`context`], [`request`],
//! [`back_off`], [`supervisor`], [`daemon_registry`], [`adopt`], [`service`], [`metrics`], [`after_removal`].

pub mod args;

pub mod root;

pub mod remove_tree;

pub mod daemon_dir;

pub mod state_file;

pub mod processes;

pub mod process;

pub mod system_calls;

pub mod privileges;

pub mod child;

pub mod programs;

pub mod control_client;

pub mod log_file;

pub mod start;

pub mod termination;

pub mod clients;

pub mod running;

pub mod sharing_claims;

pub mod sweep;

pub mod daemon_states;

pub mod context;

pub mod request;

pub mod back_off;

pub mod supervisor;

pub mod daemon_registry;

pub mod adopt;

pub mod service;

pub mod metrics;

pub mod after_removal;

pub mod app;

pub use after_removal::run_after_removal;
pub use app::{AppError, run};
pub use args::Args;
pub use child::become_daemon;
