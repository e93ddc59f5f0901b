// SPDX-License-Identifier: Apache-2.0
//! The namespace of all claims of the benchmark.

pub(crate) const NAMESPACE: &str = "default";
