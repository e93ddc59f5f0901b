// SPDX-License-Identifier: Apache-2.0
//! The GPUs, the NVIDIA driver and the MPS daemons of this machine.
//!
//! ```text
//! machine (the port) <- nvml_machine <- dra-nvml, nvidia-smi      procfs  sysfs  driver_root
//!        |                                                           |      |        |
//!     timeout -> discover (+ sysfs) -> Inventory            device_nodes <--+-> driver_search, driver_program
//!                       \___________________ host ____________________/
//!
//! driver_rules (which files) + driver_dirs (where) -> driver_search -> driver_files, driver_report
//! ```
//!
//! [`Host`] is the interface for other crates: every query about the machine, over a [`Machine`] and the root directories of
//! the driver, procfs and sysfs. Every call blocks. This crate does not know Kubernetes and writes no file.

pub mod deadline;

pub mod gpu_error;

pub mod measurements;

pub mod health;

pub mod machine;

pub mod daemons;

pub mod nvml_machine;

pub mod sysfs;

pub mod procfs;

pub mod driver_root;

pub mod elf;

pub mod driver_dirs;

pub mod driver_rules;

pub mod driver_search;

pub mod driver_files;

pub mod driver_report;

pub mod driver_program;

pub mod device_nodes;

mod query_threads;

mod timeout;

pub mod discover;

pub mod creations;

pub mod holders;

pub mod host;

pub mod bounded_host;

pub use bounded_host::BoundedHost;
pub use creations::{Creations, Ownership};
pub use daemons::{Daemon, DaemonError, DaemonSpec, DaemonState, Daemons, MultiUser};
pub use deadline::Deadline;
pub use device_nodes::{DeviceIds, NodeError};
pub use driver_files::DriverFilesError;
pub use driver_program::{DriverProgram, ProgramError};
pub use driver_report::{DriverReport, DriverReportEntry};
pub use driver_rules::{Files, RULES, Rule};
pub use gpu_error::{GpuError, MachineError, NvmlCode, Setting};
pub use health::{GpuCondition, GpuEvent, GpuEvents, HealthMachine};
pub use holders::{Pod, Process, ProcessRoots};
pub use host::{Host, Roots};
pub use machine::{DriverVersions, GpuFacts, GpuProcess, GpuSelector, GpuShape, Machine, MigMachine, MigState};
pub use measurements::{Measurements, MemoryUse, NvLinkErrors, NvLinks, RemappedRows};
pub use nvml_machine::NvmlMachine;
pub use procfs::BootIdError;
