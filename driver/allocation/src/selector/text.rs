// SPDX-License-Identifier: Apache-2.0
//! Kubernetes' regular expression library: `find` and `findAll`.
#![expect(clippy::trivially_copy_pass_by_ref, reason = "the type of functions that are added to an environment")]

use std::cmp::Ordering;

use cel::common::types::{CelInt, CelList, CelString};
use cel::common::value::Val;
use cel::{DeclarationError, Env, ExecutionError, add_member_overload};
use regex::Regex;

/// Registers the functions.
pub(super) fn extension(env: &mut Env) -> Result<(), DeclarationError> {
    add_member_overload!(env, fn find: (CelString, CelString) -> Result<CelString>)?;
    add_member_overload!(env, fn find_all: (CelString, CelString) -> Result<CelList>, name = "findAll")?;
    add_member_overload!(env, fn find_some: (CelString, CelString, CelInt) -> Result<CelList>, name = "findAll")
}

/// What `compareTo` gives.
pub(super) fn sign_of(ordering: Ordering) -> CelInt {
    match ordering {
        Ordering::Less => CelInt::from(-1),
        Ordering::Equal => CelInt::from(0),
        Ordering::Greater => CelInt::from(1),
    }
}

fn pattern(text: &CelString<'_>) -> Result<Regex, ExecutionError> {
    Regex::new(text.inner()).map_err(|error| ExecutionError::function_error("find", error))
}

fn find<'v>(this: &CelString<'v>, text: &CelString<'_>) -> Result<CelString<'v>, ExecutionError> {
    let found = pattern(text)?.find(this.inner()).map(|found| found.as_str().to_owned());
    Ok(CelString::from(found.unwrap_or_default()))
}

fn find_all<'v>(this: &CelString<'v>, text: &CelString<'_>) -> Result<CelList<'v>, ExecutionError> {
    matches(this, text, usize::MAX)
}

/// A negative limit means all.
fn find_some<'v>(this: &CelString<'v>, text: &CelString<'_>, limit: &CelInt) -> Result<CelList<'v>, ExecutionError> {
    matches(this, text, usize::try_from(*limit.inner()).unwrap_or(usize::MAX))
}

fn matches<'v>(this: &CelString<'v>, text: &CelString<'_>, limit: usize) -> Result<CelList<'v>, ExecutionError> {
    let pattern = pattern(text)?;
    let found = pattern.find_iter(this.inner()).take(limit);
    let mut texts: Vec<Box<dyn Val>> = Vec::new();
    for text in found {
        texts.push(Box::new(CelString::from(text.as_str().to_owned())));
    }
    Ok(CelList::from(texts))
}
