// SPDX-License-Identifier: Apache-2.0
//! Supervises the MPS daemons of a node: the process `gpu-mps-host`.
//!
//! ```text
//! kubelet plugin -- service -- daemon_registry --+-- supervisor (one task per daemon)
//!                                    |           |      start: directory, process, first answer, limits
//!                         adopt -----+           |      termination: quit, kill, removal
//!                    (at its own start)          +-- daemon_states -- watch stream, metrics
//!                                                +-- gpu_faults: daemons that must not run, set by the plugin
//! ```
//!
//! A daemon can outlive this process: it has a process group, a log file and a pipe directory of its own, and its state file
//! is written before it starts. When this process stops, it terminates its daemons itself, because the end of its container
//! would kill them; the next process starts them again. Only a stop request or `--remove` deletes a daemon. The MPS host
//! never changes a setting of a GPU and never calls the API server.
//!
//! Reading order: [`args`], [`root`], [`remove_tree`], [`daemon_dir`], [`state_file`], [`processes`], [`process`], [`system_calls`],
//! [`privileges`], [`child`], [`programs`], [`control_client`], [`log_file`], [`start`], [`termination`], [`clients`], [`running`],
//! [`sharing_claims`], [`sweep`], [`daemon_states`], [`gpu_faults`], [`context`], [`request`], [`back_off`], [`discovery`], [`supervisor`],
//! [`daemon_registry`], [`adopt`], [`service`], [`metrics`], [`after_removal`].

pub mod args;

pub mod root;

pub mod remove_tree;

mod selinux;

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

pub mod gpu_faults;

pub mod context;

pub mod request;

pub mod back_off;

pub mod discovery;

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
