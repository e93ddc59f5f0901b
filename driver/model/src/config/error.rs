// SPDX-License-Identifier: Apache-2.0
//! Why a configuration is refused; each text names the path of the field.

use super::kind::ConfigKind;

/// Why a configuration was refused. `path` is relative to the parameters, such as `sharing.strategy`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or nested too deeply.
    #[error("parameters cannot be read: {why}")]
    Unreadable {
        /// What is wrong, and where.
        why: String,
    },
    /// Not a JSON object.
    #[error("parameters must be an object with apiVersion and kind")]
    NotAnObject,
    /// A field that must be there.
    #[error("{path} is missing: expected {expected}")]
    Missing { path: String, expected: &'static str },
    /// A field of the wrong type or value.
    #[error("{path} is {found}: expected {expected}")]
    Unexpected { path: String, found: String, expected: &'static str },
    /// A field nobody knows.
    #[error("{path} is an unknown field of {kind}: remove it or correct its name")]
    UnknownField {
        path: String,
        /// The kind it was found in.
        kind: ConfigKind,
    },
    /// The details of another strategy than the one that was chosen.
    #[error("{path} is not for the strategy {strategy}: remove it, or correct {strategy_path}")]
    OtherStrategy {
        /// The field with the details.
        path: String,
        /// The field with the strategy.
        strategy_path: String,
        strategy: String,
    },
    /// A wish that no MIG device can fulfil.
    #[error("{path} cannot be {found} on a MIG device: {why}")]
    NotOnMig {
        path: String,
        found: String,
        /// What MIG devices lack.
        why: &'static str,
    },
}
