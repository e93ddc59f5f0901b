// SPDX-License-Identifier: Apache-2.0
//! Logs to standard error, as text or JSON. `RUST_LOG` sets the levels, `info` by default: a level, or a list such as
//! `info,dra_prepare=debug`.
//!
//! Libraries that log errors in addition to returning them are disabled, because the caller logs the error with its context. Naming such
//! a library in the list, or the level `debug`, enables it.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Modules that log returned errors: every failed request without its URL, every failed watch as the `Debug` of its cause (kube 5.0,
/// `client.rs` and `watcher.rs`).
const DUPLICATE_LOGGERS: [&str; 2] = ["kube_client::client", "kube_runtime::watcher"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// Starts logging. Each `main` calls it once.
pub fn start(format: LogFormat) {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let (filter, invalid) = match wanted.parse::<Targets>() {
        Ok(filter) if !wanted.is_empty() => (filter, None),
        Ok(_) => (Targets::new().with_default(LevelFilter::INFO), None),
        Err(error) => (Targets::new().with_default(LevelFilter::INFO), Some(error)),
    };
    let filter = without_duplicates(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => tracing_subscriber::registry().with(lines.with_ansi(false).with_filter(filter)).init(),
        LogFormat::Json => {
            tracing_subscriber::registry().with(lines.json().flatten_event(true).with_filter(filter)).init();
        }
    }
    if let Some(error) = invalid {
        tracing::warn!(RUST_LOG = wanted, %error, "invalid log filter; using info");
    }
}

/// Disables these modules unless the filter names them or enables more than `info`.
fn without_duplicates(filter: Targets) -> Targets {
    let level = filter.default_level().unwrap_or(LevelFilter::OFF);
    if level > LevelFilter::INFO {
        return filter;
    }
    let requested: Vec<String> = filter.iter().map(|(target, _)| target.to_owned()).collect();
    let is_requested = |module: &str| requested.iter().any(|target| module.starts_with(target));
    let silent: Vec<&str> = DUPLICATE_LOGGERS.into_iter().filter(|module| !is_requested(module)).collect();
    filter.with_targets(silent.into_iter().map(|module| (module, LevelFilter::OFF)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_log_returned_errors_are_silent_by_default() {
        for (given, client, watcher) in [
            ("info", false, false),
            ("warn,dra_prepare=debug", false, false),
            ("info,kube_client=info", true, false),
            ("info,kube_runtime::watcher=warn", false, true),
            ("debug", true, true),
        ] {
            let filter = without_duplicates(given.parse().expect("a filter"));
            let is_enabled = DUPLICATE_LOGGERS.map(|module| filter.would_enable(module, &tracing::Level::ERROR));
            assert_eq!(is_enabled, [client, watcher], "{given}");
            assert!(filter.would_enable("dra_controller", &tracing::Level::WARN), "{given}");
        }
    }
}
