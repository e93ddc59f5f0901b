// SPDX-License-Identifier: Apache-2.0
//! Versions in expressions: attributes of the type `version`, and the functions of Kubernetes' semver library.
#![expect(clippy::trivially_copy_pass_by_ref, reason = "the type of functions that are added to an environment")]

use std::any::Any;

use cel::common::types::{CelBool, CelInt, CelString, Type};
use cel::common::value::{StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError, add_member_overload, add_overload};
use semver::Version;

static SEMVER: Type = Type::new_unspecified_type("kubernetes.Semver");

/// A version by semver 2.0.0. Build metadata takes no part in comparisons.
#[derive(Debug, Clone)]
pub(super) struct VersionValue(Version);

impl Val for VersionValue {
    fn get_type(&self) -> &Type {
        &SEMVER
    }

    fn cel_type() -> &'static Type {
        &SEMVER
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Self>().is_some_and(|other| self.0.cmp_precedence(&other.0).is_eq())
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for VersionValue {}

/// Registers the functions.
pub(super) fn extension(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_type(SEMVER.to_owned())?;
    add_overload!(env, fn strict: (CelString) -> Result<VersionValue>, name = "semver")?;
    add_overload!(env, fn lenient: (CelString, CelBool) -> Result<VersionValue>, name = "semver")?;
    add_overload!(env, fn is_strict: (CelString) -> CelBool, name = "isSemver")?;
    add_overload!(env, fn is_lenient: (CelString, CelBool) -> CelBool, name = "isSemver")?;
    add_member_overload!(env, fn major: (VersionValue) -> Result<CelInt>)?;
    add_member_overload!(env, fn minor: (VersionValue) -> Result<CelInt>)?;
    add_member_overload!(env, fn patch: (VersionValue) -> Result<CelInt>)?;
    add_member_overload!(env, fn is_greater: (VersionValue, VersionValue) -> CelBool, name = "isGreaterThan")?;
    add_member_overload!(env, fn is_less: (VersionValue, VersionValue) -> CelBool, name = "isLessThan")?;
    add_member_overload!(env, fn compare_to: (VersionValue, VersionValue) -> CelInt, name = "compareTo")
}

/// The value of an attribute.
pub(super) fn version_value(text: &str) -> Result<VersionValue, ExecutionError> {
    let parsed = Version::parse(text).map(VersionValue);
    parsed.map_err(|error| ExecutionError::function_error("semver", error))
}

fn strict(text: &CelString<'_>) -> Result<VersionValue, ExecutionError> {
    version_value(text.inner())
}

fn lenient(text: &CelString<'_>, normalize: &CelBool) -> Result<VersionValue, ExecutionError> {
    if *normalize.inner() { version_value(&normalized(text.inner())) } else { version_value(text.inner()) }
}

fn is_strict(text: &CelString<'_>) -> CelBool {
    strict(text).is_ok().into()
}

fn is_lenient(text: &CelString<'_>, normalize: &CelBool) -> CelBool {
    lenient(text, normalize).is_ok().into()
}

/// Without a leading `v` and leading zeros, and with the minor and patch numbers that are missing.
fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let mut numbers: Vec<&str> = numbers.split('.').collect();
    while numbers.len() < 3 {
        numbers.push("0");
    }
    let trimmed = numbers.iter().map(|number| match number.trim_start_matches('0') {
        "" => "0",
        rest => rest,
    });
    trimmed.collect::<Vec<_>>().join(".") + rest
}

fn number(number: u64) -> Result<CelInt, ExecutionError> {
    let signed = i64::try_from(number).map(CelInt::from);
    signed.map_err(|error| ExecutionError::function_error("semver", error))
}

fn major(this: &VersionValue) -> Result<CelInt, ExecutionError> {
    number(this.0.major)
}

fn minor(this: &VersionValue) -> Result<CelInt, ExecutionError> {
    number(this.0.minor)
}

fn patch(this: &VersionValue) -> Result<CelInt, ExecutionError> {
    number(this.0.patch)
}

fn is_greater(this: &VersionValue, other: &VersionValue) -> CelBool {
    this.0.cmp_precedence(&other.0).is_gt().into()
}

fn is_less(this: &VersionValue, other: &VersionValue) -> CelBool {
    this.0.cmp_precedence(&other.0).is_lt().into()
}

fn compare_to(this: &VersionValue, other: &VersionValue) -> CelInt {
    super::text::sign_of(this.0.cmp_precedence(&other.0))
}
