// SPDX-License-Identifier: Apache-2.0
//! The monitoring part of the chart: alerts fire when they should, and rules, dashboards and documents agree with each
//! other and with what a real Prometheus reads from a running plugin.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test stops at the first surprise")]

mod alerts;
mod dashboards;
mod documents;
mod live;
mod objects;
mod promql;
mod recording;
mod rules;
