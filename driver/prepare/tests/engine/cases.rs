// SPDX-License-Identifier: Apache-2.0
//! How many cases a property test runs.

use proptest::prelude::ProptestConfig;

/// `PROPTEST_CASES` replaces the number.
pub(crate) fn cases(number: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(number),
    }
}
