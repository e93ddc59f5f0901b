// SPDX-License-Identifier: Apache-2.0
//! A test case: a behaviour and the function that checks it on the cluster.

use crate::arena::Arena;

#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub name: &'static str,
    pub run: fn(&Arena),
}

/// Defines the function `cases` of a file. Each case has the name of its function.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn cases() -> Vec<$crate::case::Case> {
            vec![$($crate::case::Case { name: stringify!($name), run: $name }),*]
        }
    };
}

pub(crate) use cases;
