// SPDX-License-Identifier: Apache-2.0
//! Feeds arbitrary bytes to the parser and the merge of `ld.so.cache`.
#![no_main]

#[path = "../../tests/hook/cache_rules.rs"]
mod cache_rules;

libfuzzer_sys::fuzz_target!(|file: &[u8]| cache_rules::check(file));
