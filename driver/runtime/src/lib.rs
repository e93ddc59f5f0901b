// SPDX-License-Identifier: Apache-2.0
//! What every process of the driver needs around its work.
//!
//! A `main` parses its arguments, calls [`logging::start`] and [`stop_on_signals`], makes a [`tasks::Tasks`], starts its
//! tasks in it, serves [`http`] and waits. Nothing here knows GPUs or claims.

pub mod api_server;

pub mod logging;

pub mod signals;

pub mod tasks;

pub mod http;

pub use api_server::ApiServer;
pub use signals::stop_on_signals;
pub use tasks::Tasks;
