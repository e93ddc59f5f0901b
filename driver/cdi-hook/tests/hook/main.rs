// SPDX-License-Identifier: Apache-2.0
//! The hook from outside: real images, images that attack it, the loader and `ldconfig` of glibc. Needs root, as container runtimes do.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod cache_rules;

mod image;

mod listing;

mod cache;

mod completes;

mod loader;

mod container;

mod hostile;

mod race;

mod namespaces;

mod program;
