// SPDX-License-Identifier: Apache-2.0
//! What holds for every document: its links lead somewhere, its commands can run, its names exist, and its translation has its form.
//!
//! ```text
//! documents ─ markdown (headings, links, code) ─┬─ links
//!                                               ├─ shell (bash as it is) ─> invocations ─ commands
//!                                               ├─ names (files and values)
//!                                               ├─ reasons (Events)
//!                                               └─ translations (Chinese)
//! ```
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test stops at the first surprise")]

mod markdown;

mod links;

mod shell;

mod invocation;

mod commands;

mod names;

mod reasons;

mod translations;
