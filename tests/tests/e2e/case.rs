// SPDX-License-Identifier: Apache-2.0
//! A test case: a behaviour and the function that checks it on the cluster.

use crate::arena::Arena;

#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub name: &'static str,
    pub run: fn(&Arena),
    /// Whether it measures time, so that no other case may run meanwhile.
    pub measures: bool,
}

/// Defines the function `cases` of a file. Each case has the name of its function; the word `measures` may follow.
macro_rules! cases {
    (@measures) => { false };
    (@measures measures) => { true };
    ($($name:ident $($measures:ident)?),* $(,)?) => {
        pub(crate) fn cases() -> Vec<$crate::case::Case> {
            vec![$($crate::case::Case {
                name: stringify!($name),
                run: $name,
                measures: $crate::case::cases!(@measures $($measures)?),
            }),*]
        }
    };
}

pub(crate) use cases;
