// SPDX-License-Identifier: Apache-2.0
//! The forms in which an answer is printed.

use clap::ValueEnum;

/// Forms of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Fits into 100 columns; a line for each node if there are many
    Table,
    /// Every GPU, with all that can be created on it
    Wide,
    Json,
    Yaml,
}
