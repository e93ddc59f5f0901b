// SPDX-License-Identifier: Apache-2.0
//! Why a configuration is refused; each text names the path of the field.

use std::borrow::Cow;

use super::kind::ConfigKind;
use crate::explain::Advice;

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
    #[error("{path} is missing: expected {expected}")]
    Missing { path: String, expected: &'static str },
    #[error("{path} is {found}: expected {expected}")]
    Unexpected { path: String, found: String, expected: &'static str },
    #[error("{path} is an unknown field of {kind}")]
    UnknownField {
        path: String,
        /// The kind it was found in.
        kind: ConfigKind,
    },
    #[error("{path} is not for the strategy {strategy}")]
    OtherStrategy {
        /// The field with the details.
        path: String,
        /// The field with the strategy.
        strategy_path: String,
        strategy: String,
    },
    #[error("{path} cannot be {found} on a MIG device: {why}")]
    NotOnMig { path: String, found: String, why: &'static str, advice: Option<&'static str> },
}

impl Advice for ConfigError {
    fn advice(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::UnknownField { .. } => Some("remove it or correct its name".into()),
            Self::OtherStrategy { strategy_path, .. } => Some(format!("remove it, or correct {strategy_path}").into()),
            Self::NotOnMig { advice, .. } => advice.map(Cow::Borrowed),
            Self::Unreadable { .. } | Self::NotAnObject | Self::Missing { .. } | Self::Unexpected { .. } => None,
        }
    }
}
