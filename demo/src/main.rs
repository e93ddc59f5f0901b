// SPDX-License-Identifier: Apache-2.0
//! Shows the driver on a real cluster.

fn main() {}
