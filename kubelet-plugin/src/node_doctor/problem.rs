// SPDX-License-Identifier: Apache-2.0
//! Errors of the driver as findings. Pure.

use std::borrow::Cow;
use std::error::Error;

use dra_model::node_check::Problem;
use dra_model::{Advice, chain};

/// The error with its own advice, or with this one.
pub(super) fn error<E: Error + Advice>(error: &E, or_else: &str) -> Problem {
    let fix = error.advice().map_or_else(|| or_else.to_owned(), Cow::into_owned);
    Problem::error(chain(error).to_string(), fix)
}
