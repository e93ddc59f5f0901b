// SPDX-License-Identifier: Apache-2.0
//! Specs as runtimes see them: the text against golden files and the loaders' rules, the directory under faults.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its builders too")]

mod hook_program;

mod reference;
mod render;
mod rules;
mod store;
