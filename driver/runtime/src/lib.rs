// SPDX-License-Identifier: Apache-2.0
//! The runtime environment of the driver's processes: API server client, logging, signals, tasks, HTTP endpoints,
//! memory.
//!
//! A `main` parses its arguments, calls [`logging::start`] and [`stop_on_signals`], starts its tasks in a [`tasks::Tasks`], serves
//! [`http`] and waits. The crate knows neither GPUs nor claims.

pub mod api_server;

pub mod logging;

pub mod signals;

pub mod tasks;

pub mod http;

pub mod heap;

pub use api_server::ApiServer;
pub use signals::stop_on_signals;
pub use tasks::Tasks;
