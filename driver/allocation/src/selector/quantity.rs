// SPDX-License-Identifier: Apache-2.0
//! Quantities in expressions: the capacities of devices, and the functions of Kubernetes' quantity library.
#![expect(clippy::trivially_copy_pass_by_ref, reason = "the type of functions that are added to an environment")]

use std::any::Any;

use cel::common::types::{CelBool, CelDouble, CelInt, CelString, Type};
use cel::common::value::{StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError, add_member_overload, add_overload};

use crate::amount::Amount;

static QUANTITY: Type = Type::new_unspecified_type("kubernetes.Quantity");

/// A quantity.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuantityValue(pub(super) Amount);

impl Val for QuantityValue {
    fn get_type(&self) -> &Type {
        &QUANTITY
    }

    fn cel_type() -> &'static Type {
        &QUANTITY
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Self>().is_some_and(|other| other.0 == self.0)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(*self)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for QuantityValue {}

/// Registers the functions.
pub(super) fn extension(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_type(QUANTITY.to_owned())?;
    add_overload!(env, fn quantity: (CelString) -> Result<QuantityValue>)?;
    add_overload!(env, fn is_quantity: (CelString) -> CelBool, name = "isQuantity")?;
    add_member_overload!(env, fn is_integer: (QuantityValue) -> CelBool, name = "isInteger")?;
    add_member_overload!(env, fn as_integer: (QuantityValue) -> Result<CelInt>, name = "asInteger")?;
    add_member_overload!(env, fn as_float: (QuantityValue) -> CelDouble, name = "asApproximateFloat")?;
    add_member_overload!(env, fn sign: (QuantityValue) -> CelInt)?;
    add_member_overload!(env, fn is_greater: (QuantityValue, QuantityValue) -> CelBool, name = "isGreaterThan")?;
    add_member_overload!(env, fn is_less: (QuantityValue, QuantityValue) -> CelBool, name = "isLessThan")?;
    add_member_overload!(env, fn compare_to: (QuantityValue, QuantityValue) -> CelInt, name = "compareTo")?;
    add_member_overload!(env, fn add: (QuantityValue, QuantityValue) -> QuantityValue)?;
    add_member_overload!(env, fn add_int: (QuantityValue, CelInt) -> QuantityValue, name = "add")?;
    add_member_overload!(env, fn sub: (QuantityValue, QuantityValue) -> QuantityValue)?;
    add_member_overload!(env, fn sub_int: (QuantityValue, CelInt) -> QuantityValue, name = "sub")
}

fn quantity(text: &CelString<'_>) -> Result<QuantityValue, ExecutionError> {
    let parsed = text.inner().parse().map(QuantityValue);
    parsed.map_err(|error| ExecutionError::function_error("quantity", error))
}

fn is_quantity(text: &CelString<'_>) -> CelBool {
    text.inner().parse::<Amount>().is_ok().into()
}

fn is_integer(this: &QuantityValue) -> CelBool {
    this.0.as_integer().is_some().into()
}

fn as_integer(this: &QuantityValue) -> Result<CelInt, ExecutionError> {
    let integer = this.0.as_integer().map(CelInt::from);
    integer.ok_or_else(|| ExecutionError::function_error("asInteger", "the quantity is no integer"))
}

fn as_float(this: &QuantityValue) -> CelDouble {
    this.0.as_float().into()
}

fn sign(this: &QuantityValue) -> CelInt {
    this.0.signum().into()
}

fn is_greater(this: &QuantityValue, other: &QuantityValue) -> CelBool {
    (this.0 > other.0).into()
}

fn is_less(this: &QuantityValue, other: &QuantityValue) -> CelBool {
    (this.0 < other.0).into()
}

fn compare_to(this: &QuantityValue, other: &QuantityValue) -> CelInt {
    super::text::sign_of(this.0.cmp(&other.0))
}

fn add(this: &QuantityValue, other: &QuantityValue) -> QuantityValue {
    QuantityValue(this.0.plus(other.0))
}

fn add_int(this: &QuantityValue, other: &CelInt) -> QuantityValue {
    QuantityValue(this.0.plus(Amount::whole(*other.inner())))
}

fn sub(this: &QuantityValue, other: &QuantityValue) -> QuantityValue {
    QuantityValue(this.0.minus(other.0))
}

fn sub_int(this: &QuantityValue, other: &CelInt) -> QuantityValue {
    QuantityValue(this.0.minus(Amount::whole(*other.inner())))
}
